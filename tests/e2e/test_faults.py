"""Full, read-only, damaged: a clear sentence, nothing acknowledged lost, and no repair by hand once the cause is gone.

The full disk is a small tmpfs of the test's own, so these tests need root.
"""
import contextlib
import json
import os
import pathlib
import pwd
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import uuid

import pytest

from client import Client
from instance import Failed, Instance
from raw import Raw

SMALL = ("plugin_opt_im_journal_limit 64m", "plugin_opt_im_segment_bytes 8m", "plugin_opt_im_hash_memory 8", "plugin_opt_im_hash_passes 1")
DISK = 96 << 20  # of the tmpfs: two segments each of journal and message log, and room for rows
NAMES = ("alice", "bob")


def wait_until(what, seconds=40, step=0.1):
    deadline = time.monotonic() + seconds
    while True:
        got = what()
        if got or time.monotonic() > deadline:
            return got
        time.sleep(step)


def prepare(instance):
    instance.users = instance.add_users(NAMES)
    return instance


@contextlib.contextmanager
def small_disk(size):
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted, which needs root")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="im-disk-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@contextlib.contextmanager
def on_disk(size=DISK, conf=SMALL):
    """A running instance on a disk of its own."""
    with small_disk(size) as folder:
        (folder / "d").mkdir()
        instance = Instance(conf=conf, keep_dir=folder / "d")
        try:
            yield prepare(instance.start())
        except BaseException:
            print(instance.logs())
            raise
        finally:
            instance.stop()


@contextlib.contextmanager
def full_disk(folder):
    """No byte is left on the disk until the end of the block."""
    hog = folder / "hog"
    with open(hog, "wb", buffering=0) as f:
        for size in (1 << 16, 4096):
            with contextlib.suppress(OSError):
                while True:
                    f.write(b"\0" * size)
    try:
        yield
    finally:
        hog.unlink()


def full(instance):
    return full_disk(instance.dir.parent)


def log_of(instance):
    return "".join(p.read_text(errors="replace") for p in (instance.dir / "log").glob("*"))


class Sender:
    """Sends until it is refused; remembers what was acknowledged and not refused."""

    def __init__(self, instance, body, v5):
        self.im, self.body, self.v5 = instance, body, v5
        self.taken, self.errors, self.n = [], [], 0

    def until_refused(self, most=4000, seconds=30):
        """MQTT 5: until a reason code says no; 3.1.1: until the connection is closed."""
        deadline = time.monotonic() + seconds
        try:
            with Raw(self.im.port, "alice", "alice:faults", self.im.users["alice"], v5=self.v5) as c:
                for _ in range(most):
                    mid = f"f{self.n}"
                    self.n += 1
                    code = c.publish(f"im/v1/to/u/bob/{mid}", self.body)
                    if code >= 0x80:
                        assert code == 0x87, code
                        self.errors.append(json.loads(c.message()[1]))
                        return True
                    self.taken.append(mid)
                    assert time.monotonic() < deadline, "never refused"
        except OSError:
            return True
        return False

    def check(self):
        """All that was taken is stored once, in order."""
        want = set(self.taken)
        assert wait_until(lambda: want <= {m["id"] for m in self.im.history("alice", "u/bob")}, 60, 0.5), "acknowledged and lost"
        order = [m["id"] for m in self.im.history("alice", "u/bob") if m["id"] in want]
        assert order == self.taken


def works(instance, seconds=40):
    """A message is taken, stored and delivered; returns when it is."""
    def once():
        try:
            with Client(instance, "alice", "again") as alice:
                alice.subscribe("im/v1/in/ack")
                mid = uuid.uuid4().hex
                alice.publish(f"im/v1/to/u/bob/{mid}", "again", timeout=3)
                return any(a["id"] == mid for a in alice.json("im/v1/in/ack", 3))
        except (AssertionError, OSError, ValueError, RuntimeError):
            return False
    return wait_until(once, seconds, 0.3)


def explained(instance):
    with Client(instance, "alice", "faults") as alice:
        alice.subscribe("im/v1/in/err")
        return alice.json("im/v1/in/err")


