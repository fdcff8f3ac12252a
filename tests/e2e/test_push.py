"""The message service's side of push: who registers, for whom jobs are made, what a ticket says. The bridge is played by the test."""
import json
import signal
import time

import pytest
from bridge import Bridge, pb
from client import Client

TOKEN = "ab12" * 16
OPTIONS = ["--no-bridges"]
CONF = ["plugin_opt_im_push honor, apns", "plugin_opt_im_push_privacy content", "plugin_opt_im_push_grace 1500"]


@pytest.fixture
def bridge(im):
    with Bridge(im, "honor") as b:
        yield b


def register(im, device, token=TOKEN, **more):
    user = device.split(":")[0]
    with Client(im, user, device) as c:
        c.subscribe("im/v1/in/#")
        answer = c.request("push.register", {**{"provider": "honor", "app": "chat", "token": token}, **more})
        assert answer["ok"], answer
        return answer


def unregister(im, *devices):
    for device in devices:
        with Client(im, device.split(":")[0], device) as c:
            c.subscribe("im/v1/in/#")
            c.request("push.unregister")


def send(im, user, conv, text, timeout=10):
    with Client(im, user, "pc") as c:
        c.subscribe("im/v1/in/ack")
        c.publish(f"im/v1/to/{conv}", text)
        return c.json("im/v1/in/ack", timeout)[0]


def test_a_message_for_a_device_that_is_away_becomes_a_job_and_its_ticket_says_what_is_true_now(im, bridge):
    answer = register(im, "alice:phone", language="de")
    assert answer["state"] == "active" and answer["provider"] == "honor" and "token" not in answer
    ack = send(im, "bob", "u/alice", "hello alice")
    job = bridge.job()
    assert (job.user, job.device, job.conv, job.seq, job.key) == ("alice", "alice:phone", "u/alice:bob", ack["seq"], ack["msgid"])
    assert TOKEN not in str(job) and "hello" not in str(job)
    ticket = bridge.ticket(job)
    assert ticket.verdict == pb.VERDICT_SEND
    assert (ticket.token.token, ticket.token.app) == (TOKEN, "chat") and ticket.token.registered_ms == answer["registered"]
    assert (ticket.title, ticket.body, ticket.conv, getattr(ticket, "from")) == ("bob", "hello alice", "u/bob", "bob")
    assert ticket.has_badge and ticket.badge >= 1 and ticket.unread >= 1 and ticket.language == "de"
    with Client(im, "alice", "phone") as c:  # she reads it on the phone itself
        c.subscribe("im/v1/in/#")
        c.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": ack["seq"], "read": ack["seq"]}]))
    deadline = time.monotonic() + 10
    while (ticket := bridge.ticket(job)).reason not in ("got", "read"):  # "connected" while her session is seen and her ack is not yet
        assert time.monotonic() < deadline, ticket
    assert ticket.verdict == pb.VERDICT_CANCEL and not ticket.HasField("token")
    unregister(im, "alice:phone")


def test_who_is_not_registered_sent_it_or_is_connected_without_acks_is_not_pushed(im, bridge):
    register(im, "alice:phone")
    register(im, "bob:phone", "bb" * 32)
    send(im, "alice", "u/carol", "to somebody without a token")
    send(im, "bob", "u/bob", "to myself")
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        send(im, "bob", "u/alice", "she sees it")
        bridge.no_job()
    unregister(im, "alice:phone", "bob:phone")


def test_a_connected_device_that_acks_has_a_grace(im, bridge):
    register(im, "dave:phone", "dd" * 32)
    with Client(im, "dave", "phone") as c:
        c.subscribe("im/v1/in/#")
        first = send(im, "bob", "u/dave", "one")
        c.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": first["seq"]}]))  # it acks from now on
        while not bridge.jobs.empty():
            bridge.jobs.get()
        second = send(im, "bob", "u/dave", "two")
        c.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": second["seq"]}]))
        bridge.no_job(2.5)
        third = send(im, "bob", "u/dave", "three")  # shown on no screen: the connection may be a dead one
        began = time.monotonic()
        job = bridge.job()
        assert job.seq == third["seq"] and time.monotonic() - began > 1.0
    unregister(im, "dave:phone")


