"""The stand-in, looked at by a client that is not ours: it must be Apple for that one too."""
import pytest

import node_apn
from conftest import KID, TEAM, TOPIC

GOOD, GONE, OTHER, BAD = "aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32


@pytest.fixture
def client(place, standin):
    if node_apn.problem():
        pytest.skip(node_apn.problem())

    def run(**changes):
        return node_apn.run(**{**dict(port=standin.port, ca=str(place.ca_file), key=str(place.key_file), keyId=KID, teamId=TEAM, topic=TOPIC), **changes})
    return run


def test_node_apn_is_understood_and_understands(client, standin):
    standin.tokens = {GONE: {"gone_ms": 1700000000000}, OTHER: {"topic": "com.example.other"}, BAD: {"other_env": True}}
    good, gone, other, bad = client(tokens=[GOOD, GONE, OTHER, BAD])
    assert good == {"token": GOOD, "ok": True}
    assert (gone["status"], gone["reason"], gone["timestamp"]) == (410, "Unregistered", 1700000000000)
    assert (other["status"], other["reason"]) == (400, "DeviceTokenNotForTopic")
    assert (bad["status"], bad["reason"]) == (400, "BadDeviceToken")
    assert standin.accepted[0].json["aps"]["alert"] == {"title": "Alice", "body": "hello"}
    assert len(standin.conns) == 1


def test_wrong_team_and_wrong_topic_are_refused(client):
    assert client(tokens=[GOOD], teamId="OTHERTEAM1")[0]["reason"] == "InvalidProviderToken"
    assert client(tokens=[GOOD], topic="com.example.unknown")[0]["reason"] == "TopicDisallowed"


def test_both_clients_say_the_same(client, drive, standin):
    """What both send differs in nothing but the headers' order and the ids that only one of them sends."""
    client(tokens=[GOOD])
    drive.ask(token=GOOD)
    theirs, ours = standin.requests
    assert ours.json["aps"] == theirs.json["aps"]
    for name in (":method", ":scheme", ":path", "apns-topic", "apns-push-type", "apns-collapse-id"):
        assert ours[name] == theirs[name], name
    assert ours["apns-priority"] == (theirs["apns-priority"] or "10")
