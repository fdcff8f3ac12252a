#!/usr/bin/python3
"""Every kill point under load: the process ends there, is started again, a message goes all the way, and in the end every rule holds.

    tests/chaos/killpoint_test.py [--lives 4] [--hits 5] [--points NAME,...] [--seed S] [--keep]

Needs a build with -DIM_KILLPOINTS=ON or sanitizers (IM_BUILD). In each life of an instance every point is hit so often, in random
order, so that each hit meets what others have left; then everything is let settle, and what senders, receivers and store say is
compared. The table says how often each was hit in all lives, what made it be passed, and the longest time until a message sent after
it was answered.
"""
import argparse
import collections
import contextlib
import pathlib
import random
import re
import sys
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, WRITE  # noqa: E402
from load import Flood, trial  # noqa: E402
from client import Client, Timeout  # noqa: E402
from instance import ROOT  # noqa: E402

HIT_WITHIN_S = 60      # a settle period has 35 s
PROVOKE_EVERY_S = 2.5
ROUND_TRIP_S = 30
# What makes a point be passed: the load alone, a part that is killed first, a full segment, a new device, a settle period without a fault
LOAD, BROKER, SERVICE, FLOOD, NEWCOMER, SETTLE = "load", "mosquitto", "im-offline", "flood", "newcomer", "settle period"
# (name, what makes it be passed, how many passes at most until it acts)
POINTS = (
    ("journal.before_write", LOAD, 40), ("journal.after_write", LOAD, 40), ("journal.before_sync", LOAD, 20),
    ("journal.after_create", BROKER, 2), ("journal.after_prepare", BROKER, 2), ("journal.after_activate", FLOOD, 1),
    ("journal.in_recovery", BROKER, 2),
    ("broker.before_puback", LOAD, 40), ("broker.after_puback", LOAD, 40), ("broker.before_pubrec", LOAD, 5),
    ("broker.after_pubrec", LOAD, 5), ("broker.before_pubcomp", LOAD, 5),
    ("seqgen.before_save", SERVICE, 1), ("seqgen.before_commit", SERVICE, 1), ("seqgen.after_save", SERVICE, 1),
    ("lease.before_store", SERVICE, 1), ("lease.after_store", SERVICE, 1),
    ("log.before_write", LOAD, 30), ("log.before_sync", LOAD, 30), ("log.after_sync", LOAD, 30),
    ("log.after_rename", SERVICE, 1), ("log.new_segment", SERVICE, 1),
    ("index.in_transaction", LOAD, 3), ("index.after_commit", LOAD, 3),
    ("index.before_checkpoint", SERVICE, 1), ("index.after_checkpoint", SERVICE, 1), ("index.in_checkpoint", SERVICE, 4),
    ("inbox.before_telling", LOAD, 30), ("inbox.before_confirm", LOAD, 30),
    ("delivery.after_send", LOAD, 60), ("delivery.after_ack", LOAD, 5),
    ("delivery.before_mark", NEWCOMER, 1), ("delivery.after_mark", NEWCOMER, 2),
    ("delivery.before_mark", SETTLE, 1), ("delivery.after_mark", SETTLE, 1),
)


IN_CHECKPOINT = "index.in_checkpoint"  # SQLite's own: by a rule of faults.py


def in_sources():
    """The names in the code: one that is not tried here is as good as none. Those of the bridges are tried by tests/e2e/test_push_bridge.py."""
    files = (f for folder in ("lib", "plugin", "services", "tests/chaos") for f in (ROOT / folder).rglob("*.c"))
    return {name for f in files for name in re.findall(r'IM_KILLPOINT\("((?!push\.)[^"]*)"\)', f.read_text())} | {IN_CHECKPOINT}


