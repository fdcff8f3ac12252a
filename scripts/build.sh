# Sourced by the other scripts. build_into FOLDER [cmake options]: configures once and builds what changed; quiet unless it fails.
build_into() {
	local folder=$1 log
	shift
	log=$(mktemp)
	if { [ -f "$folder/build.ninja" ] || cmake -S "$root" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@"; } >"$log" 2>&1 &&
		ninja -C "$folder" >>"$log" 2>&1; then
		rm -f "$log"
		return 0
	fi
	cat "$log" >&2
	rm -f "$log"
	echo "the build in $folder failed" >&2
	return 1
}
