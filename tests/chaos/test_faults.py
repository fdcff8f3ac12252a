"""The fault library itself: what it makes fail, and that it takes back exactly what no sync covers."""
import errno
import os
import pathlib
import subprocess
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, SYNC, WRITE, Faults  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("IM_BUILD", ROOT / "build")).resolve()


class Nothing:
    """A cut after which nothing is there but what was synced."""

    def random(self):
        return 0.99

    def randint(self, low, high):
        return low

    def choice(self, of):
        return of[0]


class World:
    def __init__(self, folder):
        self.root = folder / "disk"
        self.root.mkdir()
        self.faults = Faults(self.root, BUILD)

    def do(self, calls):
        words = [str(self.root / w[1:]) if w.startswith("@") else w for w in calls.split()]
        p = subprocess.run([BUILD / "bin/inject_test", *words], env={**os.environ, **self.faults.environment()}, capture_output=True, text=True)
        return p.returncode, [int(n) for n in p.stdout.split()]

    def after_power_loss(self, rng=None):
        self.faults.power_loss(rng or Nothing())
        return {p.name: p.read_text().rstrip("\0") for p in self.root.iterdir()}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


CASES = [
    # what was done, what is there afterwards
    ("write @a 0 one sync @a sync @ write @a 0 two", {"a": "one"}),
    ("write @a 0 one sync @ ", {"a": ""}),
    ("write @a 0 one sync @a", {}),
    ("write @a 0 one sync @a sync @ write @a 3 two write @a 0 xyz", {"a": "one"}),
    ("write @a 0 one sync @a sync @ write @a 3 two sync @a write @a 0 xyz", {"a": "onetwo"}),
    ("write @a 0 onetwo sync @a sync @ cut @a 3", {"a": "onetwo"}),
    ("write @a 0 onetwo sync @a sync @ cut @a 3 write @a 3 s sync @a", {"a": "ones"}),
    ("write @a 0 one sync @a rename @a @b sync @", {"b": "one"}),
    ("write @a 0 one sync @a sync @ rename @a @b", {"a": "one"}),
    ("write @a 0 one sync @a write @b 0 two sync @b sync @ rename @a @b", {"a": "one", "b": "two"}),
    ("write @a 0 one sync @a sync @ unlink @a", {"a": "one"}),
    ("write @a 0 one sync @a sync @ unlink @a sync @", {}),
    ("write @a 0 one sync @a sync @ unlink @a write @b 0 two", {"a": "one"}),
]


@pytest.mark.parametrize("calls,there", CASES)
def test_only_what_was_synced_is_there(world, calls, there):
    assert world.do(calls)[0] == 0
    assert world.after_power_loss() == there


def test_after_a_failed_sync_the_next_one_lies(world):
    world.do("write @a 0 one sync @a sync @")
    rule = world.faults.fail("inject_test", "/a", SYNC, errno.EIO, count=1)
    _, results = world.do("write @a 0 two sync @a sync @a")
    assert results == [3, -errno.EIO, 0] and rule.hits == 1
    assert world.after_power_loss() == {"a": "one"}


def test_a_page_written_again_after_a_failed_sync_is_there_as_a_whole(world):
    world.do("write @a 0 one sync @a sync @")
    world.faults.fail("inject_test", "/a", SYNC, errno.EIO, count=1)
    world.do("write @a 0 two sync @a write @a 3 three sync @a")
    assert world.after_power_loss() == {"a": "twothree"}


def test_pages_may_have_reached_the_disk_by_themselves(world):
    world.do("write @a 0 one sync @a sync @")
    world.do("write @a 0 two")

    class Lucky(Nothing):
        def random(self):
            return 0.1

        def choice(self, of):
            return of[-1]

    assert world.after_power_loss(Lucky()) == {"a": "two"}


def test_writes_fail_and_fall_short_as_told(world):
    world.faults.fail("inject_test", "/a", WRITE, errno.ENOSPC, after=1, count=1)
    world.faults.fail("inject_test", "/b", WRITE, short_to=2, count=1)
    assert world.do("write @a 0 one write @a 0 two write @a 0 two write @b 0 one write @b 2 ee")[1] == [3, -errno.ENOSPC, 3, 2, 2]


def test_a_process_ends_where_it_was_told(world):
    world.faults.fail("inject_test", "/a", WRITE, KILL, after=1)
    assert world.do("write @a 0 one write @a 0 two")[0] == -9
