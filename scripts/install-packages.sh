#!/bin/bash
# Installs the Debian packages that are missing. usage: install-packages.sh run|test
#
# Quick and silent when nothing is missing. On Debian 12 mosquitto comes from bookworm-backports, because the plugin needs
# 2.0.21; the suite is added if it is not there. Installing mosquitto must not leave a second broker on port 1883: its
# service is kept from starting, and disabled if it is us who brought it.
set -eu

mosquitto_least=2.0.21
apt_options=(-qy --no-install-recommends -o DPkg::Lock::Timeout=300) # a fresh machine may be busy updating itself
broker=(mosquitto mosquitto-clients mosquitto-dev libmosquitto-dev)
run=(gcc libc6-dev cmake ninja-build pkg-config libuv1-dev libsodium-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler
	libsqlite3-dev uthash-dev zlib1g-dev libncurses-dev libssl-dev libcurl4-openssl-dev libnghttp2-dev libmicrohttpd-dev)
tests=(g++ libcmocka-dev clang python3 python3-pytest python3-pytest-xdist python3-paho-mqtt python3-jwt python3-cryptography python3-protobuf protobuf-compiler openssl libpaho-mqtt-dev libpaho-mqttpp-dev golang-go
	golang-github-eclipse-paho.mqtt.golang-dev ca-certificates procps libfaketime python3-h2)

say() { echo "install-packages: $*" >&2; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

broker_is_right() {
	local p
	for p in "${broker[@]}"; do
		installed "$p" || return 1
		dpkg --compare-versions "$(dpkg-query -W -f '${Version}' "$p")" ge "$mosquitto_least" || return 1
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	else
		sudo env DEBIAN_FRONTEND=noninteractive "$@"
	fi
}

# Debian's own candidate, or with "-t SUITE" that suite's.
candidate_is_right() {
	local v
	v=$(apt-cache "$@" policy mosquitto | awk '/Candidate:/ {print $2}')
	[ -n "$v" ] && [ "$v" != "(none)" ] && dpkg --compare-versions "$v" ge "$mosquitto_least"
}

add_backports() {
	local suite=$1
	say "adding the suite $suite, which has mosquitto $mosquitto_least"
	echo "deb http://deb.debian.org/debian $suite main" | as_root tee "/etc/apt/sources.list.d/$suite.list" >/dev/null
	as_root apt-get update -q
}

install_broker() {
	local suite from=()
	. /etc/os-release
	suite="${VERSION_CODENAME:-}-backports"
	if ! candidate_is_right; then
		candidate_is_right -t "$suite" 2>/dev/null || add_backports "$suite"
		from=(-t "$suite")
		if ! candidate_is_right "${from[@]}"; then
			say "no mosquitto >= $mosquitto_least for ${PRETTY_NAME:-this system}"
			exit 1
		fi
	fi
	as_root apt-get install "${apt_options[@]}" "${from[@]}" "${broker[@]}"
}

# Packages must not start services meanwhile; an admin's own policy stays.
guard=/usr/sbin/policy-rc.d
guarded=
guard_services() {
	[ -e "$guard" ] && return
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
	guarded=yes
	as_root chmod 755 "$guard"
}
unguard_services() {
	[ -z "$guarded" ] || as_root rm -f "$guard"
}

missing=()
need() {
	local p
	for p in "$@"; do
		installed "$p" || missing+=("$p")
	done
}

# The runtime of clang's sanitizers and of its fuzzer has the version in its name.
need_clang_runtime() {
	local rt
	rt=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p' | head -1)
	[ -z "$rt" ] || need "$rt"
}

case "${1:-}" in
run) need "${run[@]}" ;;
test)
	need "${run[@]}" "${tests[@]}"
	need_clang_runtime
	# A Node.js that brings its own npm (not Debian's) conflicts with Debian's npm package.
	command -v node >/dev/null || missing+=(nodejs)
	command -v npm >/dev/null || missing+=(npm)
	;;
*)
	echo "usage: $0 run|test" >&2
	exit 2
	;;
esac

broker_missing=
broker_is_right || broker_missing=yes
[ ${#missing[@]} -gt 0 ] || [ -n "$broker_missing" ] || exit 0

say "missing: ${missing[*]}${broker_missing:+ ${broker[*]} (>= $mosquitto_least)}"
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
	say "this is neither root nor is there sudo; as root: $(readlink -f "$0") $1"
	exit 1
fi
exec 9<"$0"
flock 9 # two starts at once: one after the other
had_broker=
! installed mosquitto || had_broker=yes
trap unguard_services EXIT
guard_services
as_root apt-get update -q
[ "$1" != test ] || need_clang_runtime # again: a fresh system knows no packages before its first update
[ -z "$broker_missing" ] || install_broker
[ ${#missing[@]} -eq 0 ] || as_root apt-get install "${apt_options[@]}" "${missing[@]}"
if [ -z "$had_broker" ] && [ -d /run/systemd/system ]; then
	as_root systemctl disable -q mosquitto.service # at the next boot it would take port 1883
fi
