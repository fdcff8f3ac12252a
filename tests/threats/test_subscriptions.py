"""Who may read (reliability table 3.2; revoked memberships: test_membership.py)."""
import json
import uuid

import pytest

import tree
from client import Client
from raw import PUBACK, SUBACK, UNSUBACK, Attacker, connect, login, packet, properties, publish, subscribe, unsubscribe

CONF = ("plugin_opt_im_rate_refusals 100000", "plugin_opt_im_filters 256")
REFUSED = {False: 0x80, True: 0x87}
BATCH = 200


def granted(im, filters, v5, per_connection=None):
    """The filters among these that the SUBACKs grant, in packets of BATCH."""
    out, r = [], None
    for at in range(0, len(filters), BATCH):
        some = filters[at:at + BATCH]
        if r is None or per_connection:
            if r:
                r.leave()
            r = login(im, "dave", v5=v5)
        codes = r.send(subscribe(some, v5=v5)).until(SUBACK)
        assert codes is not None and len(codes) == len(some) + (3 if v5 else 2), f"closed by one of {some}"
        codes = codes[-len(some):]
        assert set(codes) <= {1, REFUSED[v5]}, codes
        out += [f for f, code in zip(some, codes) if code == 1]
        r.waiting.clear()
    r.leave()
    return out


@pytest.mark.parametrize("v5", [False, True])
def test_s1_every_shape_of_filter_over_the_whole_tree(im, v5):
    """SUBSCRIBE to every topic of the tree with any of its levels as +, cut with # anywhere: some 5,000 filters.

    Granted is what lies literally below one's own im/v1/{in,raw,pb}/ and nothing else; all else 0x80 / 0x87."""
    shapes = tree.plain_shapes()
    mine = [f for f in shapes if tree.own(f)]
    others = [f for f in shapes if f not in set(mine)]
    assert len(mine) > 300 and len(others) > 2000
    assert all(tree.own(t) for f in mine for t in tree.TREE if tree.matches(f, t)), "the oracle itself"
    foreign = [f for f in others if any(tree.matches(f, t) and not tree.own(t) for t in tree.TREE)]
    assert len(foreign) > 1000
    assert granted(im, others, v5) == []
    for codec in tree.CODECS:
        some = [f for f in mine if f.startswith(f"im/v1/{codec}/")]
        assert granted(im, some, v5, per_connection=True) == some


@pytest.mark.parametrize("v5", [False, True])
def test_s1_every_odd_shape(im, v5):
    """SUBSCRIBE to the tree with empty levels, other case, spaces, dots, doubled names, a level more or less.

    Whatever is granted still begins literally with one's own inbox."""
    for f in granted(im, tree.odd_shapes(), v5, per_connection=True):
        assert tree.own(f), f


@pytest.mark.parametrize("v5", [False, True])
def test_s2_shared_subscriptions_of_everything(im, v5):
    """SUBSCRIBE to $share/{group}/ before each of these filters, also one's own inbox.

    All refused: a shared inbox would swallow other members' turns."""
    assert granted(im, tree.shared(tree.plain_shapes()), v5) == []


@pytest.mark.parametrize("f", ["$share", "$share/", "$share/g", "$share/g/", "$share//im/v1/in/#", "$share/+/im/v1/in/#", "$share/#", "$share/g/$share/g/im/v1/in/#",
                               "#/im/v1/in/#", "im/v1/in/#/msg", "im/v1/in/a#", "im/v1/in/+a", "im/v1/in/a+/b", "im/#/in", "+im/v1/in/#", "a/" * 100 + "b",
                               "im/" + "a/" * 199, "im/v1/in/" + "/" * 300, "im/v1/in/" + "x" * 300, "im/v1/in/" + "x" * 60000, ""])
@pytest.mark.parametrize("v5", [False, True])
def test_s1_s2_s6_filters_that_are_none(im, f, v5):
    """SUBSCRIBE to what MQTT forbids, is endless or has hundreds of levels.

    Refused in the SUBACK, or closed."""
    with login(im, v5=v5) as r:
        body = r.send(subscribe(f, v5=v5)).until(SUBACK)
        assert body is None or body[-1] >= 0x80


def test_s2_no_local_retain_handling_and_subscription_ids(im, witness):
    """SUBSCRIBE to bob's topics with every option and subscription id MQTT 5 has.

    Options change nothing: refused; one's own inbox stays one's own."""
    with login(im, v5=True) as r:
        for options in range(0, 64):
            for f, good in (("im/v1/to/u/bob", False), ("#", False), ("im/v1/in/msg/u/carol", True)):
                body = Attacker.send(r, packet(8, 2, b"\0\1", b"\2\x0b\5", len(f).to_bytes(2, "big"), f.encode(), bytes([options]))).until(SUBACK)
                if body is None:  # reserved bits, QoS 3
                    r.sock.close()
                    r = login(im, v5=True)
                else:
                    assert (body[-1] < 0x80) == good, (options, f)
        r.sock.close()
    witness.none("im/v1/in/msg/", 0.2)


