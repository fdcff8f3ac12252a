"""The message service is killed between what a request or command does and its answer. Asked again - a client under the same
request id - it has been done once, and one answer comes for each time it was asked."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, SYNC, Faults  # noqa: E402
import chaos  # noqa: E402
from client import Client, Timeout  # noqa: E402
from instance import BUILD, Instance  # noqa: E402

PLACES = range(2)  # so many syncs of the message log are let pass before the one at which it dies


class World:
    def __init__(self, folder):
        self.faults = Faults(folder, BUILD)
        self.instance = Instance(keep_dir=folder, env=self.faults.environment(), options=["--backoff-max", "200"])
        self.instance.start(timeout=120)
        self.instance.users = self.instance.add_users(["alice", "bob"])
        self.instance.imctl("group", "create", "friends", "--owner", "alice")

    def dies(self, place, ask):
        """What is written when it dies is in the log's file: a start finds it, and it counts. The answer went nowhere."""
        before = self.instance.pids()["im-offline"]
        rule = self.faults.fail("im-offline", ".log$", SYNC, KILL, after=place, count=1)
        answer = ask()
        died = rule.hits > 0
        rule.clear()
        if died:
            assert chaos.wait(20, lambda: self.instance.pids().get("im-offline") not in (None, before)), "it does not come back"
            chaos.wait(20, lambda: self.instance.imctl("status", check=False).returncode == 0)
        return died, answer

    def events(self, kind, group):
        rows = self.instance.history("alice", f"g/{group}")
        return [e for e in (m["body"] for m in rows if m["type"] == "system") if e["event"] == kind]

    def ask(self, args, patience):
        """imctl waits 20 s and says then that it does not know; None: it was not let wait so long."""
        try:
            return self.instance.imctl(*args, check=False, timeout=patience)
        except subprocess.TimeoutExpired:
            return None

    def command(self, place, *args, patience=60):
        """Not done, as far as imctl knows; the second time it is done, or was done."""
        died, first = self.dies(place, lambda: self.ask(args, patience))
        assert (first is None or first.returncode != 0) == died, first
        if died:
            second = self.instance.imctl(*args, check=False, timeout=60)
            assert second.returncode == 0 or "already" in second.stderr + second.stdout, second
        return died


@pytest.fixture(scope="module")
def world():
    w = World(tempfile.mkdtemp(prefix="im-requests-"))
    yield w
    w.instance.stop()
    shutil.rmtree(w.instance.dir, ignore_errors=True)
    w.faults.remove()


def test_a_group_is_made_once(world):
    died = [world.command(place, "group", "create", f"once{place}", "--owner", "alice") for place in PLACES]
    assert died[0]
    for place in PLACES:
        assert len(world.events("created", f"once{place}")) == 1


def test_a_member_is_added_once(world):
    assert world.command(0, "group", "add", "friends", "bob", patience=4)
    assert len(world.events("joined", "friends")) == 1
    assert world.instance.imctl("group", "members", "friends").stdout.count("bob") == 1


def test_a_request_is_answered_once_each_time_it_is_asked(world):
    with Client(world.instance, "alice", "asks") as c:
        c.subscribe("im/v1/in/#")
        for place in PLACES:
            rid, size = f"again{place}", 1024 + place

            def ask(timeout=3):
                try:
                    return c.request("device.set", {"max_packet": size}, rid=rid, timeout=timeout)
                except Timeout:
                    return None
            died, first = world.dies(place, ask)
            assert first is not None or died, "not answered, though nobody died"
            second = ask(20)
            assert second is not None and "error" not in second and (first is None or first == second), (first, second)
            time.sleep(0.2)
            assert not [m for m in c.all("im/v1/in/res/", 0.3) if m.topic.endswith(rid)]
        shown = json.loads(world.instance.imctl("user", "show", "alice", "--json").stdout)
        assert [d["max_packet"] for d in shown["devices"] if d["device"] == "alice:asks"] == [1024 + PLACES[-1]]
