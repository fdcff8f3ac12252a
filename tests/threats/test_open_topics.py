"""The subscriptions of test_subscriptions.py where ordinary topics are open to our users: `#` is granted then, and still shows nothing of ours."""
import uuid

import pytest

import tree
from client import Client
from raw import PUBACK, SUBACK, login, publish, subscribe

CONF = ("plugin_opt_im_rate_refusals 100000", "plugin_opt_im_plain_topics allow", "plugin_opt_im_admins carol")
BATCH = 200


@pytest.mark.parametrize("v5", [False, True])
def test_s1_wildcards_that_are_granted_see_nothing_of_ours(im, v5):
    """Dave SUBSCRIBEs to every shape over the tree but his inbox, $share too, and keeps all that are granted.

    He sees ordinary topics, of which he has very many filters, and no topic of im/, $im or $CONTROL/im while others chat,
    signal, are refused, send wills, ask, and an admin commands."""
    shapes = [f for f in tree.plain_shapes() if not tree.own(f)] + tree.shared(tree.plain_shapes())
    wide = 0
    with login(im, "dave", v5=v5) as dave:
        for at in range(0, len(shapes), BATCH):
            some = shapes[at:at + BATCH]
            codes = dave.send(subscribe(some, v5=v5, qos=0)).until(SUBACK)[-len(some):]
            wide += sum(code < 0x80 and any(tree.matches(f, t) for t in tree.INBOX + tree.SEND) for f, code in zip(some, codes))
            assert not [f for f, code in zip(some, codes) if code < 0x80 and not f.startswith(("#", "+", "$share/", "$SYS", "plain", "im", "/", "$CONTROL/", "im2"))]
        assert wide > 500, "nothing wide was granted: this proves nothing"
        dave.deliveries(0.3)
        bait = uuid.uuid4().hex
        with login(im, "alice", v5=True) as alice, Client(im, "bob", uuid.uuid4().hex) as bob, Client(im, "carol", uuid.uuid4().hex) as carol:
            bob.subscribe("im/v1/in/#")
            carol.subscribe("$CONTROL/im/v1/response")
            carol.publish("$CONTROL/im/v1", '{"commands":[{"command":"user.list"}]}')
            for topic, body in (("im/v1/to/u/bob", bait), ("im/v1/to/g/friends", bait), ("im/v1/sig/u/bob", f'"{bait}"'), ("im/v1/to/u/nosuch", bait),
                                ("im/v1/in/msg/u/dave", bait), (f"im/v1/req/me/{bait}", ""), ("$im/out", bait), ("plain/x", bait)):
                alice.send(publish(topic, body, v5=True)).until(PUBACK)
            login(im, "alice", will=("im/v1/in/msg/u/dave", bait, 1, True)).sock.close()
            while bob.json("im/v1/in/msg/g/")["body"] != bait:
                pass
            carol.next("$CONTROL/im/v1/response")
            got = [(t, p) for t, p in dave.deliveries(0.5) if not t.endswith("im/v1/in/err")]
        assert any(t == "plain/x" for t, _ in got)
        assert not [t for t, _ in got if t.startswith(("im/", "$im", "$CONTROL/im"))], got


def test_p3_a_retained_will_on_an_open_topic_is_ordinary_mqtt(im):
    """A will and a retained message on an ordinary topic, where the admin has opened those.

    They work as on any broker, and only there."""
    with Client(im, "bob", uuid.uuid4().hex) as bob:
        bob.subscribe("plain/will")
        login(im, "alice", will=("plain/will", "gone", 1, True)).sock.close()
        assert bob.next("plain/will").payload == b"gone"
        bob.publish("plain/will", b"", retain=True)