@pytest.mark.parametrize("v5", [False, True])
def test_disk_full_under_the_journal(v5):
    """The service stands still, so that the journal is what needs room."""
    with on_disk() as im:
        im.kill("im-offline", signal.SIGSTOP)
        sender = Sender(im, b"j" * 50000, v5)
        try:
            with full(im):
                assert sender.until_refused()
                assert sender.taken, "what had its place already is still taken"
                assert wait_until(lambda: "No space left" in log_of(im)), "the log does not say why"
        finally:
            im.kill("im-offline", signal.SIGCONT)
        assert works(im)
        e = sender.errors[0] if v5 else explained(im)  # 3.1.1: the connection was closed, the reason comes with the next
        assert e["code"] == "journal_full" and "No space left" in e["reason"] and e["fix"], e
        sender.check()


def test_disk_full_under_the_message_log_the_rows_and_the_sequences():
    """All of them run out at once: the broker goes on taking what fits into its journal, and all of it arrives."""
    with on_disk() as im:
        sender = Sender(im, b"l" * 20000, True)
        with full(im):
            sender.until_refused()
            assert sender.taken
            said = (im.dir / "log/im-offline.log").read_text
            assert wait_until(lambda: "No space left" in said() or "disk is full" in said()), "the log does not say why"
            time.sleep(2)  # restarts of the service meanwhile
        assert works(im)
        sender.check()
        assert im.stop() == 0
        im.start()
        sender.check()


def test_disk_full_under_the_sequences():
    """They have a disk of their own here. A service that starts asks for leases, which cannot be written; it goes on by itself later."""
    with small_disk(1 << 20) as folder:
        with Instance(conf=(*SMALL, f"plugin_opt_im_sequences sqlite:{folder}/sequences.db")) as im:
            prepare(im)
            sender = Sender(im, b"q" * 100, True)
            sender.until_refused(most=50)
            said = (im.dir / "log/im-seqgen.log").read_text
            with full_disk(folder):
                im.kill("im-offline")
                assert wait_until(lambda: "disk is full" in said()), im.logs()
                assert not sender.until_refused(most=50)
            assert works(im)
            sender.check()
            seqs = [m["seq"] for m in im.history("alice", "u/bob")]
            assert len(set(seqs)) == len(seqs) and seqs == sorted(seqs)


def test_disk_full_under_the_roster():
    with on_disk() as im:
        with full(im):
            results = [im.imctl("user", "add", f"full{i}", stdin="pw\n", check=False) for i in range(40)]
        bad = [p for p in results if p.returncode != 0]
        assert all(p.returncode == 5 and p.stderr.strip() for p in bad), [(p.returncode, p.stderr) for p in bad]
        assert works(im)
        assert wait_until(lambda: im.imctl("user", "add", "later", stdin="pw\n", check=False).returncode in (0, 4), 20, 0.5)
        im.stop()
        im.start()
        for i, p in enumerate(results):
            if p.returncode == 0:
                assert im.imctl("user", "show", f"full{i}", check=False).returncode == 0, "confirmed and lost"
        login(im, "later", "pw", 0)


def login(instance, user, password, rc):
    with Raw(instance.port, user, f"{user}:login", password) as c:
        assert c.rc == rc


def test_start_on_a_full_disk_says_so_and_works_when_there_is_room():
    with on_disk() as im:
        sender = Sender(im, b"s" * 1000, True)
        sender.until_refused(most=100)
        im.stop()
        with full(im):
            with pytest.raises(Failed) as e:
                im.start(timeout=30)
            assert "No space left" in str(e.value) or "disk is full" in str(e.value), str(e.value)[-2000:]
        im.start()
        sender.check()
        assert works(im)


def test_file_size_limit_of_the_service_is_like_a_full_disk():
    """RLIMIT_FSIZE: writing fails and no process is killed by it; nothing is lost."""
    with Instance(conf=SMALL) as im:
        prepare(im)
        pid = im.pids()["im-offline"]
        was = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 << 10, was[1]))
        sender = Sender(im, b"r" * 1000, True)
        sender.until_refused(most=500)
        assert wait_until(lambda: "File too large" in log_of(im)), "the log does not say why"
        assert wait_until(lambda: im.pids().get("im-offline") not in (None, pid)), "the service is not started again"
        assert works(im)
        sender.check()
        assert "signal 25" not in log_of(im)


