"""Nobody gets in, nobody reads or writes outside their rights."""
import subprocess
import time
import uuid

import pytest

from client import Client


def refused(im, user, device=None, password=None, raw_id=None):
    c = Client(im, user, device, password=password, raw_id=raw_id)
    try:
        c.connect(3)
    except Exception:
        return True
    rc = c.rc
    c.close()
    return rc != 0


def test_wrong_password_is_refused(im):
    assert refused(im, "alice", "x", "wrong")


def test_unknown_user_is_refused(im):
    assert refused(im, "mallory", "x", "wrong")


def test_password_login_works(im):
    im.imctl("user", "add", "erin", stdin="correct horse\n")
    with Client(im, "erin", "pw", password="correct horse") as erin:
        assert erin.rc == 0
    assert refused(im, "erin", "pw", "Correct horse")


def test_client_id_of_another_user_is_refused_and_does_not_disturb(im):
    with Client(im, "alice", "mine") as alice:
        assert refused(im, "bob", "alice:mine")
        alice.subscribe("im/v1/in/#")
        alice.next("im/v1/in/evt/welcome")


def test_service_names_are_refused(im):
    assert refused(im, "$im", "$im-offline", "guess")
    assert refused(im, "alice", raw_id="$im-offline")


@pytest.mark.parametrize("filter", ["im/#", "im/v1/#", "im/+/in/#", "im/v1/+/#", "im/v1/to/#", "$im/#", "$im/in", "$share/g/im/v1/in/#",
                                    "$CONTROL/im/v1/response", "im/v1/to/u/bob"])
def test_filters_outside_ones_rights_are_refused(im, filter):
    with Client(im, "alice", "filters") as alice:
        assert alice.subscribe(filter) == 128


def test_wildcard_grants_nothing_below_im(im):
    with Client(im, "dave", "spy") as spy, Client(im, "bob", "b") as bob, Client(im, "alice", "a") as alice:
        for f in ("#", "+/#", "+/v1/in/#", "+/+/+/msg/#"):
            spy.subscribe(f)
        bob.subscribe("im/v1/in/#")
        text = uuid.uuid4().hex
        alice.publish("im/v1/to/u/bob", text)
        while text.encode() not in bob.next("im/v1/in/msg/u/alice").payload:
            pass
        spy.none("", 0.5)


def test_ordinary_topics_are_denied_to_our_users_by_default(im):
    with Client(im, "alice", "plain") as alice, Client(im, "bob", "plain") as bob:
        bob.subscribe("plain/topic")
        alice.publish("plain/topic", "x")
        bob.none("plain/", 0.5)


def test_admin_commands_are_refused_to_users(im):
    with Client(im, "alice", "ctl") as alice:
        alice.publish("$CONTROL/im/v1", '{"commands":[{"command":"user.remove","name":"bob"}]}')
        assert alice.json("im/v1/in/err")["code"] == "not_allowed"
    with Client(im, "bob", "still") as bob:
        assert bob.rc == 0


def test_removed_member_gets_and_sends_nothing_from_then_on(im):
    im.imctl("group", "create", "team", "--owner", "alice")
    im.imctl("group", "add", "team", "dave")
    with Client(im, "dave", "team") as dave, Client(im, "alice", "team") as alice:
        dave.subscribe("im/v1/in/#")
        alice.publish("im/v1/to/g/team", "before")
        while b"before" not in dave.next("im/v1/in/msg/g/team").payload:
            pass
        im.imctl("group", "kick", "team", "dave")
        alice.publish("im/v1/to/g/team", "after")
        assert all(b"after" not in m.payload for m in dave.all("im/v1/in/msg/g/team", 0.5))
        dave.publish("im/v1/to/g/team", "me too")
        assert dave.json("im/v1/in/err")["code"] == "not_member"


def test_removed_user_is_thrown_out(im):
    im.imctl("user", "add", "frank", stdin="pw pw pw\n")
    frank = Client(im, "frank", "x", password="pw pw pw").connect()
    im.imctl("user", "remove", "frank")
    frank.disconnects.get(timeout=5)
    frank.mqtt.loop_stop()
    assert refused(im, "frank", "x", "pw pw pw")


def test_why_names_the_rule(im):
    p = im.imctl("why", "dave", "publish", "im/v1/to/g/friends", check=False)
    assert p.returncode == 6 and "not_member" in p.stdout + p.stderr
    p = im.imctl("why", "alice", "publish", "im/v1/to/g/friends")
    assert p.returncode == 0
    p = im.imctl("why", "bob", "connect", "alice:mine", check=False)
    assert p.returncode == 6


def test_login_storm_with_passwords_does_not_freeze_the_broker(im):
    """Cold password checks are rationed: others' messages keep flowing."""
    with Client(im, "bob", "calm") as bob, Client(im, "alice", "calm") as alice:
        bob.subscribe("im/v1/in/#")
        bob.all("im/v1/in/", 0.3)
        storm = [subprocess.Popen(["mosquitto_pub", "-p", str(im.port), "-i", f"carol:s{i}", "-u", "carol", "-P", f"wrong{i}", "-t", "x", "-m", "x"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(60)]
        worst = 0.0
        for i in range(30):
            start = time.monotonic()
            text = uuid.uuid4().hex
            alice.publish("im/v1/to/u/bob", text)
            while text.encode() not in bob.next("im/v1/in/msg/u/alice").payload:
                pass
            worst = max(worst, time.monotonic() - start)
        for p in storm:
            p.kill()
            p.wait()
        assert worst < 2.0, worst
