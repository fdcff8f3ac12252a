"""What may be said, and where (reliability table 3.3, without wills: test_wills.py)."""
import json
import re
import struct
import time
import uuid

import pytest

import tree
from client import Client
from raw import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, Attacker, login, packet, properties, publish, subscribe

CONF = ("plugin_opt_im_rate_refusals 100000",)
ID = r"[A-Za-z0-9._:~-]{1,64}"
# What alice may publish to, by brute force: everything else is refused. im/v1/send and the like depend on the payload: refused when empty.
ALLOWED = re.compile(rf"im/v1/(to|sig)/(u/(alice|bob|carol|dave)|g/friends)|im/v1/to/(u/(alice|bob|carol|dave)|g/friends)/{ID}|"
                     rf"im/v1/req/[a-z0-9._-]+/{ID}")
CONTROL = "$CONTROL/im/v1"  # always acknowledged by the broker; test_admin.py


def codes(im, packets, kind=PUBACK):
    """The reason codes of these publishes (mid 1, 2, ...) on one connection; None from where it was closed."""
    with login(im, v5=True) as r:
        out = []
        for at in range(0, len(packets), 50):
            r.send(b"".join(packets[at:at + 50]))
            out += [r.code(kind) for _ in packets[at:at + 50]]
            r.waiting.clear()
        return out


def topics():
    """The tree, every level of it emptied, in other case, with a tail; no wildcards, which the broker closes for."""
    found = {t for t in tree.TREE + tree.odd_shapes() + tree.shared(tree.TREE) if "#" not in t and "+" not in t}
    found |= {"im/v1/to/bob", "im/v1/to/u/", "im/v1/to//bob", "im/v1/to/u/bob/id/more", "im/v1/to/u/all", "im/v1/to/u/me", "im/v1/to/u/system", "im/v2/to/u/bob",
              "im/", "im/v1/", "im/v1/req/history", "im/v1/req/A/1", "im/v1/to/g/nosuch", "im/v1/to/u/nosuch", "im/v1/" + "a/" * 190 + "b",
              "im/v1/to/u/" + "b" * 60000, "im/v1/to/u/bob/" + "i" * 65, "im/v1/to/x/bob", "im/v1/in/msg/u/bob/x", "$im", "$im/", "$CONTROL/im",
              "$CONTROL/im/v2", "$queue/im/v1/in/msg/u/bob", "$share/g/im/v1/to/u/bob"}
    return sorted(found - {CONTROL})


def test_p1_p10_every_topic_of_all_shapes(im, witness):
    """PUBLISH (MQTT 5, QoS 1) to inboxes, the bus, control, rooms, with empty levels and odd names: some 2,500 topics.

    PUBACK 0x87, but for what the grammar and alice's rights allow; nobody gets a forged delivery."""
    all_of_them = topics()
    assert len(all_of_them) > 1500
    got = dict(zip(all_of_them, codes(im, [publish(t, b"", mid=i + 1, v5=True) for i, t in enumerate(all_of_them)])))
    wrong = {t: code for t, code in got.items() if (code is not None and code < 0x80) != bool(ALLOWED.fullmatch(t))}
    assert not wrong, wrong
    assert sum(bool(ALLOWED.fullmatch(t)) for t in all_of_them) > 10
    for m in witness.all("im/v1/in/", 0.5):
        assert b'"from":"alice"' in m.payload or "/msg/" not in m.topic


@pytest.mark.parametrize("topic", ["im/v1/to/u/+", "im/v1/to/u/#", "#", "$im/+", "im/v1/to/u/b\0b", b"im/v1/to/u/\xff"])
@pytest.mark.parametrize("v5", [False, True])
def test_p1_wildcards_and_bytes_that_no_topic_has(im, topic, v5):
    """PUBLISH to a wildcard, to a topic with a NUL byte or broken UTF-8.

    Closed without PUBACK, or refused."""
    with login(im, v5=v5) as r:
        code = r.send(publish(topic, "x", v5=v5)).code(PUBACK)
        assert code is None or code >= 0x80 or (not v5 and r.errors(0.3))


