#!/usr/bin/python3
"""Every kill point under load: the process ends there, is started again, a message goes all the way, and in the end every rule holds.

    tests/chaos/killpoint_test.py [--hits 20] [--points NAME,...] [--check-each] [--seed S] [--keep]

Needs a build with -DIM_KILLPOINTS=ON (IM_BUILD). One instance lives through all of it, so that each hit meets what the hits before
it have left. At the end (with --check-each after each point too) everything is let settle, and what senders, receivers and store
say is compared. The table says how often each was hit, in which process, and the longest time until a message sent after it was
answered.
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
SETTLED_HITS = 1       # of what only comes after a settle period; none with --hits 1, the quick pass
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
    """The names in the code: one that is not tried here is as good as none."""
    files = (f for folder in ("lib", "plugin", "services", "tests/chaos") for f in (ROOT / folder).rglob("*.c"))
    return {name for f in files for name in re.findall(r'IM_KILLPOINT\("([^"]*)"\)', f.read_text())} | {IN_CHECKPOINT}


class Points:
    def __init__(self, instance, faults, load, rng):
        self.instance, self.faults, self.load, self.flood, self.rng = instance, faults, load, Flood(instance), rng
        self.rule, self.newcomers, self.flooding = None, 0, None

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
        elif how == NEWCOMER:
            self._newcomer()
        elif how == FLOOD and not (self.flooding and self.flooding.is_alive()):
            self.flooding = threading.Thread(target=self.flood.send, args=(9,), daemon=True)
            self.flooding.start()

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


def strike(points, load, options, total):
    """Hits one point after the other and counts it in total; what was found."""
    found = []
    print(f"{'kill point':26} {'by':14} {'hits':>4}  slowest round trip after it", flush=True)
    for name, how, most in POINTS:
        if name not in options.points:
            continue
        times, hits = [], min(options.hits - 1, SETTLED_HITS) if how == SETTLE else options.hits
        for _ in range(hits):
            took = points.hit(name, how, most)
            if took is None:
                found.append(("NOT-HIT", f"{name} was not passed within {HIT_WITHIN_S} s"))
                break
            times.append(took)
        total[name] += len(times)
        if hits:
            print(f"{name:26} {how:14} {len(times):4}  {max(times, default=0):6.2f} s", flush=True)
        if hits and options.check_each:
            found += load.settle()
            load.resume()
            print(load.figures(found), flush=True)
        if found:
            break
    return found


def parse():
    names = sorted({name for name, _, _ in POINTS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=20)
    parser.add_argument("--points", default=",".join(names))
    parser.add_argument("--check-each", action="store_true")
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
    began, total = time.monotonic(), collections.Counter()
    good = trial("im-points-", a, lambda instance, faults, load, rng: strike(Points(instance, faults, load, rng), load, a, total))
    print(f"kill point test {'passed' if good else 'FAILED'}: {sum(total.values())} hits of {len(total)} kill points in {time.monotonic() - began:.0f} s (seed {a.seed})")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
