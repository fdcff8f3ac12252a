"""Backups of a running instance and what becomes of them: what is in them, restoring, and being killed at any moment."""
import json
import os
import pathlib
import random
import signal
import stat
import subprocess
import threading
import time

import pytest

from client import Client
from instance import BUILD, ROOT, Failed, Instance

CONF = ("plugin_opt_im_hash_memory 8", "plugin_opt_im_hash_passes 1", "plugin_opt_im_login_burst 1000")
DONE, REFUSED, USAGE, NOT_FOUND, EXISTS, UNAVAILABLE = range(6)
JUMP = 1 << 50  # restored sequences go on above the time in microseconds or so


@pytest.fixture
def place(tmp_path):
    return tmp_path


@pytest.fixture
def im():
    with Instance(conf=CONF) as instance:
        instance.users = instance.add_users(["alice", "bob"])
        yield instance


class Sender(threading.Thread):
    """Bob sends numbered messages to alice until stopped; knows which were stored (ack event), and when."""

    def __init__(self, im, user="bob", device="load", to="u/alice", window=50):
        super().__init__(daemon=True)
        self.im, self.user, self.device, self.to, self.window = im, user, device, to, window
        self.acked, self.lock, self.done = {}, threading.Lock(), threading.Event()
        self.sent = 0

    def run(self):
        with Client(self.im, self.user, self.device) as c:
            c.subscribe("im/v1/in/ack")
            open_ids = set()
            while not self.done.is_set() or open_ids:
                while len(open_ids) < self.window and not self.done.is_set():
                    self.sent += 1
                    mid = f"{self.device}-{self.sent}"
                    c.mqtt.publish(f"im/v1/to/{self.to}/{mid}", f"text {mid}", 1)
                    open_ids.add(mid)
                try:
                    for a in json.loads(c.next("im/v1/in/ack", 10).payload):
                        open_ids.discard(a["id"])
                        with self.lock:
                            self.acked[a["id"]] = a["seq"]
                except AssertionError:
                    return

    def stored(self):
        with self.lock:
            return dict(self.acked)

    def stop(self):
        self.done.set()
        self.join(30)


def send(im, n, device="pc", start=0):
    """n messages of bob to alice, stored; {id: seq}."""
    out = {}
    with Client(im, "bob", device) as c:
        c.subscribe("im/v1/in/ack")
        for i in range(start, start + n):
            c.mqtt.publish(f"im/v1/to/u/alice/{device}-{i}", f"text {device}-{i}", 1)
        while len(out) < n:
            for a in json.loads(c.next("im/v1/in/ack", 20).payload):
                out[a["id"]] = a["seq"]
    return out


def history(im, user="alice", conv="u/bob"):
    return {m["id"]: m for m in im.history(user, conv)}


def restored(file, conf=CONF, *options, base=None):
    """A new instance from a backup, not started."""
    new = Instance(conf=conf)
    p = new.imctl("restore", str(file), *options, check=False)
    if p.returncode != DONE:
        new.remove()
        raise Failed(p.stderr)
    new.users = base.users if base else {}
    return new


def store_of(im):
    return json.loads(im.imctl("status", "--json").stdout)["service"]["store_epoch"]