FOREIGN = ["im/v1/in/msg/u/bob", "im/v1/raw/msg/u/bob/carol/1", "im/v1/room/friends/json", "im/v1/to/u/nosuch", "im/v1/to/g/nosuch", "im/v1/svc/pay/now/1", "$im/out",
           "$im/in", "$im/sink", "$CONTROL/im/v1/response", "plain/x", "im/v1/nonsense"]
# One of each kind that a PUBLISH may carry, and values at their edges.
CARRIED = [dict(expiry=0), dict(expiry=1), dict(expiry=0xffffffff), dict(payload_format=0), dict(payload_format=1), dict(content_type="text/plain"),
           dict(response_topic="im/v1/in/res/1"), dict(response_topic="im/v1/in/msg/u/bob"), dict(correlation=b"x" * 60000), dict(user=[("im-id", "x")]),
           dict(user=[("topic", "im/v1/to/u/bob")] * 100)]


@pytest.mark.parametrize("qos", [1, 2])
def test_p4_p11_p12_no_property_opens_a_topic(im, witness, qos):
    """PUBLISH to each kind of forbidden topic with every property, also by topic alias: set, used, set anew, used again.

    0x87 each time, as without it; the alias stands for the whole topic."""
    packets = []
    for topic in FOREIGN:
        for carried in CARRIED:
            packets.append(publish(topic, "forged", qos, len(packets) + 1, v5=True, props=properties(**carried)))
        for name in (topic, ""):
            packets.append(publish(name, "forged", qos, len(packets) + 1, v5=True, props=properties(alias=3)))
    assert set(codes(im, packets, PUBACK if qos == 1 else PUBREC)) == {0x87}
    witness.none("im/v1/in/msg/", 0.3)


def test_p4_topic_aliases_hide_nothing(im):
    """PUBLISH to an allowed topic with alias 1, then to bob's inbox with alias 1 again, by alias alone, and with an alias never set.

    Allowed, refused, refused, closed."""
    alias = properties(alias=1)
    with login(im, v5=True) as r:
        got = [r.send(publish(topic, "x", mid=mid, v5=True, props=alias)).code(PUBACK)
               for mid, topic in enumerate(("im/v1/to/u/bob", "", "im/v1/in/msg/u/bob", "", "im/v1/to/u/bob", ""), 1)]
        assert [c >= 0x80 for c in got] == [False, False, True, True, False, False], got
        assert r.send(publish("", "x", v5=True, props=properties(alias=2))).code(PUBACK) is None
    for bad in (0, 11, 65535):
        with login(im, v5=True) as r:
            assert r.send(publish("im/v1/in/msg/u/bob", "x", v5=True, props=properties(alias=bad))).code(PUBACK) in (None, 0x87)


def test_p4_a_subscription_id_in_a_publish(im):
    """PUBLISH with properties that a client must not send: a subscription id, those of CONNECT, one twice, unknown ones.

    The first is ignored by mosquitto and passed on to nobody; the others are a protocol error: closed."""
    with login(im, v5=True) as r, login(im, "dave", v5=True) as dave:
        dave.send(subscribe("im/v1/in/msg/#", v5=True)).until(SUBACK)
        dave.deliveries(0.3)
        assert r.send(publish("im/v1/to/u/dave", "x", v5=True, props=properties(subscription_id=5))).code(PUBACK) in (0, None)
        assert all(b"\x0b\x05" not in body for _, body in dave.deliveries(0.3))
    for props in (properties(session_expiry=1), properties(alias=1) * 2, b"\x7f\x01"):
        with login(im, v5=True) as r:
            assert r.send(publish("im/v1/to/u/bob", "x", v5=True, props=props)).code(PUBACK) is None