class Points:
    def __init__(self, instance, faults, load, rng):
        self.instance, self.faults, self.load, self.flood, self.rng = instance, faults, load, Flood(instance), rng
        self.rule, self.newcomers, self.client = None, 0, None

    def _arm(self, name, passes):
        if name == IN_CHECKPOINT:  # the database file itself is written by checkpoints only
            self.rule = self.faults.fail("im-offline", "store.db$", WRITE, KILL, after=passes - 1, count=1)
            return lambda: self.rule.hits > 0
        before = self.faults.kill_hits()
        self.faults.kill_at(name, passes)
        return lambda: self.faults.kill_hits() > before

    def _disarm(self):
        self.faults.kill_off()
        if self.rule:
            self.rule.clear()
            self.rule = None

    def _provoke(self, how):
        if how in (BROKER, SERVICE):
            self.instance.kill(how)
        elif how in (NEWCOMER, FLOOD) and not (self.client and self.client.is_alive()):
            self.client = threading.Thread(target=self._newcomer if how == NEWCOMER else self._flood, daemon=True)
            self.client.start()

    def _flood(self):
        self.flood.send(9)

    def _newcomer(self):
        """A device that was never seen begins where the user's furthest is, and that is written down."""
        user = self.load.users[self.newcomers % len(self.load.users)]
        self.newcomers += 1
        with contextlib.suppress(Timeout, OSError, ValueError), Client(self.instance, user, f"n{self.newcomers}") as c:
            c.subscribe("im/v1/in/#")
            c.next("im/v1/in/evt/", 1)

    def _await_hit(self, was_hit, how):
        deadline, again = time.monotonic() + HIT_WITHIN_S, 0.0
        while not was_hit():
            if time.monotonic() > deadline:
                return False
            if time.monotonic() > again:
                self._provoke(how)
                again = time.monotonic() + PROVOKE_EVERY_S
            time.sleep(0.005)
        return True

    def hit(self, name, how, most):
        """Seconds until a message sent after the hit was answered; None: it was not passed."""
        was_hit = self._arm(name, self.rng.randint(1, most))
        good = self._await_hit(was_hit, how)
        self._disarm()
        if not good:
            return None
        self.load.log.line("info", "fault", kind="kill", target=name)
        self.load.mark()
        return self.load.round_trip(ROUND_TRIP_S)


def plan(options, last_life, rng):
    """What only comes after a settle period stands at the end, once, and not in a quick pass."""
    chosen = [p for p in POINTS if p[0] in options.points]
    hits = [p for p in chosen if p[1] != SETTLE] * options.hits
    rng.shuffle(hits)
    return hits + [p for p in chosen if p[1] == SETTLE and last_life and options.hits > 1]


def strike(points, hits, times):
    """One after the other; adds the round trips to times, gives what was found."""
    for i, (name, how, most) in enumerate(hits):
        took = points.hit(name, how, most)
        if took is None:
            return [("NOT-HIT", f"{name} was not passed within {HIT_WITHIN_S} s")]
        times[name, how].append(took)
        if i % 30 == 29:
            print(f"{i + 1} of {len(hits)} hits", flush=True)
    return []


def tell(times):
    print(f"{'kill point':26} {'by':14} {'hits':>4}  slowest round trip after it")
    for name, how, _ in POINTS:
        if times[name, how]:
            print(f"{name:26} {how:14} {len(times[name, how]):4}  {max(times[name, how]):6.2f} s")


def parse():
    names = sorted({name for name, _, _ in POINTS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=4)
    parser.add_argument("--hits", type=int, default=5)
    parser.add_argument("--points", default=",".join(names))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true")
    a = parser.parse_args()
    if set(names) != in_sources():
        parser.error(f"POINTS and the code do not name the same: {', '.join(set(names) ^ in_sources())}")
    a.points = a.points.split(",")
    if set(a.points) - set(names):
        parser.error(f"no such kill point: {', '.join(set(a.points) - set(names))}")
    return a


def main():
    a = parse()
    began, times, good = time.monotonic(), collections.defaultdict(list), True
    seeds = random.Random(a.seed)
    for life in range(a.lives):
        def body(instance, faults, load, rng):
            return strike(Points(instance, faults, load, rng), plan(a, life == a.lives - 1, rng), times)
        good = good and trial("im-points-", seeds.randrange(1 << 30), a.keep, body)
    tell(times)
    names = {name for (name, _), took in times.items() if took}
    print(f"kill point test {'passed' if good else 'FAILED'}: {sum(map(len, times.values()))} hits of {len(names)} kill points in {a.lives} lives, "
          f"{time.monotonic() - began:.0f} s (seed {a.seed})")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
