"""What was missed is handed over, in order, then live; cursors never lose anything."""
import json
import uuid

from client import Client


def bodies(messages):
    return [json.loads(m.payload)["body"] for m in messages]


def test_device_that_was_away_gets_everything_in_order_then_live(im):
    bob = Client(im, "bob", "phone", clean=False).connect()
    bob.subscribe("im/v1/in/#")
    bob.next("im/v1/in/evt/sync")
    bob.all("im/v1/in/")
    bob.close()
    with Client(im, "alice", "away") as alice:
        alice.subscribe("im/v1/in/ack")
        for i in range(1200):
            alice.publish("im/v1/to/u/bob", f"missed {i}", qos=1 if i % 100 == 99 else 0)
        stored = 0
        while stored < 1200:  # what is stored only while bob reads comes after his catch-up ends
            stored += len(alice.json("im/v1/in/ack"))
    bob = Client(im, "bob", "phone", clean=False).connect()
    bob.subscribe("im/v1/in/#")
    assert bob.json("im/v1/in/evt/sync")["phase"] == "begin"
    got = [json.loads(bob.next("im/v1/in/msg/u/alice").payload) for _ in range(1200)]
    assert [m["body"] for m in got] == [f"missed {i}" for i in range(1200)]
    assert [m["prev"] for m in got[1:]] == [m["seq"] for m in got[:-1]]
    assert bob.json("im/v1/in/evt/sync")["phase"] == "end"
    bob.close()


def test_clean_session_device_misses_nothing(im):
    """The store is the queue, not the broker: clean sessions are as good."""
    with Client(im, "carol", "clean") as carol:
        carol.subscribe("im/v1/in/#")
        carol.all("im/v1/in/", 0.5)
    text = uuid.uuid4().hex
    with Client(im, "alice", "cs") as alice:
        alice.publish("im/v1/to/u/carol", text)
    with Client(im, "carol", "clean") as carol:
        carol.subscribe("im/v1/in/#")
        assert text in bodies(carol.all("im/v1/in/msg/u/alice", 1))


def test_acking_device_gets_only_what_it_has_not_acked(im):
    with Client(im, "dave", "acker") as dave, Client(im, "alice", "to-acker") as alice:
        dave.subscribe("im/v1/in/#")
        for i in range(3):
            alice.publish("im/v1/to/u/dave", f"n{i}")
        seqs = [json.loads(dave.next("im/v1/in/msg/u/alice").payload)["seq"] for _ in range(3)]
        alice.subscribe("im/v1/in/evt/receipt")
        dave.publish("im/v1/ack", json.dumps([{"conv": "u/alice", "delivered": seqs[1]}]))
        while alice.json("im/v1/in/evt/receipt")["delivered"] < seqs[1]:
            pass  # the receipt tells that the cursor has moved
    with Client(im, "dave", "acker") as dave:
        dave.subscribe("im/v1/in/#")
        assert bodies(dave.all("im/v1/in/msg/u/alice", 1)) == ["n2"]


def test_new_device_starts_where_the_furthest_one_is(im):
    with Client(im, "dave", "second") as dave:
        dave.subscribe("im/v1/in/#")
        assert bodies(dave.all("im/v1/in/msg/u/alice", 1)) == ["n2"]


def test_history_pages_through_everything(im):
    with Client(im, "bob", "pager") as bob:
        bob.subscribe("im/v1/in/res/#")
        got, args = [], {"conv": "u/alice", "from": 1, "limit": 500}
        while True:
            r = bob.request("history", args)
            assert r["ok"], r
            got += [m["body"] for m in r["messages"]]
            if not r.get("more"):
                break
            args = dict(args, **{"from": int(r["next"])}) if str(r["next"]).isdigit() else dict(args, next=r["next"])
        assert [b for b in got if b.startswith("missed")] == [f"missed {i}" for i in range(1200)]


def test_conversations_count_unread(im):
    with Client(im, "carol", "unread") as carol, Client(im, "bob", "unread") as bob:
        carol.subscribe("im/v1/in/res/#")
        before = unread(carol, "u/bob")
        for i in range(3):
            bob.publish("im/v1/to/u/carol", f"u{i}")
        bob.subscribe("im/v1/in/ack")
        mid = uuid.uuid4().hex
        bob.publish(f"im/v1/to/u/carol/{mid}", "u3")
        last = next(a["seq"] for a in iter(lambda: bob.json("im/v1/in/ack")[-1], None) if a["id"] == mid)
        assert unread(carol, "u/bob") == before + 4
        carol.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "read": last}]))
        assert unread(carol, "u/bob") == 0


def unread(client, conv):
    r = client.request("conversations")
    assert r["ok"], r
    return {c["conv"]: c["unread"] for c in r["conversations"]}.get(conv, 0)