def test_p2_retained_messages(im):
    """PUBLISH with the retain flag to a conversation and to an inbox, with and without payload.

    Refused with its code; who subscribes later finds nothing (every topic of the tree: test_s5)."""
    with login(im, v5=True) as r:
        for mid, (topic, body) in enumerate((("im/v1/to/u/bob", "poison"), ("im/v1/to/u/bob", ""), ("im/v1/in/msg/u/bob", "poison")), 1):
            assert r.send(publish(topic, body, mid=mid, retain=True, v5=True)).code(PUBACK) == 0x87
        assert r.errors()[:2] == ["retained", "retained"]


@pytest.mark.parametrize("v5", [False, True])
def test_p5_qos_0(im, witness, v5):
    """PUBLISH with QoS 0 to bob, to what is forbidden, and with a bad payload.

    The first is taken and its ack event is true; each of the others is explained in in/err, never half done."""
    mine = uuid.uuid4().hex
    with login(im, v5=v5) as r:
        r.send(subscribe("im/v1/in/#", v5=v5)).until(SUBACK)
        r.send(publish(f"im/v1/to/u/bob/{mine}", mine, 0, v5=v5) + publish("im/v1/to/u/nosuch", "x", 0, v5=v5) + publish("im/v1/send", "{", 0, v5=v5))
        got = r.deliveries(0.7)
        assert any(t.endswith("/ack") and mine.encode() in p for t, p in got)
        assert sorted(json.loads(p[p.index(b"{"):])["code"] for t, p in got if t.endswith("/err")) == ["bad_json", "unknown_user"]
    assert witness.json("im/v1/in/msg/u/alice")["body"] == mine


def test_p6_the_same_id_with_another_body_and_from_another_device(im, witness):
    """PUBLISH a message id twice, then with another body; then from a second device of alice's; then by carol.

    Stored once per device and user; the other body is refused as id_reused."""
    mine = "m" + uuid.uuid4().hex[:10]
    with login(im, device="ids") as r:
        for mid, body in ((1, "one"), (2, "one"), (3, "two")):
            r.send(publish(f"im/v1/to/u/bob/{mine}", body, mid=mid, dup=mid == 2)).until(PUBACK)
        assert set(r.errors()) == {"id_reused"}  # at least once
    with login(im, device="ids2") as r, login(im, "carol") as other:
        r.send(publish(f"im/v1/to/u/bob/{mine}", "three")).until(PUBACK)
        other.send(publish(f"im/v1/to/u/bob/{mine}", "four")).until(PUBACK)
        assert r.errors(0.2) == other.errors(0.2) == []
    assert [m["body"] for m in im.history("alice", "u/bob") if m["id"] == mine] == ["one", "three"]
    assert [m["body"] for m in im.history("carol", "u/bob") if m["id"] == mine] == ["four"]


def test_p6_an_id_in_a_user_property(im):
    """PUBLISH with im-id properties: two different ones, one that contradicts the topic, a bad one, one behind 100 others.

    An id is never taken half: used, or refused with its code; what is behind the 64th property is not looked at."""
    with login(im, v5=True) as r:
        for mid, (topic, pairs) in enumerate((("im/v1/to/u/bob", [("im-id", "bad id!")]), ("im/v1/to/u/bob", [("im-id", "x" * 65)])), 1):
            assert r.send(publish(topic, "x", mid=mid, v5=True, props=properties(user=pairs))).code(PUBACK) == 0x87
        assert set(r.errors(0.3)) == {"bad_id"}


