"""Who reads slowly, never acknowledges or floods harms nobody else, costs bounded memory, and loses nothing that was accepted."""
import json
import os
import signal
import socket
import struct
import time
import uuid

import pytest

from client import Client
from instance import SANITIZED
from raw import PUBACK, PUBLISH, Raw

# Small segments, so that growth and shrinking show quickly; the silent budget is a tenth of the default.
WINDOW = 50  # messages out to a device that acks
CONF = ("plugin_opt_im_journal_limit 64m", "plugin_opt_im_segment_bytes 8m", "plugin_opt_im_silent_bytes 8m", f"plugin_opt_im_ack_window {WINDOW}",
        "plugin_opt_im_ack_retry 500", "plugin_opt_im_ack_retries 1", "plugin_opt_im_rate_user 200000", "plugin_opt_im_rate_connection 200000")
MESSAGES = 5000 if SANITIZED else 50000

# KiB a part may grow by; sanitizers keep freed memory, so their run measures nothing.
BROKER_GROWTH = 48 << 10   # the silent budget of 8 MiB is counted in payload; the broker's own structs come to several times that
SERVICE_GROWTH = 96 << 10  # im_store_backlog 64 MiB, pages of the database, kept messages
JOURNAL_MOST = (64 + 3 * 8) << 20  # im_journal_limit, what is left of the segments at both ends, and a spare one
FOLDER_AT_REST = 80 << 20  # a journal segment in use and a spare one of 8 MiB each, the same of the message log, 32 MiB of WAL


class Growth:
    """Resident memory of the parts since it was made; the most of all looks."""

    def __init__(self, im):
        self.im, self.before, self.most = im, im.rss_kib(), {}

    def look(self):
        for name, kib in self.im.rss_kib().items():
            self.most[name] = max(self.most.get(name, 0), kib - self.before.get(name, 0))

    def check(self):
        self.look()
        print("growth in KiB:", self.most)
        if SANITIZED:
            return
        assert self.most["mosquitto"] < BROKER_GROWTH, self.most
        assert self.most["im-offline"] < SERVICE_GROWTH, self.most


def blast(im, user, to, count, body, window=500, look=None):
    """Sends with ids over one connection, a window of PUBACKs open. Returns the ids in order."""
    prefix = uuid.uuid4().hex[:8]
    ids = [f"{prefix}-{i}" for i in range(count)]
    open_ = 0
    with Raw(im.port, user, f"{user}:blast{prefix}", im.users[user]) as c:
        assert c.rc == 0
        for at in range(0, count, 100):
            c.socket.sendall(b"".join(c.publish_packet(f"im/v1/to/{to}/{i}", body) for i in ids[at:at + 100]))
            open_ += len(ids[at:at + 100])
            while open_ > window or (at + 100 >= count and open_):
                kind, _, _ = c.read(30)
                open_ -= kind == PUBACK
            if look and at % 2000 == 0:
                look()
    return ids


def wait_until(what, seconds=30, step=0.1):
    deadline = time.monotonic() + seconds
    while True:
        got = what()
        if got or time.monotonic() > deadline:
            return got
        time.sleep(step)


def stored(im, user="alice", conv="u/bob"):
    return im.history(user, conv)


def drain(raw, wanted, seconds=60):
    """Reads until all wanted ids came; returns them in the order of their first arrival."""
    got, missing = [], set(wanted)
    deadline = time.monotonic() + seconds
    while missing:
        topic, payload = raw.message(max(0.001, deadline - time.monotonic()))
        if not topic.startswith("im/v1/in/msg/"):
            continue
        mid = json.loads(payload)["id"]
        if mid in missing:
            missing.discard(mid)
            got.append(mid)
    return got


