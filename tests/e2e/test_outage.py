"""Parts are down, nothing accepted is lost; restart finds everything."""
import json
import os
import signal
import time
import uuid

from client import Client

CONF = ("plugin_opt_im_journal_limit 64m",)


def test_messages_accepted_while_the_service_is_stopped_arrive_afterwards_in_order(im):
    pid = im.pids()["im-offline"]
    with Client(im, "bob", "outage") as bob, Client(im, "alice", "outage") as alice:
        bob.subscribe("im/v1/in/#")
        bob.next("im/v1/in/evt/sync")
        bob.all("im/v1/in/", 0.3)
        os.kill(pid, signal.SIGSTOP)
        try:
            for i in range(200):
                alice.publish(f"im/v1/to/u/bob/{uuid.uuid4().hex}", f"o{i}")
        finally:
            os.kill(pid, signal.SIGCONT)
        got = [json.loads(bob.next("im/v1/in/msg/u/alice").payload)["body"] for _ in range(200)]
        assert got == [f"o{i}" for i in range(200)]


def test_full_journal_refuses_and_recovers(im):
    pid = im.pids()["im-offline"]
    body = b"z" * 200000
    with Client(im, "bob", "full") as bob, Client(im, "alice", "full", v5=True) as alice:
        bob.subscribe("im/v1/in/#")
        bob.all("im/v1/in/", 0.3)
        alice.subscribe("im/v1/in/#")
        alice.next("im/v1/in/evt/welcome")
        os.kill(pid, signal.SIGSTOP)
        refused, accepted = 0, []
        try:
            for i in range(500):
                mid = f"full-{i}-{uuid.uuid4().hex}"
                alice.publish(f"im/v1/to/u/bob/{mid}", body)
                errors = [json.loads(m.payload) for m in alice.all("im/v1/in/err", 0.005)]
                refused += len(errors)
                if not errors:
                    accepted.append(mid)
                if refused > 3:
                    break
        finally:
            os.kill(pid, signal.SIGCONT)
        assert refused > 3, "the journal never filled"
        have = set()
        deadline = time.monotonic() + 60
        while not set(accepted) - {"?"} <= have and time.monotonic() < deadline:
            have |= {m["id"] for m in (json.loads(x.payload) for x in bob.all("im/v1/in/msg/u/alice", 0.5))}
        missing = set(accepted) - have
        assert len(missing) <= refused, missing  # an error may have come a moment after its message was counted
        mid = uuid.uuid4().hex
        alice.publish(f"im/v1/to/u/bob/{mid}", "again")
        deadline = time.monotonic() + 20
        while json.loads(alice.next("im/v1/in/ack", 20).payload)[-1]["id"] != mid:
            assert time.monotonic() < deadline


def test_restart_finds_everything(im):
    mid = uuid.uuid4().hex
    with Client(im, "alice", "restart") as alice:
        alice.subscribe("im/v1/in/ack")
        alice.publish(f"im/v1/to/u/bob/{mid}", "kept")
        seq = alice.json("im/v1/in/ack")[0]["seq"]
    assert im.stop() == 0
    im.start()
    rows = im.history("bob", "u/alice")
    assert [m["seq"] for m in rows if m["id"] == mid] == [seq]
    with Client(im, "alice", "restart2") as alice:
        alice.subscribe("im/v1/in/ack")
        alice.publish(f"im/v1/to/u/bob/{uuid.uuid4().hex}", "next")
        assert alice.json("im/v1/in/ack")[0]["seq"] == seq + 1  # a normal restart leaves no gap
