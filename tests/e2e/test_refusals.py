"""Bad input gets a code and a sentence, and hurts nobody else."""
import json
import uuid

import pytest

from client import Client

CASES = [
    ("im/v1/to/u/nobody", b"x", "unknown_user"),
    ("im/v1/to/g/nogroup", b"x", "unknown_group"),
    ("im/v1/to/u/BAD NAME", b"x", "bad_name"),
    ("im/v1/to/u/bob/bad id!", b"x", "bad_id"),
    ("im/v1/to/u/bob/" + "i" * 65, b"x", "bad_id"),
    ("im/v1/to/x/bob", b"x", "bad_topic"),
    ("im/v1/nonsense", b"x", "bad_topic"),
    ("im/v1/send", b"{", "bad_json"),
    ("im/v1/send", b'{"to":"u/bob","to":"u/carol","body":"x"}', "bad_json"),
    ("im/v1/send", b'{"to":"u/bob","body":"x","from":"carol"}', "bad_json"),
    ("im/v1/send", b"[" * 5000, "bad_json"),
    ("im/v1/send", b'{"to":"u/bob","body":"x","type":"system"}', "bad_field"),
    ("im/v1/send/pb", b"\xff\xff\xff", "bad_pb"),
    ("im/v1/ack", b'[{"conv":"u/bob","delivered":99999999}]', "bad_cursor"),
    ("im/v1/ack", b'{"conv":"u/bob"}', "bad_json"),
    ("im/v1/in/msg/u/bob", b"forged", "read_only_topic"),
    ("im/v1/to/u/bob", b"x" * 262145, "too_big"),
]


@pytest.mark.parametrize("topic,payload,code", CASES, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("v5", [False, True], ids=["v311", "v5"])
def test_refusal_names_its_code(im, topic, payload, code, v5):
    with Client(im, "alice", uuid.uuid4().hex, v5=v5) as alice:
        alice.subscribe("im/v1/in/#")
        alice.next("im/v1/in/evt/welcome")
        alice.publish(topic, payload)
        e = alice.json("im/v1/in/err")
        assert e["code"] == code, e
        assert e["reason"] and e["fix"]
        alice.publish(f"im/v1/to/u/bob/{uuid.uuid4().hex}", "still here")
        alice.next("im/v1/in/ack")


def test_error_comes_without_a_subscription(im):
    with Client(im, "alice", uuid.uuid4().hex) as alice:
        alice.publish("im/v1/to/u/nobody", "x")
        assert alice.json("im/v1/in/err")["code"] == "unknown_user"


def test_outsider_may_not_send_to_a_group(im):
    with Client(im, "dave", "outsider") as dave:
        dave.publish("im/v1/to/g/friends/abc", "let me in")
        e = dave.json("im/v1/in/err")
        assert e["code"] == "not_member" and e["id"] == "abc"


def test_retained_message_is_refused(im):
    with Client(im, "alice", uuid.uuid4().hex) as alice:
        alice.publish("im/v1/to/u/bob", "x", retain=True)
        assert alice.json("im/v1/in/err")["code"] == "retained"


def test_unknown_method_is_answered(im):
    with Client(im, "alice", uuid.uuid4().hex) as alice:
        alice.subscribe("im/v1/in/#")
        r = alice.request("histroy", {})
        assert not r["ok"] and r["error"]["code"] == "unknown_method" and "history" in r["error"]["fix"] + r["error"]["reason"]


def test_repeated_request_gets_the_first_answer(im):
    with Client(im, "alice", uuid.uuid4().hex) as alice:
        alice.subscribe("im/v1/in/res/#")
        first = alice.request("server", rid="same")
        assert first["ok"]
        assert alice.request("server", rid="same") == first


def test_device_max_packet_cuts_and_marks(im):
    with Client(im, "bob", "small") as bob, Client(im, "alice", "to-small") as alice:
        bob.subscribe("im/v1/in/#")
        assert bob.request("device.set", {"max_packet": 512})["ok"]
        mid = uuid.uuid4().hex
        alice.publish(f"im/v1/to/u/bob/{mid}", "long " * 1000)
        while True:
            m = bob.next("im/v1/in/msg/u/alice")
            if json.loads(m.payload)["id"] == mid:
                break
        assert json.loads(m.payload)["cut"] is True and len(m.payload) + len(m.topic) + 2 + 2 + 3 <= 512


def test_a_server_without_push_does_not_say_try_again(im):
    with Client(im, "alice", uuid.uuid4().hex) as alice:
        alice.subscribe("im/v1/in/res/#")
        alice.publish("im/v1/req/push.register/r1", json.dumps({"provider": "apns", "token": "ab" * 32, "app": "chat"}))
        error = alice.json("im/v1/in/res/r1")["error"]
        assert error["code"] == "not_allowed" and "im_push" in error["reason"], error