BAD_JSON = [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{\"to\":\"u/bob\",\"to\":\"u/carol\"}", b"[" * 1000000, b"{\"a\":" * 100000,
            b'{"to":"u/bob","body":"\\ud800"}', b'{"to":"u/bob","expiry":1e999}', b'{"to":"u/bob","body":1}', b'{"to":"u/bob\\u0000"}',
            b'{"to":"u/bob","body":[' + b"1," * 500000 + b'1],"enc":"json"}', b'{"to":["u/bob"]}', b'{"to":"u/bob","seq":1}',
            b'{"to":"u/bob","mentions":[' + b'"bob",' * 5000 + b'"bob"]}', b'{"to":"u/bob","expiry":-1}', b'{"to":"u/bob","body":"x"}x', b'\xef\xbb\xbf{"to":"u/bob"}',
            b'{"to":"u/bob","body":"\xc0\xaf"}', b'{"to":"u/bob","body":"x","ext":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
            b'{"to":"u/bob","body":"x","ct":"a\\u000d\\u000ab"}', b"{'to':'u/bob'}", b'{"to":"u/bob","body":NaN}', b'{"to":"u/bob","body":"x",}']


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda b: repr(b[:24]))
def test_p7_json_that_is_none(im, body):
    """PUBLISH to im/v1/send (and ack) what is no envelope: cut, nested a million deep, with a million numbers, twice the same key.

    0x87, the reason in in/err, and no more than a moment of the broker's time."""
    with login(im, v5=True) as r:
        began = time.monotonic()
        for topic in ("im/v1/send", "im/v1/ack"):
            if (topic, body) == ("im/v1/ack", b"[]"):
                continue
            assert r.send(publish(topic, body, v5=True)).code(PUBACK) == 0x87, topic
        assert time.monotonic() - began < 3
        assert set(r.errors(0.2)) <= {"bad_json", "bad_field", "bad_name", "too_many", "too_big"}