def test_receiver_that_stops_reading_costs_little_and_gets_everything_later(im):
    growth = Growth(im)
    lazy = Raw(im.port, "bob", "bob:lazy", im.users["bob"], receive_buffer=4096)
    lazy.subscribe("im/v1/in/#")
    ids = blast(im, "alice", "u/bob", MESSAGES, "z" * 100, look=growth.look)
    with Client(im, "carol", "other") as carol, Client(im, "dave", "other") as dave:
        carol.subscribe("im/v1/in/msg/#")
        for i in range(20):  # others are as quick as ever
            began = time.monotonic()
            dave.publish("im/v1/to/u/carol", f"beside {i}")
            while carol.json("im/v1/in/msg/u/dave")["body"] != f"beside {i}":
                pass
            assert time.monotonic() - began < (5 if SANITIZED else 1)
    growth.check()
    got = read_acking(lazy, "u/alice", ids[-1])  # a silent device would get what is over the budget a settle period later
    assert got == ids
    lazy.close()
    growth.check()


def read_acking(raw, conv, last, seconds=60):
    """Ids in the order of their first arrival, until `last`; acknowledges as a good client does."""
    got, newest, acked, deadline = [], 0, 0, time.monotonic() + seconds
    while not got or got[-1] != last:
        topic, payload = raw.message(max(0.001, deadline - time.monotonic()))
        if not topic.startswith("im/v1/in/msg/" + conv):
            continue
        m = json.loads(payload)
        if m["seq"] > newest:
            assert m.get("prev", 0) == newest
            got.append(m["id"])
            newest = m["seq"]
        if newest - acked >= WINDOW // 2:
            acked = newest
            raw.socket.sendall(raw.publish_packet("im/v1/ack", json.dumps([{"conv": conv, "delivered": newest}]), 0))
    return got


def test_receiver_that_stops_reading_and_is_cut_gets_everything_after_reconnect(im):
    lazy = Raw(im.port, "carol", "carol:cut", im.users["carol"], receive_buffer=4096)
    lazy.subscribe("im/v1/in/#")
    ids = blast(im, "alice", "u/carol", 3000, "z" * 100)
    lazy.close()
    with Raw(im.port, "carol", "carol:cut", im.users["carol"]) as again:
        again.subscribe("im/v1/in/#")
        assert drain(again, ids) == ids


def test_device_that_acked_once_and_then_never_is_held_at_its_window(im):
    im.users.update(im.add_users(["erin"]))
    with Raw(im.port, "erin", "erin:mute", im.users["erin"]) as mute:
        mute.subscribe("im/v1/in/#")
        first = blast(im, "bob", "u/erin", 1, "first")
        drain(mute, first)
        seq = stored(im, "erin", "u/bob")[-1]["seq"]
        mute.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": seq}]))
        ids = blast(im, "bob", "u/erin", 500, "x")
        wait_until(lambda: stored(im, "erin", "u/bob")[-1]["id"] == ids[-1])
        seen, deadline = [], time.monotonic() + 2
        try:
            while True:
                topic, payload = mute.message(max(0.001, deadline - time.monotonic()))
                if topic.startswith("im/v1/in/msg/u/bob"):
                    seen.append(json.loads(payload)["seq"])
        except (socket.timeout, TimeoutError):
            pass
        assert len(set(seen)) == WINDOW and len(seen) <= 2 * WINDOW, len(seen)  # the window, and one repeat of each
        mute.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": max(seen)}]))
        got = 0
        while got < 500 - WINDOW:  # acking again opens it again
            topic, payload = mute.message(10)
            if topic.startswith("im/v1/in/msg/u/bob") and json.loads(payload)["seq"] > max(seen):
                seen.append(json.loads(payload)["seq"])
                got += 1
                if got % WINDOW == 0:
                    mute.publish("im/v1/ack", json.dumps([{"conv": "u/bob", "delivered": max(seen)}]))
        assert sorted(set(seen)) == list(range(seq + 1, seq + 501))


def is_behind(im, user, client_id):
    rows = [json.loads(line) for line in im.imctl("--json", "session", "list", user).stdout.splitlines()]
    return [r["behind"] for r in rows if r["client_id"] == client_id] == [True]


