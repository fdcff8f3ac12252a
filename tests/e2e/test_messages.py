"""Sending and receiving with stock clients, one to one and in groups."""
import base64
import json
import subprocess
import uuid

import pytest

from client import Client


def fresh():
    return uuid.uuid4().hex[:12]


def test_message_reaches_the_other_one_and_ack_names_its_sequence(im):
    with Client(im, "bob", fresh()) as bob, Client(im, "alice", fresh()) as alice:
        assert bob.subscribe("im/v1/in/#") == 1
        assert alice.subscribe("im/v1/in/#") == 1
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", "hello")
        ack = alice.json("im/v1/in/ack")
        assert len(ack) == 1 and ack[0]["id"] == mid and ack[0]["conv"] == "u/bob"
        while True:
            m = bob.next("im/v1/in/msg/u/alice")
            m = json.loads(m.payload)
            if m["id"] == mid:
                break
        assert (m["from"], m["conv"], m["type"], m["body"]) == ("alice", "u/alice", "text", "hello")
        assert (m["seq"], m["msgid"], m["ts"]) == (ack[0]["seq"], ack[0]["msgid"], ack[0]["ts"])
        alice.none("im/v1/in/sent", 0.3)


def test_plain_commands_chat(im):
    sub = subprocess.Popen(["mosquitto_sub", "-p", str(im.port), "-i", "carol:cli", "-u", "carol", "-P", im.users["carol"], "-q", "1", "-c",
                            "-v", "-t", "im/v1/in/msg/u/dave", "-C", "1", "-W", "20"], stdout=subprocess.PIPE, text=True)
    text = fresh()
    subprocess.run(["mosquitto_pub", "-p", str(im.port), "-i", "dave:cli", "-u", "dave", "-P", im.users["dave"], "-q", "1",
                    "-t", "im/v1/to/u/carol", "-m", text], check=True)
    out, _ = sub.communicate(timeout=20)
    topic, payload = out.split(" ", 1)
    assert topic == "im/v1/in/msg/u/dave" and json.loads(payload)["body"] == text


def test_group_message_reaches_all_members_and_own_other_devices(im):
    with Client(im, "alice", "g1") as alice, Client(im, "alice", "g2") as other, Client(im, "bob", "g1") as bob, Client(im, "carol", "g1") as carol:
        for c in (alice, other, bob, carol):
            c.subscribe("im/v1/in/#")
            c.all("im/v1/in/")
        mid = fresh()
        alice.publish(f"im/v1/to/g/friends/{mid}", "to all")
        got = [json_of(c, f"im/v1/in/{way}/g/friends", mid) for c, way in ((bob, "msg"), (carol, "msg"), (other, "sent"))]
        assert len({(m["seq"], m["msgid"]) for m in got}) == 1
        assert all(m["conv"] == "g/friends" and m["from"] == "alice" for m in got)
        alice.none("im/v1/in/sent", 0.3)
        alice.none("im/v1/in/msg/g/friends", 0.1)


def json_of(client, prefix, mid, timeout=10):
    while True:
        m = json.loads(client.next(prefix, timeout).payload)
        if m["id"] == mid:
            return m


def test_repeat_of_an_id_is_stored_once_and_answered_the_same(im):
    with Client(im, "bob", "dup") as bob, Client(im, "alice", "dup") as alice:
        bob.subscribe("im/v1/in/msg/#")
        alice.subscribe("im/v1/in/ack")
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", "once")
        first = alice.json("im/v1/in/ack")[0]
        alice.publish(f"im/v1/to/u/bob/{mid}", "once")
        second = alice.json("im/v1/in/ack")[0]
        assert second.pop("dup") is True and not first.pop("dup", False)
        assert first == second
        json_of(bob, "im/v1/in/msg/u/alice", mid)
        assert [m for m in im.history("alice", "u/bob") if m["id"] == mid].__len__() == 1


def test_same_id_with_another_body_is_refused(im):
    with Client(im, "alice", "reuse") as alice:
        alice.subscribe("im/v1/in/#")
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", "one")
        alice.next("im/v1/in/ack")
        alice.publish(f"im/v1/to/u/bob/{mid}", "two")
        e = alice.json("im/v1/in/err")
        assert (e["code"], e["id"]) == ("id_reused", mid)


@pytest.mark.parametrize("body", ["", "ä€😀 漢字 \u202e עברית", "\n\t\"\\\u0001", "x" * 262144])
def test_any_text_arrives_as_it_was(im, body):
    with Client(im, "bob", fresh()) as bob, Client(im, "alice", fresh()) as alice:
        bob.subscribe("im/v1/in/msg/#")
        bob.all("im/v1/in/msg/", 0.5)
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", body.encode())
        m = json_of(bob, "im/v1/in/msg/u/alice", mid)
        assert m["type"] == "text" and m["body"] == body and "enc" not in m


