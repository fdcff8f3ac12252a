"""One failing disk call at a time, under load, with im_durability disk: what is refused is said, what is
acknowledged is stored once, and after an error nothing is acknowledged until a new epoch is open."""
import errno
import json
import os
import pathlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, OPEN, RENAME, SYNC, WRITE, Faults  # noqa: E402
import chaos  # noqa: E402
from load import Load  # noqa: E402
from instance import BUILD, Instance  # noqa: E402


def until(what, deadline_s, condition):
    return chaos.wait(deadline_s, condition, 0.02) is not None


class World:
    def __init__(self, folder, durability):
        self.faults = Faults(folder, BUILD)
        self.instance = Instance(keep_dir=folder, env=self.faults.environment(), options=["--backoff-max", "200"],
                                 conf=[f"plugin_opt_im_durability {durability}", "plugin_opt_im_segment_bytes 8m"])
        self.instance.start(timeout=120)
        self.load = Load(self.instance, random.Random(7), users=4)
        self.load.start()
        self.load.await_acks(10)

    def epoch(self):
        status = json.loads(self.instance.imctl("status", "--json").stdout)
        return status["plugin"]["journal"]["epoch"] if "plugin" in status else status["journal"]["epoch"]

    def happens(self, rule, times=1):
        assert until("the fault", 30, lambda: rule.hits >= times), "the fault was never met"
        self.load.await_acks(30)

    def power_loss(self):
        self.faults.stop_all(self.instance)
        self.faults.power_loss(random.Random(3))
        self.faults.heal()
        self.instance.start(timeout=60)
        self.load.await_acks(10)

    def stop(self, found):
        self.load.stop()
        self.instance.stop()
        self.load.remove()
        if not found:
            shutil.rmtree(self.instance.dir, ignore_errors=True)
            self.faults.remove()


@pytest.fixture(scope="module")
def world():
    w = World(tempfile.mkdtemp(prefix="im-disk-"), "disk")
    yield w
    found = w.load.settle()
    figures = w.load.figures(found)
    w.stop(found)
    if found:
        pytest.fail(f"{figures}, kept in {w.instance.dir}\n" + "\n".join(f"{f[0]}: {f[1]}" for f in found[:20]), pytrace=False)


@pytest.mark.parametrize("call,error,count", [(WRITE, errno.EIO, 2), (SYNC, errno.EIO, 1), (WRITE, errno.ENOSPC, 2), (WRITE, errno.EDQUOT, 2)])
def test_a_journal_that_fails_goes_on_in_a_new_epoch_only(world, call, error, count):
    before = world.epoch()
    world.happens(world.faults.fail("mosquitto", ".seg", call, error, count=count))
    assert world.epoch() > before
    world.power_loss()


def test_a_journal_that_fails_for_good_refuses_until_it_is_healed(world):
    rule = world.faults.fail("mosquitto", ".seg", SYNC, errno.EIO)
    assert until("the fault", 30, lambda: rule.hits > 0)
    time.sleep(1)  # what the broker acknowledged before is read by its clients, and told by them
    acked = world.load.acked()
    time.sleep(1.5)
    assert world.load.acked() == acked, "something was acknowledged while no sync worked"
    rule.clear()
    world.load.await_acks(30)


def test_short_writes_are_completed(world):
    before = world.epoch()
    world.happens(world.faults.fail("mosquitto", ".seg", WRITE, short_to=5, count=200), 100)
    world.happens(world.faults.fail("im-offline", ".log$", WRITE, short_to=7, count=200), 100)
    assert world.epoch() == before


@pytest.mark.parametrize("call,error", [(WRITE, errno.EIO), (SYNC, errno.EIO), (WRITE, errno.ENOSPC)])
def test_a_message_log_that_fails_ends_the_service_and_loses_nothing(world, call, error):
    before = world.instance.pids()["im-offline"]
    world.happens(world.faults.fail("im-offline", ".log$", call, error, count=1))
    assert until("the next one", 20, lambda: world.instance.pids().get("im-offline") not in (None, before))
    world.power_loss()


@pytest.mark.parametrize("path,call,error", [("store.db-wal", WRITE, errno.ENOSPC), ("store.db-wal", WRITE, errno.EIO),
                                             ("store.db-wal", SYNC, errno.EIO), ("store.db$", WRITE, errno.EIO), ("store.db$", SYNC, errno.EIO)])
def test_rows_that_cannot_be_written_come_later(world, path, call, error):
    rule = world.faults.fail("im-offline", path, call, error, count=3)
    world.instance.kill("im-offline")  # a checkpoint comes with the next one's start
    assert until("the fault", 30, lambda: rule.hits > 0)
    world.happens(rule)
    world.power_loss()


def test_rows_of_which_a_sync_failed_are_written_anew(world):
    """One sync of the write-ahead log fails; the next would succeed and have written nothing. The power goes when the checkpoint
    that comes then has written its pages and not synced them."""
    before = world.instance.pids()["im-offline"]
    sync = world.faults.fail("im-offline", "store.db-wal", SYNC, errno.EIO, count=1)
    assert until("a checkpoint", 60, lambda: sync.hits > 0)
    written = world.faults.fail("im-offline", "store.db$", SYNC, KILL, count=1)
    assert until("the next checkpoint", 60, lambda: written.hits > 0)
    world.power_loss()
    assert world.instance.pids()["im-offline"] != before
    db = sqlite3.connect(f"file:{world.instance.dir}/store/store.db?mode=ro", uri=True)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


@pytest.mark.parametrize("call", [WRITE, SYNC])
def test_a_lease_that_is_not_durable_is_not_told(world, call):
    rule = world.faults.fail("im-seqgen", "", call, errno.EIO, count=3)
    world.instance.kill("im-offline")
    world.happens(rule)
    world.power_loss()


def test_a_full_disk_everywhere_is_survived(world):
    rules = [world.faults.fail("", "", calls, errno.ENOSPC) for calls in (WRITE, OPEN | RENAME)]
    assert until("the fault", 30, lambda: rules[0].hits > 20)
    time.sleep(1)
    for rule in rules:
        rule.clear()
    world.load.await_acks(50)
    world.power_loss()


def test_an_unsynced_tail_that_was_found_is_durable_before_it_counts(world):
    """Killed between write and sync, started while somebody reads the database, and then the power goes."""
    db = sqlite3.connect(f"file:{world.instance.dir}/store/store.db?mode=ro", uri=True)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM message").fetchone()
    slow = world.faults.fail("im-offline", ".log$", SYNC, delay_ms=3000, count=1)
    assert until("the sync", 30, lambda: slow.hits > 0)
    before = world.instance.pids()["im-offline"]
    world.instance.kill("im-offline")
    assert until("the next one", 20, lambda: world.instance.pids().get("im-offline") not in (None, before))
    world.load.await_acks(10)
    world.power_loss()
    db.close()