# ---- what cannot be used

def refused_start(im, *words):
    with pytest.raises(Failed) as e:
        im.start(timeout=30)
    text = str(e.value)
    for w in words:
        assert w in text, f"no {w!r} in:\n{text[-3000:]}"
    return text


@contextlib.contextmanager
def stopped():
    """A stopped instance with a few messages; afterwards it must run again with all of them."""
    im = Instance(conf=SMALL)
    try:
        prepare(im.start())
        with Client(im, "alice", "before") as alice:
            alice.subscribe("im/v1/in/ack")
            for i in range(20):
                alice.publish(f"im/v1/to/u/bob/kept{i}", f"kept {i}")
            while alice.json("im/v1/in/ack")[-1]["id"] != "kept19":
                pass
        assert im.stop() == 0
        yield im
    except BaseException:
        print(im.logs())
        raise
    finally:
        im.remove()


def all_there(im):
    assert [m["id"] for m in im.history("alice", "u/bob")][:20] == [f"kept{i}" for i in range(20)]
    assert works(im)


FILES_IN_THE_WAY = ["run", "log", "journal", "store", "store/log", "sequences.db", "roster"]


@pytest.mark.parametrize("name", FILES_IN_THE_WAY)
def test_something_else_in_the_place_of_a_file_or_folder_is_named(name):
    """A directory where a file belongs, and the other way round."""
    with stopped() as im:
        path = im.dir / name
        aside = im.dir.parent / (im.dir.name + "-aside")
        is_dir = path.is_dir()
        shutil.move(path, aside)
        try:
            path.write_text("") if is_dir else path.mkdir()
            refused_start(im, str(path))
        finally:
            path.unlink() if is_dir else path.rmdir()
            shutil.move(aside, path)
        im.start()
        all_there(im)


@pytest.mark.parametrize("setting", ["im_store", "im_sequences"])
def test_path_whose_folder_is_missing_is_named(setting):
    with stopped() as im:
        conf = im.dir / "broker.conf"
        good = conf.read_text()
        conf.write_text(f"{good}plugin_opt_{setting} sqlite:{im.dir}/not/there\n")
        refused_start(im, f"{im.dir}/not/there")
        conf.write_text(good)
        im.start()
        all_there(im)


def test_read_only_state_is_named_and_nothing_is_changed():
    if os.geteuid() != 0:
        pytest.skip("a read-only mount needs root")
    with stopped() as im:
        if subprocess.run(["mount", "--bind", str(im.dir), str(im.dir)], capture_output=True).returncode != 0:
            pytest.skip("mounting is not allowed here")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(im.dir)], check=True, capture_output=True)
            text = refused_start(im, str(im.dir))
            assert "Read-only" in text or "cannot" in text
        finally:
            subprocess.run(["umount", "-l", str(im.dir)], check=True)
        im.start()
        all_there(im)