def test_a_group_pushes_each_member_once_and_says_who_wrote(im, bridge):
    register(im, "bob:phone", "bb" * 32)
    register(im, "carol:phone", "cc" * 32, privacy="sender")
    send(im, "alice", "g/friends", "to all")
    jobs = {j.user: j for j in (bridge.job(), bridge.job())}
    assert set(jobs) == {"bob", "carol"}
    ticket = bridge.ticket(jobs["bob"])
    assert (ticket.title, ticket.subtitle, ticket.body, ticket.conv) == ("friends", "alice", "to all", "g/friends")
    ticket = bridge.ticket(jobs["carol"])
    assert (ticket.subtitle, ticket.body, ticket.privacy) == ("alice", "", "sender")
    im.imctl("group", "kick", "friends", "carol")
    ticket = bridge.ticket(jobs["carol"])
    assert (ticket.verdict, ticket.reason) == (pb.VERDICT_CANCEL, "not_visible")
    im.imctl("group", "add", "friends", "carol")
    unregister(im, "bob:phone", "carol:phone")


def test_quiet_hours_hold(im, bridge):
    now = time.gmtime()
    quiet = {"quiet_from": f"{(now.tm_hour - 1) % 24:02}:00", "quiet_to": f"{(now.tm_hour + 2) % 24:02}:00", "zone": "UTC"}
    register(im, "dave:phone", "dd" * 32, **quiet)
    send(im, "bob", "u/dave", "psst")
    job = bridge.job()
    assert job.not_before_ms > time.time() * 1000
    ticket = bridge.ticket(job)
    assert (ticket.verdict, ticket.reason) == (pb.VERDICT_HOLD, "quiet_hours") and ticket.hold_until_ms == job.not_before_ms
    unregister(im, "dave:phone")


def test_a_phone_that_changes_hands_takes_its_token_along(im, bridge):
    register(im, "alice:phone")
    send(im, "bob", "u/alice", "for alice")
    job = bridge.job()
    register(im, "dave:phone", TOKEN)
    ticket = bridge.ticket(job)
    assert (ticket.verdict, ticket.reason) == (pb.VERDICT_CANCEL, "token_invalid")
    send(im, "bob", "u/alice", "for alice")
    bridge.no_job()
    told = heard(im, "alice", "phone")
    assert (told["provider"], told["app"], told["state"], told["reason"]) == ("honor", "chat", "invalid", "moved")
    assert [r["reason"] for r in registrations(im, "alice")] == ["moved"]
    register(im, "alice:phone", "a1" * 32)  # with another token: dave keeps his
    assert [r["state"] for r in registrations(im, "alice") + registrations(im, "dave")] == ["active", "active"]
    unregister(im, "alice:phone", "dave:phone")


def until(what, timeout=10):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "not in time"


def heard(im, user, device):
    """The evt/push of a new connection; None: there is none before the catch-up, which comes behind it."""
    with Client(im, user, device) as c:
        c.subscribe("im/v1/in/evt/#")
        events = [c.next("im/v1/in/evt/") for _ in range(2)]
        while events[-1].topic.rsplit("/", 1)[1] not in ("push", "sync"):
            events.append(c.next("im/v1/in/evt/"))
        return json.loads(events[-1].payload) if events[-1].topic.endswith("/push") else None


def test_a_device_hears_of_its_dead_token_until_it_registers_anew(im, bridge):
    answer = register(im, "alice:phone")
    with Client(im, "alice", "phone") as phone, Client(im, "alice", "pad") as pad:
        phone.subscribe("im/v1/in/#")
        pad.subscribe("im/v1/in/#")
        bridge.say(said=1, verdicts=[pb.TokenVerdict(user="alice", device="alice:phone", app="chat", state=pb.TOKEN_STATE_INVALID, reason="UNREGISTERED", at_ms=1,
                                                     registered_ms=answer["registered"])])
        told = phone.json("im/v1/in/evt/push")  # it is connected: at once
        assert told == {"provider": "honor", "app": "chat", "state": "invalid", "reason": "UNREGISTERED", "since": 1}
        pad.none("im/v1/in/evt/push")
    im.kill("im-offline")
    for _ in range(2):  # at each connect
        assert heard(im, "alice", "phone") == told
    with Client(im, "alice", "phone") as phone:
        phone.subscribe("im/v1/raw/#")
        assert json.loads(phone.next("im/v1/raw/evt/push").payload) == told
        phone.mqtt.unsubscribe("im/v1/raw/#")
    with Client(im, "alice", "phone") as phone:
        phone.subscribe("im/v1/in/#")
        assert phone.request("push.get")["registrations"][0]["reason"] == "UNREGISTERED"
    register(im, "alice:phone")
    with Client(im, "alice", "phone") as phone:
        phone.subscribe("im/v1/in/#")
        phone.next("im/v1/in/evt/welcome")
        phone.none("im/v1/in/evt/push")
    unregister(im, "alice:phone")


