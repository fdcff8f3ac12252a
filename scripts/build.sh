# Sourced by the other scripts. build_into FOLDER TARGET [cmake options]: configures once and builds what changed; quiet
# unless it fails. TARGET is "programs" (what runs) or "all" (the tests too).
build_into() {
	local folder=$1 target=$2 log
	shift 2
	log=$(mktemp)
	if { [ -f "$folder/build.ninja" ] || cmake -S "$root" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@"; } >"$log" 2>&1 &&
		ninja -C "$folder" "$target" >>"$log" 2>&1; then
		rm -f "$log"
		return 0
	fi
	cat "$log" >&2
	rm -f "$log"
	echo "the build in $folder failed" >&2
	return 1
}
