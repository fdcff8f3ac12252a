#!/bin/bash
# What `cmake --install` makes: units that systemd takes and that give away little, a configuration that our check accepts,
# and programs that are hard to misuse. usage: units_test.sh BUILD [SANITIZED]
set -eu
build=$1 sanitized=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
	echo "units_test: $*" >&2
	failed=1
}

cmake --install "$build" --prefix "$work" >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; exit 1; }
echo "# changed" >>"$work/etc/mosquitto-im/conf.d/listeners.conf"
cmake --install "$build" --prefix "$work" >"$work/install.log" 2>&1
grep -q '^# changed' "$work/etc/mosquitto-im/conf.d/listeners.conf" || fail "an upgrade has overwritten the configuration"
[ -n "$sanitized" ] || "$work/libexec/mosquitto-im/im-supervisor" --check --config "$work/etc/mosquitto-im/broker.conf" ||
	fail "the check does not accept the configuration that is installed"
grep -rn '@[A-Z]*@' "$work/etc" "$work/lib/systemd" "$work/lib/sysusers.d" | grep -v ':[0-9]*:#' && fail "a placeholder was left"

# The flags of cmake/targets.cmake must have arrived.
hard() {
	local file=$1 header dynamic

	header=$(readelf -Wlh "$file")
	dynamic=$(readelf -Wd "$file")
	grep -q 'Type: *DYN' <<<"$header" || fail "$file is not position independent"
	grep -q GNU_RELRO <<<"$header" || fail "$file has no RELRO"
	grep -Eq 'BIND_NOW|FLAGS_1.*NOW' <<<"$dynamic" || fail "$file binds lazily"
	grep -q 'GNU_STACK.*RWE' <<<"$header" && fail "$file has an executable stack"
	grep -Eq 'RPATH|RUNPATH' <<<"$dynamic" && fail "$file has a path of the build in it"
	[ -n "$sanitized" ] && return
	readelf -Ws "$file" | grep -q '__stack_chk_fail' || fail "$file has no stack protector"
	readelf -Ws "$file" | grep -q '_chk@' || fail "$file is not fortified"
	if [ "$(uname -m)" = x86_64 ]; then
		# The file's own mark says nothing: the linker drops it because Debian's start files have none.
		[ "$(objdump -d "$file" | grep -c endbr64)" -gt 20 ] || fail "$file has no control flow protection"
	fi
}
for program in "$work"/libexec/mosquitto-im/* "$work/bin/imctl" "$work/lib/"*"/mosquitto-im/mosquitto_im.so" "$work/lib/mosquitto-im/mosquitto_im.so"; do
	[ ! -e "$program" ] || hard "$program"
done
exported=$(nm -D --defined-only "$work"/lib/{,*/}mosquitto-im/mosquitto_im.so 2>/dev/null | awk 'NF == 3 {print $3}' | grep -v '^mosquitto_plugin_' || true)
[ -z "$exported" ] || [ -n "$sanitized" ] || fail "the plugin exports $exported"

if command -v systemd-analyze >/dev/null; then
	cp "$work/lib/systemd/system/mosquitto-im-push@.service" "$work/lib/systemd/system/mosquitto-im-push@honor.service"
	rm "$work/lib/systemd/system/mosquitto-im-push@.service" # a template is looked at as one of its instances
	units=("$work"/lib/systemd/system/mosquitto-im-*.service)
	said=$(systemd-analyze verify --man=no --recursive-errors=no "${units[@]}" "$work/lib/systemd/system/mosquitto-im.target" 2>&1 | grep mosquitto-im || true)
	[ -z "$said" ] || fail "$said"
	for unit in "${units[@]}"; do # exposure of 1.5 at most
		systemd-analyze security --offline=true --threshold=15 --no-pager "$unit" >"$work/security" 2>&1 || fail "$(tail -1 "$work/security")"
	done
else
	echo "units_test: no systemd-analyze here: the units were not looked at"
fi
exit $failed