def test_a_backup_is_made_checked_and_not_overwritten(im, place):
    send(im, 20)
    file = place / "one.backup"
    assert "20 messages" in im.imctl("backup", str(file)).stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert im.imctl("backup", str(file), check=False).returncode == EXISTS
    whole = file.read_bytes()
    assert im.imctl("backup", str(file), "--force", check=False).returncode == DONE
    assert file.read_bytes() != whole and not list(place.glob("*.unfinished"))
    assert json.loads(im.imctl("backup", str(file), "--verify", "--json").stdout)["store_epoch"] == store_of(im)
    assert im.imctl("backup", str(place / "no/such/folder"), check=False).returncode == REFUSED
    for damage in (whole[:-1], whole[:len(whole) // 2], whole + b"x", b"", b"not a backup" * 10,
                   whole[:len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1:]):
        bad = place / "bad"
        bad.write_bytes(damage)
        p = im.imctl("backup", "--verify", str(bad), check=False)
        assert p.returncode == REFUSED and str(bad) in p.stderr, p.stderr
    assert im.imctl("backup", "--verify", str(place / "none"), check=False).returncode == NOT_FOUND


def test_what_was_stored_before_is_in_it_and_sequences_are_never_given_again(im, place):
    """Under load; then a device that knew more than the backup sees the new store in its welcome."""
    sender = Sender(im)
    sender.start()
    while len(sender.stored()) < 2000:
        time.sleep(0.01)
    before = sender.stored()
    im.imctl("backup", str(place / "b"))
    sender.stop()
    after = sender.stored()
    store = store_of(im)
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        assert c.json("im/v1/in/evt/welcome")["store"] == store
    newest = max(after.values())
    with restored(place / "b", base=im) as new:
        now = history(new)
        assert set(before) <= set(now), "stored before the backup began, and not in it"
        assert all(m["seq"] == after[i] for i, m in now.items())
        seqs = sorted(m["seq"] for m in now.values())
        prev = {m["seq"]: m.get("prev", 0) for m in now.values()}
        assert all(prev[b] == a for a, b in zip(seqs, seqs[1:])), "a hole"
        assert store_of(new) != store
        with Client(new, "alice", "phone") as c:
            c.subscribe("im/v1/in/#")
            assert c.json("im/v1/in/evt/welcome")["store"] == store_of(new)
            again = send(new, 5, "load", start=1)  # the same ids and bodies as before the backup: known
            assert all(again[i] == before[i] for i in again)
            fresh = send(new, 50, "new")
            assert min(fresh.values()) > max(newest, JUMP)
            for _ in fresh:
                c.next("im/v1/in/msg/u/bob")
        assert len(history(new)) == len(now) + 50
        new.imctl("backup", str(place / "c"))  # of a restored one
        with restored(place / "c", base=im) as third:
            assert len(history(third)) == len(now) + 50
            assert min(send(third, 3, "third").values()) > max(fresh.values())


def test_restore_puts_the_old_store_aside_and_takes_the_journal_in(im, place):
    """A disaster after the backup: what the broker still has in its journal comes again."""
    first = send(im, 50)
    im.imctl("backup", str(place / "b"))
    late = send(im, 30, "late")
    os.kill(im.pids()["im-offline"], signal.SIGSTOP)
    with Client(im, "bob", "pc") as c:
        for i in range(40):
            c.publish(f"im/v1/to/u/alice/lost-{i}", f"text lost-{i}")  # PUBACK: in the journal, and nowhere else
    p = im.imctl("restore", str(place / "b"), "--force", check=False)
    assert p.returncode == REFUSED and "running" in p.stderr
    im.kill("im-offline")
    os.killpg(im.process.pid, signal.SIGKILL)
    im.process.wait()
    deadline = time.monotonic() + 10
    while im.imctl("restore", str(place / "b"), check=False).returncode != EXISTS:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said = json.loads(im.imctl("restore", str(place / "b"), "--force", "--json").stdout)
    assert pathlib.Path(said["old_store"]).is_dir() and said["messages"] == 50
    im.start()
    deadline = time.monotonic() + 20
    while len(history(im)) < 120 and time.monotonic() < deadline:
        time.sleep(0.1)
    now = history(im)
    assert set(now) == set(first) | set(late) | {f"lost-{i}" for i in range(40)}
    assert all(now[i]["seq"] == first[i] for i in first)
    assert all(now[i]["seq"] > max(late.values()) for i in set(now) - set(first))
    assert min(send(im, 3, "then").values()) > max(m["seq"] for m in now.values())
    im.stop()
    im.imctl("restore", str(place / "b"), "--force", "--discard-journal")
    im.start()
    assert set(history(im)) == set(first)


def test_a_journal_that_goes_on_behind_the_backup_is_no_hole():
    """The journal's first files were removed after the backup: what is left of it is taken in all the same."""
    conf = CONF + ("plugin_opt_im_segment_bytes 8m", "plugin_opt_im_journal_limit 64m", "plugin_opt_im_rate_user 0", "plugin_opt_im_rate_connection 0")
    with Instance(conf=conf) as im:
        im.users = im.add_users(["alice", "bob"])
        send(im, 10)
        file = im.dir / "b"
        im.imctl("backup", str(file))
        with Client(im, "bob", "big") as c:
            c.subscribe("im/v1/in/ack")
            for n in range(10):  # some at a time: the next segment must be ready in time
                for i in range(20):
                    c.mqtt.publish(f"im/v1/to/u/alice/big-{n}-{i}", b"x" * 100000, 1)
                seen = 0
                while seen < 20:
                    seen += len(json.loads(c.next("im/v1/in/ack", 30).payload))
                time.sleep(0.1)
        send(im, 5, "last")
        deadline = time.monotonic() + 10
        while len(list((im.dir / "journal").glob("*-000000.seg"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not list((im.dir / "journal").glob("*-000000.seg"))
        im.stop()
        im.imctl("restore", str(file), "--force")
        im.start()
        deadline = time.monotonic() + 20
        while "last-4" not in history(im) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert {f"last-{i}" for i in range(5)} <= set(history(im))
        send(im, 3, "then")


@pytest.mark.parametrize("victim", ["mosquitto", "im-seqgen", "im-offline"])
def test_kills_during_a_backup(im, place, victim):
    """Right before and during: there is a whole file or none, and the next one is made."""
    sent = send(im, 3000)
    for delay in (0, 0.01, 0.03, 0.06):
        file = place / f"{victim}-{delay}"
        if delay == 0:
            im.kill(victim)
        p = subprocess.Popen([str(ROOT / "scripts/imctl"), "--dir", str(im.dir), "backup", str(file)], env=im.environment(),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if delay:
            time.sleep(delay)
            im.kill(victim)
        _, err = p.communicate(timeout=60)
        assert p.returncode in (DONE, REFUSED, UNAVAILABLE), err
        assert p.returncode == DONE or err
        if p.returncode == DONE:
            assert file.exists()
        if file.exists():
            assert im.imctl("backup", "--verify", str(file), check=False).returncode == DONE
        deadline = time.monotonic() + 30
        while im.imctl("backup", str(file), "--force", check=False).returncode != DONE:
            assert time.monotonic() < deadline, "no backup after the kill"
            time.sleep(0.2)
    with restored(file, base=im) as new:
        assert {i: m["seq"] for i, m in history(new).items()} == sent


def test_a_restore_that_is_killed_is_run_again(im, place):
    """At many moments: before it is ended the old data is whole, or the start says what to do."""
    sent = send(im, 3000)
    file = place / "b"
    im.imctl("backup", str(file))
    late = send(im, 10, "late")
    im.stop()
    rng = random.Random(7)
    target = pathlib.Path(place / "new")
    command = [str(BUILD / "bin/imctl")]
    began = time.monotonic()
    subprocess.run([*command, "--dir", str(place / "probe"), "restore", str(file)], check=True, capture_output=True)
    whole = time.monotonic() - began
    ended = 0
    for _ in range(25):
        for folder, force in ((target, []), (im.dir, ["--force", "--discard-journal"])):
            p = subprocess.Popen([*command, "--dir", str(folder), "restore", str(file), *force], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(rng.uniform(0, whole))
            p.kill()
            p.communicate()
            ended += p.returncode == 0
        assert (im.dir / "store/store.db").exists(), "no store at all"
    if not (target / "store").exists():
        new = Instance(conf=CONF, keep_dir=target)
        with pytest.raises(Failed, match="restore"):
            new.start(timeout=8)
    im.start()
    now = set(history(im))
    assert now in (set(sent) | set(late), set(sent)), "neither the old data nor the backup's"
    im.stop()
    im.imctl("restore", str(file), "--force", "--discard-journal")
    im.start()
    assert {i: m["seq"] for i, m in history(im).items()} == sent
    p = subprocess.run([*command, "--dir", str(target), "restore", str(file), "--force"], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    assert not (target / "store.restoring").exists()
    print(f"restores that ended before their kill: {ended} of 50")


def test_a_full_disk_leaves_no_file_and_disturbs_nobody(im, place):
    tiny = place / "tiny"
    tiny.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tiny)], capture_output=True).returncode != 0:
        pytest.skip("may not mount")
    try:
        with Client(im, "bob", "pc") as c:
            for i in range(40):
                c.publish("im/v1/to/u/alice", b"x" * 100000)
        p = im.imctl("backup", str(tiny / "b"), check=False)
        assert p.returncode == REFUSED and "No space left" in p.stderr
        assert list(tiny.iterdir()) == []
        send(im, 5)
        im.imctl("backup", str(place / "b"))
    finally:
        subprocess.run(["umount", str(tiny)], check=True)


def test_refusals(im, place):
    im.imctl("backup", str(place / "b"))
    (place / "c.unfinished").write_text("something precious")
    assert im.imctl("backup", str(place / "c"), check=False).returncode == EXISTS
    assert (place / "c.unfinished").read_text() == "something precious"
    im.stop()
    assert im.imctl("backup", str(place / "d"), check=False).returncode == UNAVAILABLE
    assert im.imctl("restore", str(place / "none"), "--force", check=False).returncode == NOT_FOUND
    half = place / "half"
    half.write_bytes((place / "b").read_bytes()[:-40])
    p = im.imctl("restore", str(half), "--force", check=False)
    assert p.returncode == REFUSED and "not whole" in p.stderr
    conf = (im.dir / "broker.conf").read_text()
    (im.dir / "broker.conf").write_text(conf + "plugin_opt_im_node 7\n")
    p = im.imctl("restore", str(place / "b"), "--force", check=False)
    assert p.returncode == REFUSED and "node" in p.stderr
    (im.dir / "broker.conf").write_text(conf)
    im.start()
    assert im.imctl("user", "show", "alice").returncode == DONE  # nothing was touched