def test_state_of_somebody_else_is_named():
    """The same as another user: what a wrong chown or a wrong unit file does."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    nobody = pwd.getpwnam("nobody")
    with stopped() as im:
        for path in (im.dir, im.dir / "conf.d"):
            path.chmod(0o755)  # the configuration can be read; the state cannot be written
        supervisor = im.dir / "im-supervisor"  # the checkout may be where others may not go
        shutil.copy(im.environment()["IM_BUILD"] + "/bin/im-supervisor", supervisor)
        for path in (im.dir / "broker.conf", im.dir / "conf.d/listeners.conf"):
            path.chmod(0o644)
        p = subprocess.run([supervisor, "--config", str(im.dir / "broker.conf")], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
                           capture_output=True, text=True, timeout=30, cwd="/")
        assert p.returncode != 0 and str(im.dir) in p.stderr and "ermission denied" in p.stderr, p.stderr
        supervisor.unlink()
        im.dir.chmod(0o700)
        im.start()
        all_there(im)


# ---- damage

def flip(path, at, n=8):
    with open(path, "r+b") as f:
        f.seek(at)
        was = f.read(n)
        f.seek(at)
        f.write(bytes(b ^ 0xff for b in was))


def last_data(path):
    """Offset of the last byte that is not zero."""
    data = path.read_bytes()
    return len(data.rstrip(b"\0")) - 1


def test_damaged_end_of_the_journal_is_cut_and_the_rest_is_there():
    """All is killed at once, so that the journal holds what the store never saw; then its last record is damaged."""
    with stopped() as im:
        im.start()
        im.kill("im-offline", signal.SIGSTOP)
        with Client(im, "alice", "journal") as alice:
            for i in range(20):
                alice.publish(f"im/v1/to/u/bob/j{i}", f"j {i}")
        kill_all(im)
        segment = max((p for p in (im.dir / "journal").glob("*.seg") if b"j 19" in p.read_bytes()), key=lambda p: p.name)
        flip(segment, last_data(segment) - 3, 2)
        im.start()
        assert wait_until(lambda: [m["id"] for m in im.history("alice", "u/bob")][20:] == [f"j{i}" for i in range(19)], 20, 0.3)
        assert "torn" in log_of(im)
        all_there(im)


def kill_all(im):
    """The stopped service first: the supervisor's end would wake it."""
    pids = im.pids()
    for pid in (pids["im-offline"], im.process.pid, *pids.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    im.process.wait()


def test_damaged_end_of_the_message_log_is_repaired_from_the_journal():
    """Killed right after the acks, so that the rows are behind the log; its last message is damaged, and the journal still has it."""
    with stopped() as im:
        im.start()
        with Client(im, "alice", "log") as alice:
            alice.subscribe("im/v1/in/ack")
            for i in range(20):
                alice.publish(f"im/v1/to/u/bob/l{i}", f"l {i}", qos=0)
            while alice.json("im/v1/in/ack")[-1]["id"] != "l19":
                pass
        kill_all(im)
        log = max(p for p in (im.dir / "store/log").glob("*.log") if b"l 19" in p.read_bytes())
        assert b"l 19" not in (im.dir / "store/store.db-wal").read_bytes(), "too late: the rows have it already"
        flip(log, log.read_bytes().rindex(b"l 19"), 4)
        im.start()
        ids = [m["id"] for m in im.history("alice", "u/bob")]
        assert ids[:20] == [f"kept{i}" for i in range(20)]
        assert wait_until(lambda: [m["id"] for m in im.history("alice", "u/bob")][20:40] == [f"l{i}" for i in range(20)], 20, 0.3), ids[20:]
        all_there(im)


@pytest.mark.parametrize("name", ["store/store.db", "sequences.db"])
@pytest.mark.parametrize("damage", ["header", "empty text"])
def test_damaged_database_stops_the_start_and_is_not_replaced(name, damage):
    with stopped() as im:
        path = im.dir / name
        good = path.read_bytes()
        bad = b"\xff" * 100 + good[100:] if damage == "header" else b"this is no database, it only has its name\n" * 100
        path.write_bytes(bad)
        refused_start(im, str(path))
        assert path.read_bytes() == bad, "the damaged file was touched"
        path.write_bytes(good)
        im.start()
        all_there(im)


def test_damaged_page_in_the_middle_of_the_rows_is_reported():
    """SQLite finds such a page only when it is read: the sentence names the file, and the rest is served."""
    with stopped() as im:
        path = im.dir / "store/store.db"
        with contextlib.closing(sqlite3.connect(path)) as db:
            root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message'").fetchone()[0]
        good = path.read_bytes()
        flip(path, (root - 1) * 4096, 64)
        started = True
        try:
            im.start(timeout=30)
            p = im.imctl("history", "alice", "u/bob", "--json", check=False, timeout=90)
            assert p.returncode != 0 and p.stderr.strip(), (p.stdout, p.stderr)
        except Failed:
            started = False
        assert "malformed" in log_of(im) and str(path) in log_of(im), (started, im.logs())
        im.stop()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                (im.dir / ("store/store.db" + suffix)).unlink()
        path.write_bytes(good)
        im.start()
        all_there(im)


def test_damaged_roster_copy_is_made_anew():
    """It is a copy: users come again from the store."""
    with stopped() as im:
        path = im.dir / "roster"
        flip(path, last_data(path) - 5, 4)
        im.start()
        all_there(im)
        login(im, "bob", im.users["bob"], 0)
