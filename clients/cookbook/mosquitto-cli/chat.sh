#!/bin/sh
# A short chat with mosquitto_pub and mosquitto_sub. README.md in the parent folder tells the steps.
# The password goes into a configuration file of the clients, so that it is in no process list.
set -eu
host=$1 port=$2 user=$3 peer=$4
run="sh$(date +%s)-$$"
dir=$(mktemp -d)
receiver=
trap '[ -z "$receiver" ] || kill "$receiver" 2>/dev/null || true; rm -rf "$dir"' EXIT
umask 077
for tool in pub sub rr; do
	printf -- '-h %s\n-p %s\n-u %s\n-P %s\n' "$host" "$port" "$user" "$IM_PASSWORD" >"$dir/mosquitto_$tool"
done
export XDG_CONFIG_HOME="$dir"

receive() { # starts the receiving device: QoS 1, session kept (-c)
	mosquitto_sub -i "$user:cookbook-sh" -q 1 -c -v -t 'im/v1/in/#' >"$dir/in" &
	receiver=$!
}
# A refusal stays owed until its device has been connected for a while, and mosquitto_rr leaves at the first answer: it would
# get the old refusal again at its next start. So the doomed message is sent by a client id of its own, used once.
send() { # step, answer topic, to, message id, text: mosquitto_rr shows the answer on the sending connection
	case $2 in
	*/err) device=$user-$4 ;;
	*) device=$user:cookbook-rr ;; # a repeat is recognised by client id and message id
	esac
	echo "send: im/v1/to/u/$3/$4 $5"
	answer=$(mosquitto_rr -V 311 -i "$device" -q 1 -W 15 -e "$2" -t "im/v1/to/u/$3/$4" -m "$5")
	case $answer in
	*"$4"*) echo "$1: $2 $answer" ;;
	*) echo "not seen within 15 s: $1 (but: $answer)" >&2; exit 1 ;;
	esac
}
expect() { # step, pattern of a line "topic payload"
	tries=150
	until line=$(grep -m 1 -e "$2" "$dir/in"); do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { echo "not seen within 15 s: $1" >&2; exit 1; }
		sleep 0.1
	done
	echo "$1: $line"
}
away() {
	kill "$receiver" && wait "$receiver" || true # its own end by our signal
	receiver=
	echo away
}

receive
expect welcome '^im/v1/in/evt/welcome '
send acked im/v1/in/ack "$peer" "$run-1" "hello $run"
expect received "^im/v1/in/msg/u/$peer .*hello $run"
expect 'own, from the other device' "^im/v1/in/sent/u/$peer .*$run-1"
seq=$(printf '%s\n' "$line" | sed 's/.*"seq": *\([0-9]*\).*/\1/')
mosquitto_pub -i "$user:cookbook-rr" -q 1 -t im/v1/ack -m "[{\"conv\":\"u/$peer\",\"read\":$seq}]"
send refused im/v1/in/err nobody.at.all "$run-2" 'is anybody there'
send 'repeat answered alike' im/v1/in/ack "$peer" "$run-1" "hello $run"

away
send acked im/v1/in/ack "$peer" "$run-3" "while away $run"
sleep 1 # the answer arrives meanwhile
receive
expect 'caught up' "^im/v1/in/msg/u/$peer .*while away $run"
echo done
