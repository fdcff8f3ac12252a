"""Wills (reliability row P3, with what protocol.md says: a will to im/v1/to/... is a message of its own user, all others are nothing)."""
import json
import time
import uuid

import pytest

import tree
from client import Client
from raw import CONNACK, SUBACK, Attacker, connack, connect, login, properties, subscribe

CONF = ("plugin_opt_im_rate_refusals 100000",)
FORBIDDEN = [t for t in tree.TREE + tree.shared(tree.INBOX) if not t.startswith(("im/v1/to/", "$CONTROL/"))]
FORBIDDEN += ["im/v1/to/u/nosuch", "im/v1/to/g/nosuch", "im/v1/to/u/", "im/v1/to/u/bob/a/b", "im/v1/to/u/BOB"]


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("v5", [False, True])
def test_p3_wills_to_what_one_may_not_publish(im, witness, v5, retain):
    """CONNECT with a will to every topic of the tree, then cut the connection; to admin commands too.

    Nobody gets it, now or by subscribing later; CONNECT with a will to $CONTROL is closed without CONNACK."""
    for i, topic in enumerate(FORBIDDEN):
        login(im, v5=v5, will=(topic, f"forged {topic}", i % 3, retain)).sock.close()
    for topic in tree.CONTROL:
        assert connack(im, connect("alice:w", "alice", im.users["alice"], v5=v5, will=(topic, "forged", 1, retain))) in (None, 0x90)
    assert all(b"forged" not in m.payload for m in witness.all("", 0.5))
    with Client(im, "bob", "after") as later:
        later.subscribe("im/v1/in/#")
        assert all(b"forged" not in m.payload for m in later.all("", 0.3))
    assert not [m for m in im.history("bob", "u/alice") if "forged" in (m["body"] or "")]


@pytest.mark.parametrize("topic", ["im/v1/to/u/+", "im/v1/to/u/#", "#", b"im/v1/to/u/\xff", "im/v1/to/u/b\0"])
def test_p3_wills_to_wildcards_and_bytes(im, topic):
    """CONNECT with a will to what is no topic.

    Closed or refused at CONNECT."""
    assert connack(im, connect("alice:w", "alice", im.users["alice"], will=(topic, "forged", 1, False))) != 0


def test_p3_a_will_is_a_message_of_its_own_user_once(im, witness):
    """CONNECT with a will to bob, cut; the same again with a delay, then come back before it is due.

    Bob gets the first, from alice; of the second nothing."""
    login(im, will=("im/v1/to/u/bob", "gone", 1, False)).sock.close()
    m = witness.json("im/v1/in/msg/u/alice")
    assert m["body"] == "gone" and m["from"] == "alice"
    delay = dict(v5=True, clean=False, props=properties(session_expiry=60), will_props=properties(will_delay=30))
    login(im, device="delayed", will=("im/v1/to/u/bob", "not this", 1, False), **delay).sock.close()
    time.sleep(0.2)
    login(im, device="delayed", v5=True, clean=False).leave()
    witness.none("im/v1/in/msg/", 0.7)


def test_p3_wills_that_are_refused_like_messages(im, witness):
    """Wills of alice to a group she is not in, to dave who blocks her, with retain, too large, at a takeover, at a polite goodbye.

    None is stored, and none is delivered."""
    im.imctl("group", "create", "private", "--owner", "bob")
    im.imctl("block", "add", "dave", "alice")
    for topic, body, retain in (("im/v1/to/g/private", "forged", False), ("im/v1/to/u/dave", "forged", False), ("im/v1/to/u/bob", "forged", True),
                                ("im/v1/to/u/bob", "forged" + "x" * 60000, False)):
        login(im, will=(topic, body, 1, retain)).sock.close()
    with login(im, device="over", will=("im/v1/to/u/bob", "forged at takeover", 1, False)) as old:
        login(im, device="over").leave()
        assert old.closed()
    login(im, will=("im/v1/to/u/bob", "forged goodbye", 1, False)).leave()
    got = witness.all("im/v1/in/msg/", 0.7)
    assert all(b"forged" not in m.payload or len(m.payload) > 60000 for m in got), [m.payload[:300] for m in got]
    assert not [m for m in im.history("bob", "g/private") + im.history("dave", "u/alice") if "forged" in str(m["body"])]


def test_p3_wills_with_every_property(im, witness):
    """CONNECT with wills to an inbox that carry response topic, correlation, expiry, content type, user properties and a delay of 2^32-1.

    None arrives; after the delay of the last its sender is somebody who has long gone, and it never comes."""
    for props in (dict(response_topic="im/v1/in/res/1"), dict(correlation=b"x"), dict(expiry=0), dict(content_type="a"), dict(payload_format=1),
                  dict(user=[("im-from", "carol")] * 50), dict(will_delay=0xffffffff), dict(will_delay=1)):
        login(im, v5=True, will=("im/v1/in/msg/u/bob", "forged", 1, False), will_props=properties(**props), props=properties(session_expiry=5)).sock.close()
    assert all(b"forged" not in m.payload for m in witness.all("", 1.6))


@pytest.mark.parametrize("delay", [0, 1])
def test_p3_the_will_of_somebody_thrown_out(im, witness, delay):
    """Erin connects with a will to bob, also a delayed one, and her user is removed.

    The will of a user who is no more is not sent."""
    name = f"erin{delay}"
    im.users.update(im.add_users([name]))
    with login(im, name, v5=True, will=("im/v1/to/u/bob", f"will of {name}", 1, False), will_props=properties(will_delay=delay),
               props=properties(session_expiry=60)) as r:
        im.imctl("user", "remove", name)
        assert r.closed()
    assert all(b"will of" not in m.payload for m in witness.all("im/v1/in/msg/", 0.5 + 1.5 * delay))