def test_a_token_that_cannot_be_decrypted_is_registered_anew(im, bridge):
    """Whoever restores a store without its key loses no device for good."""
    register(im, "alice:phone")
    (im.dir / "push/store.key").unlink()
    im.kill("im-offline")
    send(im, "bob", "u/alice", "hello", 30)
    ticket = bridge.ticket(bridge.job(30))
    assert (ticket.verdict, ticket.reason) == (pb.VERDICT_CANCEL, "token_unreadable")
    until(lambda: registrations(im, "alice")[0]["state"] == "invalid")
    told = heard(im, "alice", "phone")
    assert (told["state"], told["reason"]) == ("invalid", "unreadable")
    assert register(im, "alice:phone")["state"] == "active"  # the broker has noticed that the key is another
    unregister(im, "alice:phone")


def test_a_verdict_counts_for_the_registration_it_speaks_of(im, bridge):
    answer = register(im, "alice:phone")
    verdict = {"user": "alice", "device": "alice:phone", "app": "chat", "state": pb.TOKEN_STATE_INVALID, "reason": "Unregistered", "at_ms": 1}
    bridge.say(said=1, verdicts=[pb.TokenVerdict(registered_ms=answer["registered"] - 1, **verdict)])
    while bridge.heard.get(timeout=10) < 1:
        pass
    assert registrations(im, "alice")[0]["state"] == "active"
    bridge.say(said=2, verdicts=[pb.TokenVerdict(registered_ms=answer["registered"], **verdict)])
    while bridge.heard.get(timeout=10) < 2:
        pass
    row = registrations(im, "alice")[0]
    assert (row["state"], row["reason"]) == ("invalid", "Unregistered")
    send(im, "bob", "u/alice", "nobody hears")
    bridge.no_job()
    assert register(im, "alice:phone")["state"] == "active"  # the app came back with it
    unregister(im, "alice:phone")


def shown_and_read(im, apple, pad, user):
    """The phone was told a number; then everything is read on the pad. Returns that number."""
    ack = send(im, "bob", f"u/{user}", "one")
    while (job := apple.job(15)).key != ack["msgid"]:
        pass  # this feed has what was sent before it, too
    while (shown := apple.ticket(job)).verdict == pb.VERDICT_HOLD:  # the pad has a head start
        time.sleep(0.2)
    assert shown.verdict == pb.VERDICT_SEND and shown.badge >= 1
    for conv in [c["conv"] for c in pad.request("conversations")["conversations"]]:
        pad.publish("im/v1/ack", json.dumps([{"conv": conv, "read": 2**53 - 1 if conv != "u/bob" else ack["seq"]}]))
    return shown.badge


def corrected(apple, device, than):
    """The job of the badge alone, asked for."""
    job = apple.job(30)
    assert (job.kind, job.device, job.key, job.conv) == (pb.KIND_BADGE, device, "badge", "")
    ticket = apple.ticket(job)
    assert (ticket.verdict, ticket.has_badge, ticket.title, ticket.body) == (pb.VERDICT_SEND, True, "", "") and ticket.badge < than
    return job


def test_what_is_read_elsewhere_corrects_the_number_on_an_icon(im):
    """... also if the service is killed before it has told the bridge, and never twice once that has it."""
    for user in ("dave", "carol"):
        register(im, f"{user}:phone", TOKEN[:-2] + user[:1].encode().hex(), provider="apns")
    with Bridge(im, "apns") as apple, Client(im, "dave", "pad") as dave, Client(im, "carol", "pad") as carol:
        for pad in (dave, carol):
            pad.subscribe("im/v1/in/#")
        than = {"dave:phone": shown_and_read(im, apple, dave, "dave")}
        job = corrected(apple, "dave:phone", than["dave:phone"])
        ticket = apple.ticket(job)  # it shows that now
        assert ticket.verdict == pb.VERDICT_CANCEL and ticket.reason in ("no_badge", "same_badge")
        than["carol:phone"] = shown_and_read(im, apple, carol, "carol")
        time.sleep(0.5)  # the reads are durable; ten seconds are gathered
        im.kill("im-offline")
        corrected(apple, "carol:phone", than["carol:phone"])
        time.sleep(1)  # it is confirmed, and nothing is owed any more
        im.kill("im-offline")
        assert carol.request("conversations", timeout=30)["ok"]
        apple.no_job(2)
    unregister(im, "dave:phone", "carol:phone")


def registrations(im, user):
    return [json.loads(line) for line in im.imctl("push", "list", user, "--json").stdout.splitlines()]