@pytest.mark.parametrize("body", [b"\xff\xfe\x00\x01", bytes(range(256)) * 8, b"\xc0\x80"])
def test_any_bytes_arrive_as_they_were(im, body):
    with Client(im, "bob", fresh()) as bob, Client(im, "alice", fresh()) as alice:
        bob.subscribe("im/v1/in/msg/#")
        bob.all("im/v1/in/msg/", 0.5)
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", body)
        m = json_of(bob, "im/v1/in/msg/u/alice", mid)
        assert (m["type"], m["enc"]) == ("bytes", "base64") and base64.b64decode(m["body"]) == body


def test_envelope_keeps_its_fields(im):
    with Client(im, "bob", "env") as bob, Client(im, "alice", "env") as alice:
        bob.subscribe("im/v1/in/msg/#")
        mid = fresh()
        sent = {"to": "u/bob", "id": mid, "type": "location", "body": {"lat": 52.5, "lon": 13.4}, "enc": "json", "alt": "Berlin",
                "mentions": ["bob"], "ext": {"app": 1}}
        alice.publish("im/v1/send", json.dumps(sent))
        m = json_of(bob, "im/v1/in/msg/u/alice", mid)
        for key in ("type", "body", "enc", "alt", "mentions", "ext"):
            assert m[key] == sent[key], key


def test_raw_device_gets_the_body_itself(im):
    with Client(im, "bob", "lamp") as bob, Client(im, "alice", "raw") as alice:
        bob.subscribe("im/v1/raw/#")
        bob.all("im/v1/raw/")
        alice.publish(f"im/v1/to/u/bob/{fresh()}", b"on")
        m = bob.next("im/v1/raw/msg/u/alice/alice/")
        assert m.payload == b"on" and m.topic.rsplit("/", 1)[1].isdigit()


def test_two_codecs_on_one_device_are_refused(im):
    with Client(im, "bob", "codecs") as bob:
        assert bob.subscribe("im/v1/in/#") == 1
        assert bob.subscribe("im/v1/raw/#") == 128
        assert bob.json("im/v1/in/err")["code"] == "second_codec"


def test_note_to_self(im):
    with Client(im, "dave", "a") as a, Client(im, "dave", "b") as b:
        a.subscribe("im/v1/in/#")
        b.subscribe("im/v1/in/#")
        a.all("im/v1/in/"), b.all("im/v1/in/")
        mid = fresh()
        a.publish(f"im/v1/to/u/dave/{mid}", "milk")
        assert json_of(b, "im/v1/in/sent/u/dave", mid)["body"] == "milk"
        assert a.json("im/v1/in/ack")[0]["id"] == mid


def test_typing_is_passed_on_and_not_kept(im):
    with Client(im, "bob", "typing") as bob, Client(im, "alice", "typing") as alice:
        bob.subscribe("im/v1/in/#")
        bob.next("im/v1/in/evt/sync")
        alice.publish("im/v1/sig/u/bob", "typing", qos=0)
        assert bob.json("im/v1/in/evt/typing")["user"] == "alice"


def test_will_is_sent_in_the_users_name_when_the_connection_is_lost(im):
    with Client(im, "bob", "will") as bob:
        bob.subscribe("im/v1/in/msg/#")
        bob.all("im/v1/in/msg/")
        mid = fresh()
        alice = Client(im, "alice", "will", will=(f"im/v1/to/u/bob/{mid}", b"gone", 1)).connect()
        alice.drop()
        assert json_of(bob, "im/v1/in/msg/u/alice", mid)["body"] == "gone"


def test_receipts_tell_the_sender(im):
    with Client(im, "bob", "receipt") as bob, Client(im, "alice", "receipt") as alice:
        alice.subscribe("im/v1/in/#")
        bob.subscribe("im/v1/in/#")
        mid = fresh()
        alice.publish(f"im/v1/to/u/bob/{mid}", "seen?")
        m = json_of(bob, "im/v1/in/msg/u/alice", mid)
        bob.publish("im/v1/ack", json.dumps([{"conv": "u/alice", "delivered": m["seq"], "read": m["seq"]}]))
        r = alice.json("im/v1/in/evt/receipt")
        assert (r["conv"], r["user"], r["delivered"], r["read"]) == ("u/bob", "bob", m["seq"], m["seq"])
