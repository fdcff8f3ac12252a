"""Revoked rights work at once (reliability row S4): what is live, in flight, kept for the offline, repeated, cached or asked for."""
import json
import threading
import time
import uuid

import pytest

import raw
from client import Client
from raw import PUBACK, SUBACK, Raw, login, properties, publish

CONF = ("plugin_opt_im_ack_retry 300", "plugin_opt_im_ack_window 10")


def subscribe(filters, v5=False):
    """With QoS 0: who does not acknowledge gets a window of QoS 1 and no more."""
    return raw.subscribe(filters, v5=v5, qos=0)


@pytest.fixture
def team(im):
    """A new group of alice, bob and dave."""
    name = "team-" + uuid.uuid4().hex[:8]
    im.imctl("group", "create", name, "--owner", "alice")
    im.imctl("group", "add", name, "bob", "dave")
    return name


def said(deliveries, team):
    """{seq: body} of what was delivered of this group."""
    out = {}
    for topic, payload in deliveries:
        if f"/g/{team}" in topic and payload[payload.index(b"{"):]:
            m = json.loads(payload[payload.index(b"{"):])
            out[m["seq"]] = m["body"]
    return out


def say(im, team, body, user="alice"):
    im.imctl("send", user, f"g/{team}", body)


def removed_at(im, team):
    """The sequence of the message that says so: the last that the removed member sees."""
    return max(m["seq"] for m in im.history("alice", f"g/{team}") if m["type"] == "system" and "removed" in str(m["body"]))


@pytest.mark.parametrize("codec", ["in", "raw", "pb"])
def test_s4_a_member_who_stays_connected(im, team, codec):
    """Dave listens and is removed; alice goes on talking; dave SUBSCRIBEs again, and to the group alone.

    Nothing behind his removal arrives, by any codec; others go on getting it."""
    with login(im, "dave") as dave, Client(im, "bob", uuid.uuid4().hex) as bob:
        dave.send(subscribe(f"im/v1/{codec}/#")).until(SUBACK)
        bob.subscribe("im/v1/in/#")
        say(im, team, "before")
        im.imctl("group", "kick", team, "dave")
        say(im, team, "after 1")
        dave.send(subscribe([f"im/v1/{codec}/msg/g/{team}/#", f"im/v1/{codec}/+/g/{team}", f"im/v1/{codec}/#"])).until(SUBACK)
        say(im, team, "after 2")
        while bob.json(f"im/v1/in/msg/g/{team}")["body"] != "after 2":
            pass
        got = dave.deliveries(0.4)
        assert any(b"before" in p for _, p in got) and not any(b"after" in p for _, p in got)


def test_s4_messages_in_flight(im, team):
    """Alice sends 2,000 messages as fast as she can while dave is removed in the middle of them.

    Dave's last message is the one that says so; bob misses none."""
    stop = threading.Event()

    def talk():
        with Raw(im.port, "alice", "alice:talk" + team, im.users["alice"]) as c:
            for i in range(2000):
                c.socket.sendall(c.publish_packet(f"im/v1/to/g/{team}", f"word {i}", 0))
                if stop.is_set():
                    return
                time.sleep(0.0005)

    with login(im, "dave") as dave:
        dave.send(subscribe("im/v1/in/#")).until(SUBACK)
        dave.deliveries(0.3)
        thread = threading.Thread(target=talk)
        thread.start()
        time.sleep(0.15)
        im.imctl("group", "kick", team, "dave")
        time.sleep(0.15)
        stop.set()
        thread.join()
        got = said(dave.deliveries(0.5), team)
    last = removed_at(im, team)
    assert got and max(got) <= last, (max(got), last)
    assert max(m["seq"] for m in im.history("alice", f"g/{team}")) > last, "nothing was said behind it"
    assert max(m["seq"] for m in im.history("dave", f"g/{team}")) == last


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("codec", ["in", "pb"])
def test_s4_a_member_who_is_offline(im, team, codec, v5):
    """Dave leaves a persistent session; some is said, he is removed, more is said; he comes back and asks for all of it.

    He gets what was said until then, the news, and nothing after; history ends there too."""
    session = dict(device="off" + uuid.uuid4().hex[:6], v5=v5, clean=False, props=properties(session_expiry=600))
    with login(im, "dave", **session) as dave:
        dave.send(subscribe(f"im/v1/{codec}/#", v5=v5)).until(SUBACK)
        dave.deliveries(0.4)
        dave.leave()
    say(im, team, "while away")
    im.imctl("group", "kick", team, "dave")
    say(im, team, "secret after")
    with login(im, "dave", **session) as dave:
        got = dave.deliveries(0.7)
        assert any(b"while away" in p for _, p in got) and not any(b"secret after" in p for _, p in got)
    assert "secret after" not in str(im.history("dave", f"g/{team}"))


def test_s4_repeats_of_what_was_not_acknowledged(im, team):
    """Gina acks and then stops; more than her window is said; she is removed while repeats are due; she acks on.

    No message behind her removal comes, now or with the acks."""
    name = "gina-" + uuid.uuid4().hex[:6]  # a window is a device's, over all its conversations: nothing else must be in it
    im.users.update(im.add_users([name]))
    im.imctl("group", "add", team, name)
    with login(im, name) as gina:
        gina.send(subscribe("im/v1/in/#")).until(SUBACK)
        say(im, team, "first")
        first = max(said(gina.deliveries(0.5), team))
        ack = lambda seq: gina.send(publish("im/v1/ack", json.dumps([{"conv": f"g/{team}", "delivered": seq}]))).until(PUBACK)
        ack(first)
        with Raw(im.port, "alice", "alice:many" + team, im.users["alice"]) as alice:
            for i in range(30):
                alice.publish(f"im/v1/to/g/{team}", f"word {i}")
            im.imctl("group", "kick", team, name)
            for i in range(30):
                alice.publish(f"im/v1/to/g/{team}", f"secret {i}")
        last, got = removed_at(im, team), {}
        for _ in range(8):
            new = said(gina.deliveries(0.4), team)
            got.update(new)
            if new:
                ack(max(new))
        assert max(got) <= last and "secret" not in str(got)
        ack(last + 5)
        assert "bad_cursor" in gina.errors(0.4)


