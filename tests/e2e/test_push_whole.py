"""From a sender's PUBLISH to the browser of somebody who is away: the plugin, the message service, the bridge, a push service of the test's own."""
import json
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from client import Client
from instance import Instance

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "push"))
import certs  # noqa: E402
from http_standin import Standin  # noqa: E402
from test_webpush import Subscription  # noqa: E402


def wait(condition, timeout=20):
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    ca = certs.Authority()
    (folder / "ca.pem").write_bytes(ca.pem())
    certs.write_secret(folder / "server.pem", ca.server())
    with Standin(folder / "server.pem") as s:
        s.ca_file = folder / "ca.pem"
        s.route("/push/", (201, {"location": "/message/1"}, b""))
        yield s


@pytest.fixture(scope="module")
def im(service):
    i = Instance(conf=["plugin_opt_im_push webpush", "plugin_opt_im_push_privacy content", "plugin_opt_im_push_coalesce 1000"])
    folder = i.dir / "push"
    folder.mkdir(mode=0o700)
    certs.write_secret(folder / "vapid.pem", certs.key_pem(certs.p256()))
    (folder / "webpush.chat.conf").write_text(f"vapid_key_file vapid.pem\nsubject mailto:ops@example.com\nca_file {service.ca_file}\n"
                                              "allow_private true\nallow_ports true\n")
    with i:
        i.users = i.add_users(["alice", "bob", "carol"])
        wait(lambda: "im-push-webpush" in i.pids())
        yield i


def register(im, service, user, device="phone", path=None):
    sub = Subscription(f"{service.url}/push/{path or user}")
    with Client(im, user, device) as c:
        c.subscribe("im/v1/in/#")
        answer = c.request("push.register", {"provider": "webpush", "app": "chat", **sub.fields()})
        assert answer["ok"], answer
    return sub


def send(im, user, conv, text):
    with Client(im, user, "pc") as c:
        c.subscribe("im/v1/in/ack")
        c.publish(f"im/v1/to/{conv}", text)
        return c.json("im/v1/in/ack", 30)[0]


def state(im, user, conv, seq):
    p = im.imctl("push", "why", user, conv, str(seq), "--json", check=False)
    return json.loads(p.stdout) if p.returncode == 0 else {}


def test_who_is_away_is_woken(im, service):
    sub = register(im, service, "alice")
    ack = send(im, "bob", "u/alice", "hello from far away")
    text = json.loads(sub.decrypt(service.next("/push/alice", 20).body))
    assert (text["title"], text["body"], text["conv"], text["msgid"]) == ("bob", "hello from far away", "u/bob", ack["msgid"])
    wait(lambda: "accepted" in json.dumps(state(im, "alice", "u/bob", ack["seq"])).lower())


def test_a_burst_becomes_one_push_that_stands_for_all(im, service):
    sub = register(im, service, "carol")
    with Client(im, "bob", "pc") as c:
        for n in range(20):
            c.publish("im/v1/to/u/carol", f"message {n}")
    texts = [json.loads(sub.decrypt(service.next("/push/carol", 20).body))]
    end = time.monotonic() + 15
    while texts[-1]["unread"] < 20 and time.monotonic() < end:
        texts.append(json.loads(sub.decrypt(service.next("/push/carol", 20).body)))
    assert texts[-1]["unread"] == 20 and len(texts) <= 4, texts


def test_read_before_it_was_sent_is_not_sent(im, service):
    """The bridge is stopped while the message is read elsewhere: it asks before it sends."""
    register(im, service, "alice")
    subprocess.run(["kill", "-STOP", str(im.pids()["im-push-webpush"])], check=True)
    ack = send(im, "carol", "u/alice", "never mind")
    wait(lambda: json.loads(im.imctl("push", "stats", "--json").stdout)["feeds"][0]["unconfirmed_frames"] > 0)
    # The job is made and on its way: from here on only the bridge's question can stop it.
    with Client(im, "alice", "desk") as c:
        c.subscribe("im/v1/in/#")
        c.publish("im/v1/ack", json.dumps([{"conv": "u/carol", "delivered": ack["seq"], "read": ack["seq"]}]))
        wait(lambda: state(im, "alice", "u/carol", ack["seq"]).get("now") == "read")
    while not service.requests.empty():
        service.requests.get()
    subprocess.run(["kill", "-CONT", str(im.pids()["im-push-webpush"])], check=True)
    wait(lambda: "cancelled" in json.dumps(state(im, "alice", "u/carol", ack["seq"])).lower())
    assert service.count("/push/alice") == 0


