"""Packets against the real broker: good ones, bent. After each batch the broker answers a PINGREQ and carries a message.

    IM_BUILD=build-asan IM_SANITIZED=1 python3 tests/fuzz/packets.py --seconds 600 --seed 7
    ... --seed 7 --batch 41        only that batch again

What a batch sends depends on the seed and its number alone.
"""
import argparse
import pathlib
import random
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from instance import Instance  # noqa: E402
from raw import CONNECT, PUBACK, PUBLISH, PUBREC, PUBREL, SUBSCRIBE, Raw, length, packet, text  # noqa: E402

UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH = 10, 12, 14, 15
BATCH = 40  # connections
PATIENCE = 10  # seconds for a ping or a message: sanitizers are slow
TOPICS = ["im/v1/to/u/bob", "im/v1/to/u/bob/m%d", "im/v1/to/g/friends", "im/v1/send", "im/v1/send/pb", "im/v1/ack", "im/v1/sig/u/bob",
          "im/v1/req/history/r%d", "im/v1/req/me/r%d", "$CONTROL/im/v1", "$im/out", "$im/in", "$im/sink", "im/v1/in/msg/u/bob", "im/v9/x", "plain",
          "im/v1/to/u/" + "x" * 300, "/".join("a" * 150)]
FILTERS = ["im/v1/in/#", "im/v1/raw/#", "im/v1/pb/#", "#", "im/#", "+/+/+/#", "$im/#", "$share/x/im/v1/in/#", "$CONTROL/#", "im/v1/room/x/json"]
BODIES = [b"hello", b"", b"\xff\xfe", b'{"to":"u/bob","id":"1","body":"x"}', b'{"to":"u/bob","body":"' + b"\\u0041" * 50 + b'"}', b"[" * 400,
          b'[{"conv":"u/bob","delivered":1,"read":1}]', b'{"commands":[{"command":"user.list"}]}', b"\n\x05u/bob\x12\x01x", b"{}", b"x" * 5000]


def properties(r):
    """Of a PUBLISH: some right, some of other packets, in any order, and any number of times."""
    parts = [b"\x03" + text("text/plain"), b"\x08" + text("im/v1/in/res/x"), b"\x09" + text(b"corr"), b"\x26" + text("im-id") + text("p%d" % r.randrange(9)),
             b"\x26" + text("x") + text(b"\xc0\xaf"), b"\x01\x01", b"\x02" + struct.pack("!I", 5), b"\x23" + struct.pack("!H", r.randrange(12)), b"\x0b\x05",
             b"\x26" + text("im-id") + text("q" * 200), b"\x03" + text("t" * 400)]
    body = b"".join(r.choice(parts) for _ in range(r.randrange(5)))
    return length(len(body)) + body


def connect(r, v5):
    user, password = r.choice([("alice", "pw")] * 6 + [("alice", "no"), ("$im", "x"), ("", ""), ("mallory", "pw")])
    client = r.choice(["alice:f%d" % r.randrange(4), "f%d" % r.randrange(4), "bob:phone", "$im-offline", "a" * 200, "", "alice:\u00e9"])
    will = r.random() < 0.3
    flags = 0xc0 | r.choice([0, 2]) | (4 | r.choice([0, 8, 16, 0x20]) if will else 0)
    body = [text("MQTT"), bytes([5 if v5 else 4, flags]), struct.pack("!H", r.choice([0, 1, 60]))]
    if v5:
        body.append(r.choice([b"\0", b"\x05\x11\0\0\0\x3c", b"\x03\x21\0\x02"]))
    body.append(text(client))
    if will:
        body += [b"\0" if v5 else b"", text(r.choice(TOPICS).replace("%d", "1")), text(r.choice(BODIES))]
    return packet(CONNECT, 0, *body, text(user), text(password))


def other(r, v5):
    kind = r.choice([PUBLISH] * 6 + [SUBSCRIBE] * 3 + [UNSUBSCRIBE, PUBREL, PUBACK, PUBREC, PINGREQ, DISCONNECT, AUTH])
    mid = struct.pack("!H", r.randrange(4))
    none = b"\0" if v5 else b""
    if kind == PUBLISH:
        qos = r.choice([0, 1, 1, 2])
        topic = r.choice(TOPICS).replace("%d", str(r.randrange(5)))
        return packet(PUBLISH, qos << 1 | r.choice([0, 0, 1, 8]), text(topic), mid if qos else b"", properties(r) if v5 else b"", r.choice(BODIES))
    if kind == SUBSCRIBE:
        return packet(kind, 2, mid, none, *(text(r.choice(FILTERS)) + bytes([r.choice([0, 1, 2, 0x2c])]) for _ in range(r.randrange(1, 4))))
    if kind == UNSUBSCRIBE:
        return packet(kind, 2, mid, none, text(r.choice(FILTERS)))
    if kind in (PINGREQ, DISCONNECT):
        return packet(kind, 0)
    return packet(kind, 2 if kind == PUBREL else 0, mid)