def swallow(raw):
    """Reads whatever there is; what has not settled comes again."""
    try:
        while True:
            raw.message(0.05)
    except TimeoutError:
        pass


@pytest.mark.parametrize("websocket", [False, True])
def test_receiver_that_stops_reading_is_known_to_be_behind_until_it_has_read(im, websocket):
    """Nothing settles of such a session, and it gets no new budget: tests/slow, delivery_test.c."""
    user = f"lazy{websocket:d}"
    im.users.update(im.add_users([user]))
    port = im.ws_port if websocket else im.port
    with Raw(port, user, f"{user}:d", im.users[user], receive_buffer=4096, websocket=websocket) as lazy:
        lazy.subscribe("im/v1/in/#")
        ids = blast(im, "alice", f"u/{user}", 3000, "z" * 1000)
        assert wait_until(lambda: is_behind(im, user, f"{user}:d"))
        assert drain(lazy, ids) == ids
        assert wait_until(lambda: swallow(lazy) or not is_behind(im, user, f"{user}:d"))


def test_stored_session_that_never_acknowledged_packets_gets_what_waits_first(im):
    """Reading without PUBACK leaves all in the broker; coming again for more must not pile up a second budget there."""
    im.users.update(im.add_users(["hoarder"]))
    connect = {"user": "hoarder", "client_id": "hoarder:d", "password": im.users["hoarder"], "clean": False}
    with Raw(im.port, **connect) as hoarder:
        hoarder.subscribe("im/v1/in/#")
        ids = blast(im, "alice", "u/hoarder", 3000, "z" * 1000)
        assert wait_until(lambda: is_behind(im, "hoarder", "hoarder:d"))
    with Raw(im.port, **connect):
        assert wait_until(lambda: is_behind(im, "hoarder", "hoarder:d"))
    with Raw(im.port, **connect) as hoarder:
        assert drain(hoarder, ids) == ids
        assert wait_until(lambda: swallow(hoarder) or not is_behind(im, "hoarder", "hoarder:d"))


@pytest.fixture
def slow_rates(im):
    """Live settings: down for a test, back after it."""
    conf = im.dir / "broker.conf"
    before = conf.read_text()
    conf.write_text(before.replace("im_rate_user 200000", "im_rate_user 100").replace("im_rate_connection 200000", "im_rate_connection 100"))
    reload(im, "im_rate_user")
    yield
    conf.write_text(before)
    reload(im, "im_rate_user")


def reload(im, _what):
    log = im.dir / "log/mosquitto.log"
    seen = log.read_text().count("evt=reload")
    im.kill("mosquitto", signal.SIGHUP)
    assert wait_until(lambda: log.read_text().count("evt=reload") > seen, 10)


@pytest.mark.parametrize("v5", [False, True])
def test_flooding_sender_is_refused_with_reasons_and_what_was_taken_is_stored(im, slow_rates, v5):
    ids = [f"flood-{v5}-{i}" for i in range(280)]  # below im_rate_refusals: it stays connected
    refused, by_code = set(), set()
    with Raw(im.port, "alice", f"alice:flood{v5}", im.users["alice"], v5=v5) as c:
        c.subscribe("im/v1/in/err")
        sent = {}
        for i in ids:
            frame = c.publish_packet(f"im/v1/to/u/bob/{i}", "x")
            sent[c.mid] = i
            c.socket.sendall(frame)
        acked, deadline = 0, time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                kind, flags, body = c.read(1.0 if acked == len(ids) else 5)
            except (socket.timeout, TimeoutError):
                break
            if kind == PUBACK:
                acked += 1
                if len(body) > 2 and body[2] >= 0x80:
                    assert body[2] == 0x87
                    by_code.add(sent[struct.unpack("!H", body[:2])[0]])
            elif kind == PUBLISH:
                topic, payload = c.take(flags, body)
                e = json.loads(payload)
                assert e["code"] == "too_fast" and e["reason"] and e["fix"]
                refused.add(e["id"])
    assert acked == len(ids), "every publish is answered"
    if v5:
        assert by_code == refused
    assert 50 < len(refused) < 280
    taken = [i for i in ids if i not in refused]
    assert wait_until(lambda: set(taken) <= {m["id"] for m in stored(im)}), "taken and lost"
    assert not refused & {m["id"] for m in stored(im)}, "refused and stored"