def test_a_subscription_that_is_gone_is_told_to_its_device(im, service):
    register(im, service, "bob", path="gone")
    service.route("/push/gone", (410, {}, b""))
    send(im, "carol", "u/bob", "anybody there?")
    rows = wait(lambda: [r for r in map(json.loads, im.imctl("push", "list", "bob", "--json").stdout.splitlines()) if r["state"] != "active"])
    assert rows[0]["device"] == "bob:phone" and "410" in rows[0]["reason"]


def test_kill_everything_and_each_message_is_pushed_all_the_same(im, service):
    sub = register(im, service, "alice")
    seqs, said = [], set()
    for n in range(12):
        victim = ("im-push-webpush", "im-offline", "mosquitto")[n % 3]
        seqs.append(send(im, "carol", "u/alice", f"round {n}")["seq"])
        im.kill(victim)
        time.sleep(1.2)  # each its own push: the coalescing window is a second
    end = time.monotonic() + 40
    while max(seqs) not in said and time.monotonic() < end:
        said.add(json.loads(sub.decrypt(service.next("/push/alice", 40).body))["seq"])
    assert max(seqs) in said, (seqs, said)
    for seq in seqs:  # every one has exactly one end
        found = json.dumps(wait(lambda: state(im, "alice", "u/carol", seq).get("bridge"))).lower()
        assert any(word in found for word in ("accepted", "coalesced")), (seq, found)


def test_a_half_open_phone_is_woken_after_its_grace(im, service):  # 48
    """The connection looks alive, and nobody is at the other end: a device that is known to acknowledge and does not is pushed."""
    sub = register(im, service, "carol")
    with Client(im, "carol", "phone") as c:
        c.subscribe("im/v1/in/#")
        seq = send(im, "bob", "u/carol", "are you there?")["seq"]
        c.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": seq, "read": seq}]))
        wait(lambda: state(im, "carol", "u/bob", seq).get("now") in ("got", "read"))
        c.mqtt.loop_stop()  # from here on it reads and answers nothing; the connection stays
        while not service.requests.empty():
            service.requests.get()
        began = time.monotonic()
        ack = send(im, "bob", "u/carol", "hello?")
        text = json.loads(sub.decrypt(service.next("/push/carol", 20).body))
        assert text["seq"] == ack["seq"] and 3.5 < time.monotonic() - began < 12


def test_logging_out_while_a_push_is_under_way(im, service):  # 45
    """The answer comes for a registration that is gone, or for one that was made anew: neither is touched by it."""
    go = threading.Event()
    register(im, service, "alice", path="leaving")
    service.route("/push/leaving", lambda request: (go.wait(20), (410, {}, b""))[1])
    ack = send(im, "bob", "u/alice", "are you leaving?")
    service.next("/push/leaving", 20)  # under way
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        assert c.request("push.unregister")["ok"]
    fresh = register(im, service, "alice", path="back")
    go.set()
    wait(lambda: state(im, "alice", "u/bob", ack["seq"]).get("bridge"))
    ack = send(im, "bob", "u/alice", "you are back")
    text = json.loads(fresh.decrypt(service.next("/push/back", 20).body))
    assert text["seq"] == ack["seq"]
    rows = [json.loads(x) for x in im.imctl("push", "list", "alice", "--json").stdout.splitlines()]
    assert [(r["device"], r["state"]) for r in rows] == [("alice:phone", "active")]


def test_one_phone_two_users_who_register_at_once(im, service):  # 45
    """Whoever registers last has the token, and one alone: the other's messages must not come to that phone, and its registration says that it moved."""
    sub = Subscription(f"{service.url}/push/shared")

    def again_and_again(user):
        with Client(im, user, "shared") as c:
            c.subscribe("im/v1/in/#")
            for _ in range(15):
                assert c.request("push.register", {"provider": "webpush", "app": "chat", **sub.fields()})["ok"]

    threads = [threading.Thread(target=again_and_again, args=(user,)) for user in ("alice", "bob")]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    rows = [json.loads(x) for user in ("alice", "bob") for x in im.imctl("push", "list", user, "--json").stdout.splitlines()]
    states = {r["device"]: (r["state"], r.get("reason", "")) for r in rows if r["device"].endswith(":shared")}
    owners = [device for device, (state, _) in states.items() if state == "active"]
    assert len(owners) == 1 and set(states.values()) == {("active", ""), ("invalid", "moved")}, states
    with Client(im, owners[0].split(":")[0], "shared") as c:
        c.subscribe("im/v1/in/#")
        assert c.request("push.unregister")["ok"]
