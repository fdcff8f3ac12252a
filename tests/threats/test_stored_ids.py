"""Client ids are bound to users (reliability row I1): between chat users and users of a password_file, offline, across restarts and kills."""
import os
import signal
import subprocess
import time
import uuid

import pytest

from instance import Instance
from raw import CONNACK, PUBACK, SUBACK, Attacker, connack, connect, login, properties, publish, subscribe

BYSTANDERS = False  # the broker itself is restarted
SESSION = properties(session_expiry=3600)


@pytest.fixture(scope="module")
def im():
    instance = Instance()
    instance.conf = [f"password_file {instance.dir}/passwd", "plugin_opt_im_plain_topics allow", "autosave_interval 1", "autosave_on_changes true"]
    path = instance.dir / "passwd"
    path.touch(0o600)
    for name in ("meter", "other"):
        subprocess.run(["mosquitto_passwd", "-b", str(path), name, "secret"], check=True, capture_output=True)
    with instance:
        instance.users = instance.add_users(["alice", "bob"])
        instance.users.update(meter="secret", other="secret")
        yield instance


def restart(im, how):
    if how == "clean":
        assert im.stop() == 0
        im.start()
        return
    pid = im.pids()["mosquitto"]
    time.sleep(1.3)  # autosave
    im.kill("mosquitto")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if im.pids().get("mosquitto") not in (None, pid) and connack(im, connect("alice:probe", "alice", im.users["alice"])) == 0:
                return
        except (OSError, FileNotFoundError):
            pass
        time.sleep(0.05)
    raise AssertionError("the broker does not come back")


@pytest.mark.parametrize("how", ["running", "clean", "killed"])
@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("owner,thief", [("meter", "alice"), ("alice", "meter"), ("alice", "bob")])
def test_i1_stored_sessions_of_others_also_over_a_restart(im, owner, thief, v5, how):
    """The owner leaves a persistent session with a message queued; the broker is restarted or killed; somebody else CONNECTs with the id.

    Not authorized, in both versions, clean or not; the owner finds session and message. Own ordinary ids stay free for takeover as ever."""
    client_id = "shared-" + uuid.uuid4().hex[:8]
    topic, body = "plain/" + client_id, uuid.uuid4().hex
    with login(im, owner, raw_id=client_id, v5=v5, clean=False, props=SESSION) as r:
        r.send(subscribe(topic, v5=v5)).until(SUBACK)
        r.leave()
    with login(im, "other", raw_id="sender") as r:
        r.send(publish(topic, body)).until(PUBACK)
    if how != "running":
        restart(im, how)
    for other in (False, True):
        for clean in (False, True):
            code = connack(im, connect(client_id, thief, im.users[thief], v5=other, clean=clean))
            assert code == (0x87 if other else 5), (other, clean)
    with login(im, owner, raw_id=client_id, v5=v5, clean=False, props=SESSION) as r:
        assert r.present
        assert any(body.encode() in p for _, p in r.deliveries(0.5))
    login(im, owner, raw_id=client_id, v5=v5).leave()


def test_i1_users_of_the_password_file_share_ids_as_before(im):
    """Other CONNECTs with meter's id, online and offline; a session that meter has ended is anybody's.

    As on a bare broker: taken over; a chat user gets the id once the session is gone, and not before."""
    with login(im, "meter", raw_id="common", clean=False) as r:
        login(im, "other", raw_id="common", clean=False).leave()
        assert r.closed()
    assert connack(im, connect("common", "alice", im.users["alice"])) == 5
    login(im, "other", raw_id="common").leave()
    time.sleep(0.3)
    assert connack(im, connect("common", "alice", im.users["alice"])) == 0


def test_i1_a_login_in_the_same_turn(im):
    """Meter and alice CONNECT with the same fresh id at the same moment, two hundred times.

    Whoever is first has it; the other is refused or, if the first was gone already, comes after."""
    for i in range(200):
        with Attacker(im) as a, Attacker(im) as b:
            a.send(connect(f"turn{i}", "meter", "secret"))
            b.send(connect(f"turn{i}", "alice", im.users["alice"]))
            assert sorted((a.until(CONNACK)[1], b.until(CONNACK)[1])) == [0, 5]