def bend(r, data):
    """One mistake."""
    data = bytearray(data)
    at = r.randrange(len(data))
    how = r.randrange(8)
    if how == 0:
        data[at] ^= 1 << r.randrange(8)
    elif how == 1:
        data[at] = r.choice([0, 1, 0x7f, 0x80, 0xff])
    elif how == 2:
        del data[at:at + r.randrange(1, 9)]
    elif how == 3:
        data[at:at] = r.randbytes(r.randrange(1, 9))
    elif how == 4:  # another remaining length
        data[1:2] = length(r.choice([0, 1, 2, 127, 128, 16384, len(data), 268435455]))
    elif how == 5:  # a length of a string
        data[at:at + 2] = struct.pack("!H", r.choice([0, 1, 0xff, 0xffff, len(data)]))
    elif how == 6:  # no UTF-8, a NUL, a surrogate, something overlong
        data[at:at] = r.choice([b"\0", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xef\xbf\xbf", b"+", b"#", b"/"])
    else:
        data += data[at:]
    return bytes(data)


def one_connection(r, port):
    v5 = r.random() < 0.5
    packets = [connect(r, v5)] + [other(r, v5) for _ in range(r.randrange(1, 12))]
    if r.random() < 0.1:
        packets[0] = bend(r, packets[0])
    packets[1:] = [bend(r, p) if p and r.random() < 0.4 else p for p in packets[1:]]
    if r.random() < 0.1:
        r.shuffle(packets)
    stream = b"".join(packets)
    if r.random() < 0.2:
        stream = stream[:r.randrange(len(stream))]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as s:
        s.settimeout(0.02)
        try:
            for at in range(0, len(stream), 700):
                s.sendall(stream[at:at + 700])
            while s.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


class Canary:
    """bob listens all the time; carol, whom no packet can speak for, talks to him."""

    def __init__(self, port):
        self.bob = Raw(port, "bob", "bob:canary", "pw")
        self.carol = Raw(port, "carol", "carol:canary", "pw")
        for c in (self.bob, self.carol):
            assert c.rc == 0
            c.socket.settimeout(PATIENCE)
        self.bob.subscribe("im/v1/in/msg/u/carol")

    def check(self, word):
        self.carol.publish("im/v1/to/u/bob/" + word, word)
        deadline = time.monotonic() + PATIENCE
        while word.encode() not in self.bob.message(PATIENCE)[1]:  # raises if the connection ends or nothing comes
            assert time.monotonic() < deadline, "the message does not come"
        self.bob.socket.sendall(packet(PINGREQ, 0))
        self.bob.wait(13)


def prepare(instance):
    for user in ("alice", "bob", "carol"):
        instance.imctl("user", "add", user, stdin="pw\n")
    instance.imctl("group", "create", "friends", "--owner", "alice")
    instance.imctl("group", "add", "friends", "bob")


def run(instance, seconds, seed, only=None):
    """Batches until the time is over; the number of batches and connections."""
    canary = Canary(instance.port)
    end = time.monotonic() + seconds
    number = 0
    while only is not None or time.monotonic() < end:
        number = only if only is not None else number + 1
        r = random.Random(f"{seed}/{number}")
        try:
            for _ in range(BATCH):
                one_connection(r, instance.port)
            canary.check(f"b{number}-{seed}")
        except Exception as e:
            raise AssertionError(f"after batch {number} of seed {seed}: {e!r}\n{instance.logs()}") from e
        if only is not None:
            break
    return number, number * BATCH


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--batch", type=int)
    a = p.parse_args()
    with Instance() as instance:
        prepare(instance)
        began = time.monotonic()
        batches, connections = run(instance, a.seconds, a.seed, a.batch)
        print(f"seed {a.seed}: {batches} batches, {connections} connections in {time.monotonic() - began:.0f} s, every canary answered")


if __name__ == "__main__":
    main()