def test_jobs_survive_the_service_and_the_bridge(im, bridge):
    """Not confirmed: the frame comes again, from the same service and from one that was killed; nothing before a confirmed one does."""
    register(im, "alice:phone")
    first = send(im, "bob", "u/alice", "confirmed")
    assert bridge.job().key == first["msgid"]
    time.sleep(2.5)  # the position is stored once a second
    bridge.confirms = False
    second = send(im, "bob", "u/alice", "not confirmed")
    assert bridge.job().key == second["msgid"]
    bridge.hello()  # the bridge has lost it
    assert bridge.job().key == second["msgid"]
    time.sleep(2.5)  # time enough to store a position that has passed it, if it were wrong
    im.kill("im-offline")
    again = bridge.job(30)
    assert again.key == second["msgid"]
    bridge.confirms = True
    third = send(im, "bob", "u/alice", "after it", timeout=30)
    keys = [bridge.job().key]
    while keys[-1] != third["msgid"]:
        keys.append(bridge.job().key)
    assert first["msgid"] not in keys
    unregister(im, "alice:phone")


def test_tokens_are_not_in_the_store_in_the_clear(im):
    secret = "f00d" * 16
    register(im, "alice:phone", secret)
    im.stop()
    try:
        for path in (im.dir / "store").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    finally:
        im.start()
    assert registrations(im, "alice")[0]["device"] == "alice:phone"
    unregister(im, "alice:phone")


def test_a_token_lies_nowhere_in_the_clear_not_even_in_the_journal(im):
    """Asked for while the service is down: the journal has the request, and nothing that tells the token."""
    secret = b"beef" * 16
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        im.kill("im-offline", signal.SIGSTOP)
        c.publish("im/v1/req/push.register/r1", json.dumps({"provider": "honor", "app": "chat", "token": secret.decode()}))
        journal = b"".join(p.read_bytes() for p in (im.dir / "journal").rglob("*") if p.is_file())
        assert b"push.register" in journal and secret not in journal
        im.kill("im-offline")
        answer = c.json("im/v1/in/res/r1", 30)
        assert answer["ok"] and answer["state"] == "active", answer
    for path in im.dir.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path
    unregister(im, "alice:phone")


@pytest.mark.parametrize("args, code", [
    ({"provider": "honor", "app": "chat", "token": "a b"}, "bad_field"),
    ({"provider": "huawei", "app": "chat", "token": TOKEN}, "not_found"),
    ({"provider": "honor", "app": "chat"}, "bad_field"),
    ({"provider": "honor", "app": "chat", "token": TOKEN, "quiet_from": "22:00"}, "bad_field"),
    ({"provider": "honor", "app": "chat", "token": TOKEN, "quiet_from": "25:00", "quiet_to": "07:00", "zone": "UTC"}, "bad_field"),
    ({"provider": "honor", "app": "chat", "token": TOKEN, "quiet_from": "22:00", "quiet_to": "07:00", "zone": "../../etc"}, "bad_field"),
    ({"provider": "honor", "app": "chat", "token": TOKEN, "privacy": "all"}, "bad_field"),
])
def test_a_registration_that_cannot_work_is_refused_with_a_sentence(im, args, code):
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        answer = c.request("push.register", args)
        assert not answer["ok"] and answer["error"]["code"] == code, answer


def test_only_a_named_device_can_be_woken(im):
    with Client(im, "alice", raw_id="some-script") as c:
        c.subscribe("im/v1/in/#")
        answer = c.request("push.register", {"provider": "honor", "app": "chat", "token": TOKEN})
        assert answer["error"]["code"] == "not_allowed"


def test_imctl_explains(im, bridge):
    register(im, "alice:phone")
    ack = send(im, "bob", "u/alice", "why?")
    bridge.job()
    bridge.answers["json"] = '{"state":"accepted"}'
    p = json.loads(im.imctl("push", "why", "alice", "u/bob", str(ack["seq"]), "--json").stdout)
    assert (p["now"], p["bridge"]["state"]) == ("send", "accepted")
    assert json.loads(bridge.queries.get(timeout=5).json) == {"query": "explain", "user": "alice", "device": "alice:phone", "conv": "u/alice:bob",
                                                              "seq": ack["seq"]}
    im.imctl("push", "test", "alice")
    assert bridge.job().kind == pb.KIND_TEST
    stats = json.loads(im.imctl("push", "stats", "--json").stdout)
    honor = next(f for f in stats["feeds"] if f["provider"] == "honor")
    assert honor["bridge"] == "up" and honor["jobs"] >= 2 and honor["decided"]["send"] >= 1
    unregister(im, "alice:phone")