def test_s4_requests_and_what_was_answered_before(im, team):
    """Dave asks for members and history, is removed, and asks again, under new ids and the same ones, also for later pages.

    members: refused; history: nothing behind his removal; a repeated id gets its first answer, which he has had already."""
    def ask(dave, method, rid, **args):
        dave.send(publish(f"im/v1/req/{method}/{rid}", json.dumps(args))).until(PUBACK)
        for _ in range(20):
            for topic, payload in dave.deliveries(0.2):
                if topic.endswith(f"/res/{rid}"):
                    return json.loads(payload[payload.index(b"{"):])
        raise AssertionError("no answer")

    with login(im, "dave") as dave:
        dave.send(subscribe("im/v1/in/res/#")).until(SUBACK)
        say(im, team, "before")
        first = ask(dave, "members", "m1", group=team)
        assert first["ok"]
        im.imctl("group", "kick", team, "dave")
        im.imctl("group", "add", team, "carol")
        say(im, team, "secret")
        assert ask(dave, "members", "m1", group=team) == first
        assert ask(dave, "members", "m2", group=team)["error"]["code"] == "not_member"
        last = removed_at(im, team)
        for rid, args in (("h1", {}), ("h2", {"newest_first": True}), ("h3", {"from": last + 1}), ("h4", {"from": 1, "to": 10 ** 9}), ("h5", {"next": str(last + 1)})):
            r = ask(dave, "history", rid, conv=f"g/{team}", **args)
            assert "secret" not in str(r) and "carol" not in str(r) and all(m["seq"] <= last for m in r.get("messages", []))
            assert r.get("newest", 0) <= last, r
        for method in ("sync", "conversations"):
            for c in ask(dave, method, "s" + method)["conversations"]:
                if c["conv"] == f"g/{team}":
                    assert c.get("to", c.get("last_seq")) <= last, c


def test_s4_the_outsider_has_no_voice(im, team):
    """Dave, removed, sends to the group, signals, acks, mentions and wills to it; so does carol, who was never in it.

    0x87 and not_member each; nobody in the group notices."""
    im.imctl("group", "kick", team, "dave")
    with login(im, "bob") as bob:
        bob.send(subscribe("im/v1/in/#")).until(SUBACK)
        bob.deliveries(0.4)
        for who in ("dave", "carol"):
            with login(im, who, v5=True) as r:
                for topic, body in ((f"im/v1/to/g/{team}", "forged"), (f"im/v1/to/g/{team}/x1", "forged"), (f"im/v1/sig/g/{team}", "forged"),
                                    ("im/v1/send", json.dumps({"to": f"g/{team}", "body": "forged"})),
                                    ("im/v1/send", json.dumps({"to": f"g/{team}", "type": "member", "body": "forged"}))):
                    assert r.send(publish(topic, body, v5=True)).code(PUBACK) == 0x87, topic
                assert set(r.errors(0.2)) <= {"not_member", "bad_field"}
            login(im, who, will=(f"im/v1/to/g/{team}", "forged", 1, False)).sock.close()
        assert not [t for t, p in bob.deliveries(0.5) if f"g/{team}" in t or b"forged" in p]


def test_s4_a_block_works_at_once(im):
    """Alice talks to carol, carol blocks her, alice goes on: messages, signals, a will, another device.

    blocked; carol gets nothing more."""
    with login(im, "carol") as carol, login(im, "alice", v5=True) as alice:
        carol.send(subscribe("im/v1/in/#")).until(SUBACK)
        carol.deliveries(0.4)
        im.imctl("block", "add", "carol", "alice")
        assert alice.send(publish("im/v1/to/u/carol", "forged", v5=True)).code(PUBACK) == 0x87
        alice.send(publish("im/v1/sig/u/carol", "forged", v5=True)).until(PUBACK)
        login(im, will=("im/v1/to/u/carol", "forged", 1, False)).sock.close()
        assert not any(b"forged" in p for _, p in carol.deliveries(0.5))
        im.imctl("block", "remove", "carol", "alice")


@pytest.mark.parametrize("how", ["remove", "disable"])
def test_s4_a_user_who_is_no_more(im, team, how):
    """Frank is connected and has a stored session elsewhere; he is removed or disabled; he tries his sessions and token.

    Both connections end; CONNACK "not authorized"; what was meant for him is delivered to nobody."""
    name = f"frank-{how}"
    im.users.update(im.add_users([name]))
    im.imctl("group", "add", team, name)
    stored = dict(device="stored", clean=False)
    with login(im, name, **stored) as r:
        r.send(subscribe("im/v1/in/#")).until(SUBACK)
        r.leave()
    with login(im, name) as r:
        r.send(subscribe("im/v1/in/#")).until(SUBACK)
        im.imctl("user", how, name)
        say(im, team, "secret")
        assert not any(b"secret" in p for _, p in r.deliveries(0.5))
        assert r.closed()
    for device in ("stored", "new"):
        with pytest.raises(AssertionError):
            login(im, name, device=device, clean=False)