def test_s3_system_topics_and_control(im):
    """SUBSCRIBE to $SYS, $CONTROL and the bus, and wait while an admin works.

    Refused, and nothing arrives."""
    with login(im) as r:
        filters = ["$SYS/#", "$SYS/broker/log/#", "$CONTROL/#", "$CONTROL/im/v1/response", "$CONTROL/dynamic-security/v1/response", "$im/#", "$im/+", "$im/in"]
        assert r.send(subscribe(filters)).until(SUBACK)[2:] == b"\x80" * len(filters)
        im.imctl("user", "list")
        im.imctl("send", "bob", "u/carol", "secret")
        assert not [t for t, _ in r.deliveries(0.5) if not t.endswith("/err")]


def test_s5_nothing_of_the_tree_is_ever_retained(im):
    """Subscribe late, to one's inbox and as new member, after retained publishes were tried on every topic.

    Refused when sent (0x87); no delivery has the retain flag."""
    with login(im, v5=True) as r:
        for mid, topic in enumerate(tree.SEND + tree.INBOX + tree.ROOMS, 1):
            assert r.send(publish(topic, "poison", mid=mid, retain=True, v5=True)).code(PUBACK) == 0x87, topic
    with Client(im, "bob", "late") as bob:
        bob.subscribe("im/v1/in/#")
        assert all(b"poison" not in m.payload and not m.retain for m in bob.all("", 0.5))


def test_s6_a_second_codec_and_a_filter_too_many(im):
    """SUBSCRIBE to a second codec, and to more filters than one connection may have.

    0x80 in the SUBACK and the code in in/err."""
    with login(im) as r:
        filters = [f"im/v1/in/msg/u/u{i}" for i in range(255)] + ["im/v1/in/err", "im/v1/in/sent/#", "im/v1/raw/#"]
        assert r.send(subscribe(filters)).until(SUBACK)[2:] == b"\x01" * 256 + b"\x80\x80"
        assert sorted(r.errors()) == ["second_codec", "too_many"]


def test_s6_many_filters_and_long_ones_in_one_packet(im):
    """SUBSCRIBE with 20,000 filters, and with filters of 65,000 bytes and 200 levels.

    Refused or closed; errors repeat little of it."""
    with login(im) as r:
        body = r.send(subscribe([f"im/v1/in/x{i}" for i in range(20000)])).until(SUBACK)
        assert body is None or body[2:].count(b"\x01") <= 256
    with login(im) as r:
        r.send(subscribe(["im/" + "y" * 65000, "im/v1/in/" + "/".join("z" * 200)]))
        assert r.until(SUBACK) in (b"\x00\x01\x80\x80", None)
        assert all(len(body) < 1000 for _, body in r.deliveries(0.3))


def test_s7_overlapping_filters(im):
    """SUBSCRIBE to five filters that match the same message, with different QoS.

    It is delivered once."""
    with login(im, "bob") as bob, Client(im, "alice", uuid.uuid4().hex) as alice:
        for qos, f in ((0, "im/v1/in/#"), (1, "im/v1/in/msg/#"), (1, "im/v1/in/msg/u/+"), (2, "im/v1/in/+/u/alice"), (0, "im/v1/in/msg/u/alice")):
            bob.send(subscribe(f, qos=qos)).until(SUBACK)
        body = uuid.uuid4().hex
        alice.publish("im/v1/to/u/bob", body)
        assert sum(body.encode() in p for _, p in bob.deliveries(0.7)) == 1


def test_a_filter_one_has_left_delivers_nothing(im):
    """UNSUBSCRIBE from other people's filters and from one's own.

    The first does nothing to others (bob goes on receiving); after the second nothing is delivered."""
    with login(im, v5=True) as r, Client(im, "bob", uuid.uuid4().hex) as bob, login(im, "carol") as carol:
        bob.subscribe("im/v1/in/#")
        assert r.send(unsubscribe(["im/v1/in/#", "im/v1/in/msg/u/alice", "#", "$im/out", "$share/g/im/v1/in/#"], v5=True)).until(UNSUBACK) is not None
        r.send(subscribe("im/v1/in/msg/u/carol", v5=True)).until(SUBACK)
        r.send(unsubscribe("im/v1/in/msg/u/carol", v5=True)).until(UNSUBACK)
        body = uuid.uuid4().hex
        for to in ("alice", "bob"):
            carol.send(publish(f"im/v1/to/u/{to}", body)).until(PUBACK)
        while bob.json("im/v1/in/msg/u/")["body"] != body:
            pass
        assert not any(body.encode() in p for _, p in r.deliveries(0.3))


def test_a_connection_before_connect_and_after_disconnect(im):
    """SUBSCRIBE and PUBLISH before CONNECT, and behind DISCONNECT in the same write.

    Closed; nothing of it has happened."""
    with Attacker(im) as r:
        assert r.send(subscribe("im/v1/in/#") + connect("alice:early", "alice", im.users["alice"])).closed()
    mine = uuid.uuid4().hex
    with login(im) as r:
        assert r.send(packet(14, 0) + publish("im/v1/to/u/bob/" + mine, mine)).closed()
    assert mine not in {m["id"] for m in im.history("alice", "u/bob")}