def test_p7_protocol_buffers_that_are_none(im):
    """PUBLISH to im/v1/send/pb noise, cut fields, lengths beyond the end, groups.

    0x87 each."""
    noise = (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05u/bo", b"\x0b\x0c", b"\x08" * 5000, b"\x0a\x05u\x00bob", b"\x0a\x05u/bob\x0a\x07u/carol\xff")
    assert set(codes(im, [publish("im/v1/send/pb", body, mid=i, v5=True) for i, body in enumerate(noise, 1)])) == {0x87}


def test_p7_a_payload_that_is_not_the_text_it_says(im, witness):
    """PUBLISH to bob with payload format indicator 1 and bytes that are no UTF-8; with escapes, control bytes and overrides as text.

    The first is closed, refused or taken as bytes; text arrives as it is, escaped, and is one valid JSON document."""
    with login(im, v5=True) as r:
        code = r.send(publish("im/v1/to/u/bob", b"\xff\xfe\x00", v5=True, props=properties(payload_format=1))).code(PUBACK)
        assert code is None or code >= 0x80 or witness.json("im/v1/in/msg/u/alice")["enc"] == "base64"
    nasty = '"},{"from":"bob","x":"\u0001\u001f\u202e\u2028</script>\\u0000'
    with login(im, v5=True) as r:
        assert r.send(publish("im/v1/to/u/bob", nasty, v5=True)).code(PUBACK) < 0x80
    m = witness.json("im/v1/in/msg/u/alice")
    assert m["body"] == nasty and m["from"] == "alice"


def test_p8_payloads_over_the_limit(im):
    """PUBLISH a byte more than im_max_message, than max_packet_size, and a packet that announces 256 MB.

    too_big with its limit; closed; closed. Nothing is kept in memory for what never comes."""
    before = im.rss_kib()["mosquitto"]
    with login(im, v5=True) as r:
        assert r.send(publish("im/v1/to/u/bob", "x" * (256 * 1024 + 1), v5=True)).code(PUBACK) == 0x87
        assert r.errors(0.3) == ["too_big"]
        assert r.send(publish("im/v1/to/u/bob", "x" * (2 << 20), v5=True)).code(PUBACK) is None
    held = []
    for _ in range(50):
        held.append(login(im))
        held[-1].send(bytes([0x32]) + b"\xff\xff\xff\x7f" + b"x" * 1000)
    assert all(r.closed() for r in held)
    assert im.rss_kib()["mosquitto"] - before < 64 << 10


def test_p11_a_response_topic_of_somebody_else(im):
    """A request whose Response Topic is another inbox, a send topic, a wildcard, a plain topic.

    Refused: the server publishes nowhere but to the asker."""
    names = ("im/v1/to/u/bob", "im/v1/in/msg/u/bob", "im/v1/in/res/", "im/v1/raw/res/1", "other/topic", "$im/out", "$CONTROL/im/v1", "im/v1/in/res",
             "im/v1/in/res/" + "x" * 60000)
    with login(im, v5=True) as r:
        r.send(subscribe("im/v1/in/#", v5=True)).until(SUBACK)
        for mid, topic in enumerate(names, 1):
            assert r.send(publish(f"im/v1/req/server/r{mid}", b"", mid=mid, v5=True, props=properties(response_topic=topic))).code(PUBACK) == 0x87, topic
        assert not [t for t, _ in r.deliveries(0.3) if "/res/" in t]
    for wild in ("im/v1/in/res/#", "im/v1/in/res/+"):
        with login(im, v5=True) as r:
            code = r.send(publish("im/v1/req/server/w", b"", v5=True, props=properties(response_topic=wild))).code(PUBACK)
            assert code is None or code >= 0x80


def test_p11_user_properties_by_the_thousand(im):
    """PUBLISH with 20,000 user properties, and with one of 64 kB, fifty times each.

    They are accepted as what they are, a message; nobody waits long and none is passed on."""
    many = properties(user=[("k", "v")] * 20000)
    large = properties(user=[("n", "v" * 65000)])
    with login(im, v5=True) as r, Client(im, "dave", "props", v5=True) as dave:
        dave.subscribe("im/v1/in/msg/#")
        for mid in range(1, 51):
            r.send(publish("im/v1/to/u/dave", "x", mid=mid, v5=True, props=many))
            r.send(publish("im/v1/to/u/dave", "x", mid=100 + mid, v5=True, props=large))
        assert all(r.code(PUBACK) < 0x80 for _ in range(100))
        for _ in range(100):
            assert all(name.startswith("im-") for name, _ in dave.next("im/v1/in/msg/u/alice").properties.UserProperty)


def test_p12_message_expiry(im):
    """PUBLISH with an expiry of a second, to bob who is away for longer.

    It is stored and delivered all the same: expiry is an envelope field, the broker's is invisible to us."""
    mine = uuid.uuid4().hex
    with login(im, v5=True) as r:
        assert r.send(publish(f"im/v1/to/u/dave/{mine}", "soon gone", v5=True, props=properties(expiry=1))).code(PUBACK) < 0x80
    time.sleep(1.5)
    assert mine in {m["id"] for m in im.history("dave", "u/alice")}


@pytest.mark.parametrize("v5", [False, True])
def test_qos_2_games(im, v5):
    """PUBREL for what was never sent, PUBREC twice, PUBLISH again with the same packet id and another topic, a new session in between.

    PUBCOMP or closed; never a delivery of something that was refused, and the second topic's rights are asked again."""
    with login(im, device="q2", v5=v5, clean=False, props=properties(session_expiry=100)) as r:
        rel = lambda mid: packet(PUBREL, 2, struct.pack("!H", mid))
        r.send(publish("im/v1/to/u/nosuch", "refused", 2, 7, v5=v5)).until(PUBREC)
        r.send(rel(7)).until(PUBCOMP)
        r.send(publish("im/v1/to/u/bob", "fine", 2, 8, v5=v5)).until(PUBREC)
        r.send(publish("im/v1/in/msg/u/bob", "forged", 2, 8, v5=v5, dup=True))
        r.send(rel(8))
    with login(im, device="q2", v5=v5, clean=False, props=properties(session_expiry=100)) as r, Client(im, "bob", uuid.uuid4().hex) as bob:
        bob.subscribe("im/v1/in/#")
        r.send(rel(8) + rel(9) + rel(65535))
        assert all(b"forged" not in m.payload and b"refused" not in m.payload for m in bob.all("", 0.5))
