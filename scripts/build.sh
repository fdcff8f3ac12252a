# Sourced by the other scripts. build_into FOLDER TARGET [cmake options]: configures once and builds what changed; quiet
# unless it fails. TARGET is "programs" (what runs) or "all" (the tests too). Two at once in a folder wait for each other.
build_into() (
	folder=$1 target=$2
	shift 2
	mkdir -p "$folder"
	exec 9<"$folder"
	flock 9
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if { [ -f "$folder/build.ninja" ] || cmake -S "$root" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@"; } >"$log" 2>&1 &&
		ninja -C "$folder" "$target" >>"$log" 2>&1; then
		exit 0
	fi
	cat "$log" >&2
	echo "the build in $folder failed" >&2
	exit 1
)