def test_sender_that_ignores_refusals_is_closed_and_can_come_back(im, slow_rates):
    with Raw(im.port, "alice", "alice:deaf", im.users["alice"]) as c:
        with pytest.raises(OSError):
            for i in range(20000):
                c.socket.sendall(c.publish_packet("im/v1/to/u/bob", "x"))
    time.sleep(1)
    with Client(im, "alice", "deaf") as alice:
        alice.subscribe("im/v1/in/err")
        assert alice.json("im/v1/in/err")["code"] == "too_fast"
        alice.publish("im/v1/to/u/bob", "after")


def folder_bytes(path):
    total = 0
    for root, _, files in os.walk(path):
        for f in files:
            try:
                total += os.stat(os.path.join(root, f)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def test_overload_with_the_service_stopped_refuses_and_keeps_memory_flat(im):
    body = b"o" * 20000
    im.kill("im-offline", signal.SIGSTOP)
    taken, closed, sent = [], 0, 0
    try:
        growth = Growth(im)
        deadline = time.monotonic() + 60
        while closed < 3 and time.monotonic() < deadline:  # 3.1.1: a full journal closes the connection
            try:
                with Raw(im.port, "dave", "dave:over", im.users["dave"]) as c:
                    while True:
                        mid = f"over-{sent}"
                        sent += 1
                        c.publish(f"im/v1/to/u/carol/{mid}", body)
                        taken.append(mid)
                        if sent % 500 == 0:
                            growth.look()
            except OSError:
                closed += 1
        assert closed == 3, "the journal never got full"
        growth.check()
        assert folder_bytes(im.dir / "journal") <= JOURNAL_MOST
    finally:
        im.kill("im-offline", signal.SIGCONT)
    assert wait_until(lambda: set(taken) <= {m["id"] for m in stored(im, "dave", "u/carol")}, 60, 1), "accepted and lost"
    order = [m["id"] for m in stored(im, "dave", "u/carol") if (m["id"] or "").startswith("over-")]
    assert [i for i in order if i in set(taken)] == taken
    with Client(im, "dave", "over") as dave:  # the closed connections are explained
        dave.subscribe("im/v1/in/#")
        assert dave.json("im/v1/in/err")["code"] == "journal_full"
        mid = uuid.uuid4().hex
        dave.publish(f"im/v1/to/u/carol/{mid}", "again")
        while mid not in {a["id"] for a in dave.json("im/v1/in/ack")}:
            pass


def test_what_is_delivered_and_indexed_leaves_no_logs_behind(im):
    """After all of the above: journal and message log are back to their least."""
    def least():
        segments = list((im.dir / "journal").glob("*.seg"))
        logs = list((im.dir / "store/log").glob("*.log"))
        return len(segments) <= 3 and len(logs) <= 2

    assert wait_until(least, 30, 0.5), (sorted((im.dir / "journal").iterdir()), sorted((im.dir / "store/log").iterdir()))

    def small():  # SQLite shortens its write-ahead log at the first commit behind a checkpoint
        im.imctl("send", "alice", "u/bob", "one more")
        return folder_bytes(im.dir) - (im.dir / "store/store.db").stat().st_blocks * 512 < FOLDER_AT_REST

    assert wait_until(small, 30, 1), sorted((p.stat().st_size, p.name) for p in im.dir.rglob("*") if p.is_file())[-12:]
