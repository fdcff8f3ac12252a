"""What an attacker sends, packet by packet, and what they see: stock libraries are too polite for most of it.

Each test says in its first line what the attacker does and in its second what must come back.
"""
import concurrent.futures
import contextlib
import json
import socket
import struct
import threading
import time
import uuid

import pytest

from client import Client

CONF = ("plugin_opt_im_rate_refusals 500",)


# ---- packets

def text(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("!H", len(b)) + b


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out


def packet(kind, body):
    return bytes([kind]) + varint(len(body)) + body


def properties(raw=b""):
    return varint(len(raw)) + raw


def user_property(name, value):
    return b"\x26" + text(name) + text(value)


def connect(client_id, user=None, password=None, v5=False, clean=True, will=None, keepalive=60, props=b"", will_props=b""):
    """will: (topic, payload, qos, retain)"""
    flags, tail = (2 if clean else 0), text(client_id)
    if will:
        flags |= 4 | will[2] << 3 | (32 if will[3] else 0)
        tail += (properties(will_props) if v5 else b"") + text(will[0]) + text(will[1])
    if user is not None:
        flags, tail = flags | 128, tail + text(user)
    if password is not None:
        flags, tail = flags | 64, tail + text(password)
    head = text("MQTT") + bytes([5 if v5 else 4, flags]) + struct.pack("!H", keepalive)
    return packet(0x10, head + (properties(props) if v5 else b"") + tail)


def publish(topic, payload=b"", qos=1, mid=1, retain=False, v5=False, props=b"", dup=False):
    payload = payload.encode() if isinstance(payload, str) else payload
    head = text(topic) + (struct.pack("!H", mid) if qos else b"") + (properties(props) if v5 else b"")
    return packet(0x30 | qos << 1 | (1 if retain else 0) | (8 if dup else 0), head + payload)


def subscribe(filters, mid=1, v5=False, qos=1):
    filters = [filters] if isinstance(filters, str) else filters
    return packet(0x82, struct.pack("!H", mid) + (properties() if v5 else b"") + b"".join(text(f) + bytes([qos]) for f in filters))


class Raw:
    """A socket that speaks MQTT without manners."""

    def __init__(self, im, timeout=10):
        self.sock = socket.create_connection(("127.0.0.1", im.port), timeout)
        self.buffer = b""
        self.waiting = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass # closed: seen when reading
        return self

    def _need(self, n):
        while len(self.buffer) < n:
            try:
                more = self.sock.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            self.buffer += more

    def read(self):
        """(first byte, body) of the next packet; None: closed."""
        try:
            self._need(2)
            size, shift, at = 0, 0, 1
            while True:
                self._need(at + 1)
                size |= (self.buffer[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if not self.buffer[at - 1] & 128:
                    break
            self._need(at + size)
        except EOFError:
            return None
        kind, body, self.buffer = self.buffer[0], self.buffer[at:at + size], self.buffer[at + size:]
        return kind, body

    def until(self, kind):
        """The body of the next packet of this kind; others are put aside. None: closed before."""
        while True:
            p = self.read()
            if p is None:
                return None
            if p[0] & 0xf0 == kind:
                return p[1]
            self.waiting.append(p)

    def errors(self, quiet=1.0):
        """Codes of the in/err deliveries that have come or come within a moment."""
        self.sock.settimeout(quiet)
        try:
            while True:
                p = self.read()
                if p is None:
                    break
                self.waiting.append(p)
        except TimeoutError:
            pass
        out = []
        for kind, body in self.waiting:
            if kind & 0xf0 == 0x30:
                n = struct.unpack("!H", body[:2])[0]
                if body[2:2 + n].endswith(b"/err"):
                    out.append(json.loads(body[body.index(b"{"):])["code"])
        self.waiting = []
        return out


def login(im, user="alice", device=None, v5=False, raw_id=None, **kw):
    """Connected as one of the fixture's users."""
    r = Raw(im)
    r.send(connect(raw_id or f"{user}:{device or uuid.uuid4().hex[:12]}", user, im.users[user], v5=v5, **kw))
    body = r.until(0x20)
    assert body and body[1] == 0, body
    return r


def connack(im, data):
    """The CONNACK's code; None: closed without one."""
    with Raw(im) as r:
        body = r.send(data).until(0x20)
        return body[1] if body else None


@contextlib.contextmanager
def witness(im, user="bob"):
    """Somebody else who is connected, and stays so, and gets nothing they should not."""
    with Client(im, user, "witness") as c:
        c.subscribe("im/v1/in/#")
        c.all("im/v1/in/", 0.3)
        yield c


def still_works(im):
    with Client(im, "alice", "w" + uuid.uuid4().hex[:8]) as alice, witness(im) as bob:
        body = uuid.uuid4().hex
        alice.publish("im/v1/to/u/bob", body)
        while body.encode() not in bob.next("im/v1/in/msg/u/alice").payload:
            pass


# ---- identity

@pytest.mark.parametrize("v5", [False, True])
def test_client_id_of_somebody_else(im, v5):
    """CONNECT with bob's client id and alice's good token.

    CONNACK "not authorized"; bob stays connected."""
    with Raw(im) as bob:
        bob.send(connect("bob:desk", "bob", im.users["bob"])).until(0x20)
        assert connack(im, connect("bob:desk", "alice", im.users["alice"], v5=v5)) == (0x87 if v5 else 5)
        bob.send(packet(0xc0, b""))
        assert bob.until(0xd0) == b""


@pytest.mark.parametrize("client_id", ["a/b", "a+b", "a#b", "x" * 129, "alice:", "alice:a b", "$im-offline", "$im-anything", "ALICE:x/", "b\u00f6b",
                                       "\u202ebob", "bob\u200b:x", "system:x/y"])
def test_client_ids_that_no_device_has(im, client_id):
    """CONNECT with a good token and such a client id.

    CONNACK "not authorized" for what could be mistaken for something else; anything allowed is alice's own."""
    code = connack(im, connect(client_id, "alice", im.users["alice"]))
    allowed = all(0x20 <= ord(c) <= 0x7e and c not in "/+#" for c in client_id) and len(client_id) <= 128 and not client_id.startswith("$im-")
    assert code == (0 if allowed else 5)


@pytest.mark.parametrize("user", [None, "", "Alice", "alice ", "alice\u200b", "\u0430lice", "$im", "all", "../alice", "alice/#"])
def test_names_that_look_like_a_user(im, user):
    """CONNECT as nobody, or with a name that looks like alice's, and her token.

    No CONNACK with 0, in both versions."""
    for v5 in (False, True):
        assert connack(im, connect("dev" + uuid.uuid4().hex[:8], user, im.users["alice"] if user is not None else None, v5=v5)) != 0


def test_the_bus_credential_is_of_no_use_over_tcp(im):
    """CONNECT as $im with the real secret, over TCP.

    CONNACK "not authorized": services come over the Unix socket."""
    secret = (im.dir / "run/bus.secret").read_text().strip()
    assert connack(im, connect("$im-offline", "$im", secret)) == 5
    assert connack(im, connect("$im-x", "$im", secret, v5=True)) == 0x87
    still_works(im)


def test_a_sender_cannot_say_who_they_are(im):
    """PUBLISH with "from" in the envelope, and with user properties that claim to be bob.

    The field is refused; the properties are ignored, and carol sees alice."""
    with login(im, v5=True) as r, witness(im, "carol") as carol:
        r.send(publish("im/v1/send", '{"to":"u/carol","body":"x","from":"bob"}', v5=True))
        assert r.until(0x40)[2] == 0x87
        claims = user_property("im-from", "bob") + user_property("from", "bob") + user_property("im-seq", "1")
        r.send(publish("im/v1/to/u/carol", "hello", v5=True, props=claims, mid=2))
        m = json.loads(carol.next("im/v1/in/msg/").payload)
        assert m["from"] == "alice" and m["conv"] == "u/alice" and m["seq"] > 0


def test_enhanced_authentication_is_refused(im):
    """CONNECT of MQTT 5 with an authentication method.

    CONNACK with an error, or closed; never let in."""
    assert connack(im, connect("alice:x", "alice", im.users["alice"], v5=True, props=b"\x15" + text("SCRAM-SHA-1"))) not in (0,)


def test_a_second_connect_on_a_connection(im):
    """CONNECT as alice, then CONNECT as bob on the same socket.

    Closed; nobody is bob."""
    with login(im) as r:
        r.send(connect("bob:x", "bob", im.users["bob"]))
        assert r.until(0x20) is None


# ---- subscriptions

HIS = ["im/v1/in/#", "im/v1/in/msg/u/bob"] # what alice may ask for is her own inbox, whatever it is called
FOREIGN = ["im/#", "im/+/in/#", "im/v1/#", "im/v1/+/msg/#", "im/v1/to/#", "im/v1/to/u/bob", "im/v1/send", "im/v1/ack", "im/v2/in/#", "im/v1/IN/#",
           "im//v1/in/#", "im/v1/in", "im", "$im/#", "$im/in", "$im/out", "$im/sink", "$im/+", "$CONTROL/#", "$CONTROL/im/v1", "$CONTROL/im/v1/response",
           "$CONTROL/im/#", "$SYS/#", "$share/g/im/v1/in/#", "$share/g/$im/in", "$share/g/#", "$share/g/$share/g/im/v1/in/#", "$share/im/v1/in/#",
           "im/v1/room/friends/json", "#", "+/#", "+/v1/in/#", "/im/v1/in/#", "a/" * 100 + "b", "im/v1/in/" + "x" * 300, "im/" + "a/" * 199]


@pytest.mark.parametrize("v5", [False, True])
def test_filters_of_others(im, v5):
    """SUBSCRIBE to everything that is not one's inbox, all in one packet and one by one.

    Each is refused in the SUBACK; the broker may also close for a filter that MQTT forbids."""
    refused = 0x87 if v5 else 0x80
    for f in FOREIGN:
        with login(im, v5=v5) as r:
            body = r.send(subscribe(f, v5=v5)).until(0x90)
            assert body is None or body[-1] >= 0x80, f
            assert body is None or body[-1] == refused or f.startswith("$share"), f
    with login(im, v5=v5) as r:
        codes = r.send(subscribe(HIS, v5=v5)).until(0x90)[-2:]
        assert codes == b"\x01\x01"


def test_a_second_codec_and_a_seventeenth_filter(im):
    """SUBSCRIBE to a second codec, and to more filters than one device may have.

    0x80 in the SUBACK and the code in in/err."""
    with login(im) as r:
        codes = r.send(subscribe([f"im/v1/in/msg/u/u{i}" for i in range(15)] + ["im/v1/in/err", "im/v1/in/sent/#", "im/v1/raw/#"])).until(0x90)[2:]
        assert codes == b"\x01" * 16 + b"\x80\x80"
        assert sorted(r.errors()) == ["second_codec", "too_many"]


def test_many_filters_and_long_ones_in_one_packet(im):
    """SUBSCRIBE with 20,000 filters, and with filters of 65,000 bytes and 200 levels.

    Refused or closed; errors repeat little of it; others notice nothing."""
    with login(im) as r:
        r.send(subscribe([f"im/v1/in/x{i}" for i in range(20000)]))
        body = r.until(0x90)
        assert body is None or body[2:].count(b"\x01") <= 16
    with login(im) as r:
        r.send(subscribe(["im/" + "y" * 65000, "im/v1/in/" + "/".join("z" * 200)]))
        assert r.until(0x90) in (b"\x00\x01\x80\x80", None)
        r.errors()
        assert len(r.buffer) < 2000
    still_works(im)


def test_a_resumed_session_of_another_user(im):
    """Bob leaves a stored session under an id without a name; alice CONNECTs with that id.

    "Not authorized", with a clean session as well; bob's session is still there."""
    with Raw(im) as bob:
        bob.send(connect("shared-id", "bob", im.users["bob"], clean=False)).until(0x20)
        bob.send(subscribe("im/v1/in/#")).until(0x90)
        bob.send(packet(0xe0, b""))
    for clean in (False, True):
        assert connack(im, connect("shared-id", "alice", im.users["alice"], clean=clean)) == 5
    with Raw(im) as bob:
        assert bob.send(connect("shared-id", "bob", im.users["bob"], clean=False)).until(0x20) == b"\x01\x00"


# ---- publishing

@pytest.mark.parametrize("topic", ["im/v1/in/msg/u/bob", "im/v1/raw/msg/u/bob/carol/1", "im/v1/pb/ack", "im/v1/room/friends/json", "im/v1/to/bob", "im/v1/to/u/",
                                   "im/v1/to/u/bob/", "im/v1/to//bob", "im/v1/to/u/bob/id/more", "im/v1/to/u/BOB", "im/v1/to/u/all", "im/v2/to/u/bob",
                                   "im", "im/", "im/v1", "im/v1/req/history", "im/v1/req/A/1", "im/v1/svc/pay/now/1", "im/v1/to/g/nosuch", "im/v1/to/u/nosuch",
                                   "$im/out", "$im/in", "$im/sink", "$im/seq", "$CONTROL/im/v1/response", "$SYS/broker/uptime", "im/v1/" + "a/" * 190 + "b",
                                   "im/v1/to/u/" + "b" * 65000])
def test_topics_one_may_not_publish_to(im, topic):
    """PUBLISH (QoS 1, MQTT 5) to inboxes, the bus, misspelt and endless topics.

    PUBACK 0x87 or a closed connection, never success."""
    with login(im, v5=True) as r, witness(im) as bob:
        body = r.send(publish(topic, "forged", v5=True)).until(0x40)
        assert body is None or (len(body) > 2 and body[2] >= 0x80)
        bob.none("im/v1/in/msg/", 0.2)


def test_topic_aliases_hide_nothing(im):
    """PUBLISH to an allowed topic with alias 1, then to bob's inbox by setting and using alias 2.

    The alias stands for the whole topic: allowed once, refused twice."""
    alias = lambda n: b"\x23" + struct.pack("!H", n)
    with login(im, v5=True) as r:
        codes = []
        for mid, topic, n in ((1, "im/v1/to/u/bob", 1), (2, "", 1), (3, "im/v1/in/msg/u/bob", 2), (4, "", 2)):
            body = r.send(publish(topic, "x", mid=mid, v5=True, props=alias(n))).until(0x40)
            codes.append(body[2] if len(body) > 2 else 0)
        assert codes[0] < 0x80 and codes[1] < 0x80 and codes[2:] == [0x87, 0x87], codes


def test_retained_messages_are_refused(im):
    """PUBLISH with the retain flag to a conversation and to an inbox, with and without payload.

    Refused with its code; who subscribes later finds nothing."""
    with login(im, v5=True) as r:
        for mid, (topic, body) in enumerate((("im/v1/to/u/bob", "poison"), ("im/v1/to/u/bob", ""), ("im/v1/in/msg/u/bob", "poison")), 1):
            assert r.send(publish(topic, body, mid=mid, retain=True, v5=True)).until(0x40)[2] == 0x87
        assert r.errors()[:2] == ["retained", "retained"]
    with Client(im, "bob", "late") as bob:
        bob.subscribe("im/v1/in/#")
        assert all(b"poison" not in m.payload and not m.retain for m in bob.all("im/v1/", 0.5))


def test_a_response_topic_of_somebody_else(im):
    """A request whose Response Topic is another inbox, a send topic, a wildcard.

    Refused: the server publishes nowhere a client names."""
    with login(im, v5=True) as r:
        for mid, topic in enumerate(("im/v1/to/u/bob", "im/v1/in/msg/u/bob", "im/v1/in/res/", "im/v1/raw/res/1", "other/topic"), 1):
            body = r.send(publish(f"im/v1/req/server/r{mid}", b"", mid=mid, v5=True, props=b"\x08" + text(topic))).until(0x40)
            assert body[2] == 0x87, topic


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{\"to\":\"u/bob\",\"to\":\"u/carol\"}", b"[" * 1000000, b"{\"a\":" * 100000,
                                  b'{"to":"u/bob","body":"\\ud800"}', b'{"to":"u/bob","expiry":1e999}', b'{"to":"u/bob","body":1}', b'{"to":"u/bob\\u0000"}',
                                  b'{"to":"u/bob","body":[' + b"1," * 500000 + b'1],"enc":"json"}', b'{"to":["u/bob"]}', b'{"to":"u/bob","seq":1}',
                                  b'{"to":"u/bob","mentions":[' + b'"bob",' * 5000 + b'"bob"]}'], ids=lambda b: repr(b[:24]))
def test_json_that_is_none(im, body):
    """PUBLISH to im/v1/send what is no envelope: cut, nested a million deep, with a million numbers, twice the same key.

    0x87, the reason in in/err, and no more than a moment of the broker's time."""
    with login(im, v5=True) as r, witness(im) as bob:
        began = time.monotonic()
        answer = r.send(publish("im/v1/send", body, v5=True)).until(0x40)
        assert answer[2] == 0x87 and time.monotonic() - began < 2
        assert r.errors(0.3)[0] in ("bad_json", "bad_field", "bad_name", "too_many", "too_big")
        bob.none("im/v1/in/msg/", 0.1)


def test_protocol_buffers_that_are_none(im):
    """PUBLISH to im/v1/send/pb noise, cut fields, lengths beyond the end, groups.

    0x87 each."""
    with login(im, v5=True) as r:
        for mid, body in enumerate((b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05u/bo", b"\x0b\x0c", b"\x08" * 5000, b"\x0a\x05u\x00bob"), 1):
            assert r.send(publish("im/v1/send/pb", body, mid=mid, v5=True)).until(0x40)[2] == 0x87, body[:10]


def test_user_properties_by_the_thousand(im):
    """PUBLISH with 20,000 user properties, and with one of 64 kB, a hundred times.

    They are accepted as what they are, a message; nobody waits long."""
    many = b"".join(user_property("k", "v") for _ in range(20000))
    with login(im, v5=True) as r:
        began = time.monotonic()
        for mid in range(1, 51):
            r.send(publish("im/v1/to/u/bob", "x", mid=mid, v5=True, props=many))
            r.send(publish("im/v1/to/u/bob", "x", mid=100 + mid, v5=True, props=user_property("n", "v" * 65000)))
        acks = [r.until(0x40) for _ in range(100)]
        assert all(a is not None for a in acks)
        assert time.monotonic() - began < 20
    still_works(im)


def test_the_same_id_with_another_body(im):
    """PUBLISH the same message id twice, then with another body.

    Stored once; the third is refused as id_reused."""
    mine = "m" + uuid.uuid4().hex[:10]
    with login(im) as r, witness(im) as bob:
        for mid, body in ((1, "one"), (2, "one"), (3, "two")):
            r.send(publish(f"im/v1/to/u/bob/{mine}", body, mid=mid, dup=mid == 2)).until(0x40)
        assert set(r.errors(1.5)) == {"id_reused"} # at least once
        assert [json.loads(m.payload)["body"] for m in bob.all("im/v1/in/msg/u/alice", 0.7)] == ["one"]


# ---- wills

FORBIDDEN = ["im/v1/in/msg/u/bob", "$im/out", "$im/in", "im/v1/to/u/nosuch", "im/v1/room/friends/json", "plain/x"]


@pytest.mark.parametrize("retain", [False, True])
def test_wills_to_what_one_may_not_publish(im, retain):
    """CONNECT with such a will, then cut the connection; a will to admin commands.

    Nobody gets it, now or by subscribing later; the last is closed without CONNACK."""
    with witness(im) as bob:
        for topic in FORBIDDEN:
            login(im, v5=True, will=(topic, "forged", 1, retain)).sock.close()
        assert connack(im, connect("alice:w", "alice", im.users["alice"], will=("$CONTROL/im/v1", "forged", 1, retain))) is None
        assert all(b"forged" not in m.payload for m in bob.all("", 0.5))
    with Client(im, "bob", "after") as later:
        later.subscribe("im/v1/in/#")
        assert all(b"forged" not in m.payload for m in later.all("", 0.3))


def test_a_will_is_a_message_of_its_own_user_once(im):
    """CONNECT with a will to bob, cut; the same again with a delay, then come back before it is due.

    Bob gets the first, from alice; of the second nothing."""
    with witness(im) as bob:
        login(im, will=("im/v1/to/u/bob", "gone", 1, False)).sock.close()
        m = json.loads(bob.next("im/v1/in/msg/u/alice").payload)
        assert m["body"] == "gone" and m["from"] == "alice"
        delay = dict(v5=True, clean=False, props=b"\x11" + struct.pack("!I", 60), will_props=b"\x18" + struct.pack("!I", 30))
        login(im, device="delayed", will=("im/v1/to/u/bob", "not this", 1, False), **delay).sock.close()
        time.sleep(0.2)
        login(im, device="delayed", v5=True, clean=False).send(packet(0xe0, b"")).sock.close()
        bob.none("im/v1/in/msg/", 0.7)


# ---- exhaustion

def test_a_flood_leaves_others_alone(im):
    """Three connections of dave publish as fast as the socket takes it, unread answers piling up.

    What is over the rate is refused or cut off; alice's messages reach bob in bounded time."""
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            try:
                with login(im, "dave") as r:
                    r.sock.settimeout(1)
                    burst = b"".join(publish("im/v1/to/u/carol", "f" * 100, mid=1 + i % 60000) for i in range(500))
                    while not stop.is_set():
                        r.sock.sendall(burst)
            except (OSError, AssertionError):
                pass

    threads = [threading.Thread(target=flood) for _ in range(3)]
    with Client(im, "alice", "calm") as alice, witness(im) as bob:
        for t in threads:
            t.start()
        times = []
        try:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                began, body = time.monotonic(), uuid.uuid4().hex
                alice.publish("im/v1/to/u/bob", body, timeout=20)
                while body.encode() not in bob.next("im/v1/in/msg/u/alice", 20).payload:
                    pass
                times.append(time.monotonic() - began)
        finally:
            stop.set()
            for t in threads:
                t.join()
        times.sort()
        assert len(times) >= 10 and times[len(times) // 2] < 0.25 and times[-1] < 10, times[-5:]


def test_half_connects_and_silence(im):
    """200 sockets that send half a CONNECT, one byte, or nothing; then noise instead of MQTT.

    They cost nothing but their sockets; logins go on."""
    whole = connect("alice:half", "alice", im.users["alice"])
    held = [Raw(im).send(whole[:n % len(whole)]) for n in range(200)]
    began = time.monotonic()
    with login(im):
        assert time.monotonic() - began < 2
    for noise in (b"\x00" * 64, b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", packet(0x10, b"\x00\x04MQTT\x04\xff\xff\xff"), b"\x10\xff\xff\xff\xff\x7f"):
        with Raw(im) as r:
            r.send(noise).sock.settimeout(0.5)
            try:
                assert r.until(0x20) is None
            except TimeoutError:
                pass # it waits for the rest of what looks like a packet
    for r in held:
        r.sock.close()
    still_works(im)


def test_logins_with_wrong_tokens_by_the_hundred(im):
    """300 CONNECTs with guessed tokens for carol, many at a time.

    None gets in; alice logs in meanwhile within a second."""
    def guess(i):
        return connack(im, connect(f"carol:g{i}", "carol", uuid.uuid4().hex))

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        results = [pool.submit(guess, i) for i in range(300)]
        began = time.monotonic()
        login(im).sock.close()
        assert time.monotonic() - began < 2
        assert all(r.result() != 0 for r in results)


def test_subscribe_and_unsubscribe_without_end(im):
    """SUBSCRIBE and UNSUBSCRIBE 20,000 times on a stored session.

    Over the rate it is refused; the file of stored sessions stays small."""
    off = packet(0xa2, struct.pack("!H", 2) + text("im/v1/in/x"))
    r = login(im, "carol", clean=False, device="churn")
    for _ in range(200):
        r.send((subscribe("im/v1/in/x") + off) * 100)
    r.sock.settimeout(0.2)
    try:
        while r.read():
            pass
    except TimeoutError:
        pass
    r.sock.close()
    still_works(im)
    assert (im.dir / "sessions").stat().st_size < 4 << 20


def test_a_slow_consumer_of_errors(im):
    """100,000 refused publishes of QoS 0 and nothing read.

    The connection ends at the rate of refusals; the broker's memory stays."""
    before = im.rss_kib()["mosquitto"]
    with login(im, "carol") as r:
        r.sock.settimeout(2)
        try:
            for _ in range(1000):
                r.sock.sendall(publish("im/v1/nonsense", "x" * 500, qos=0) * 100)
        except OSError:
            pass
    assert im.rss_kib()["mosquitto"] - before < 32 << 10
    still_works(im)
