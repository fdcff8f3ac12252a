#!/usr/bin/python3
"""Every kill point under load: the process ends there, is started again, and in the end every rule holds.

    tests/chaos/killpoint_test.py [--hits 20] [--points NAME,...] [--seed S] [--keep]

Needs a build with -DIM_KILLPOINTS=ON (IM_BUILD). After each hit the chat must go on; after each point's hits
(--check-each) or at the end everything is let settle and what senders, receivers and store say is compared.
"""
import argparse
import collections
import pathlib
import random
import shutil
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, WRITE, Faults  # noqa: E402
from load import Flood, Load  # noqa: E402
from instance import BUILD, SANITIZED, Instance  # noqa: E402

HIT_WITHIN_S = 100   # cursors of silent devices are written one settle period (30 s) later
PROVOKE_EVERY_S = 4
# name -> what makes it be passed, how many passes at most until it acts
LOAD, BROKER, SERVICE, FLOOD = "load", "mosquitto", "im-offline", "flood"
POINTS = {
    "journal.before_write": (LOAD, 40), "journal.after_write": (LOAD, 40), "journal.before_sync": (LOAD, 20),
    "journal.after_create": (BROKER, 2), "journal.after_prepare": (BROKER, 2), "journal.after_activate": (FLOOD, 1),
    "journal.in_recovery": (BROKER, 2),
    "broker.before_puback": (LOAD, 40), "broker.after_puback": (LOAD, 40), "broker.before_pubrec": (LOAD, 5),
    "broker.after_pubrec": (LOAD, 5), "broker.before_pubcomp": (LOAD, 5),
    "seqgen.before_save": (SERVICE, 1), "seqgen.before_commit": (SERVICE, 1), "seqgen.after_save": (SERVICE, 1),
    "lease.before_store": (SERVICE, 1), "lease.after_store": (SERVICE, 1),
    "log.before_write": (LOAD, 30), "log.before_sync": (LOAD, 30), "log.after_sync": (LOAD, 30),
    "log.after_rename": (SERVICE, 1), "log.new_segment": (SERVICE, 1),
    "index.in_transaction": (LOAD, 3), "index.after_commit": (LOAD, 3),
    "index.before_checkpoint": (SERVICE, 1), "index.after_checkpoint": (SERVICE, 1), "index.in_checkpoint": (SERVICE, 4),
    "inbox.before_telling": (LOAD, 30), "inbox.before_confirm": (LOAD, 30),
    "delivery.after_send": (LOAD, 60), "delivery.after_ack": (LOAD, 5), "delivery.before_mark": (LOAD, 1),
    "delivery.after_mark": (LOAD, 1),
}


class Points:
    def __init__(self, instance, faults, load, flood, rng):
        self.instance, self.faults, self.load, self.flood, self.rng = instance, faults, load, flood, rng
        self.rule = None

    def _arm(self, name, passes):
        if name == "index.in_checkpoint":  # the database file itself is written by checkpoints only
            self.rule = self.faults.fail("im-offline", "store.db$", WRITE, KILL, after=passes - 1, count=1)
            return lambda: self.rule.hits > 0
        before = self.faults.kill_hits()
        self.faults.kill_at(name, passes)
        return lambda: self.faults.kill_hits() > before

    def _provoke(self, how):
        if how == FLOOD:
            self.flood.send(9)
        elif how != LOAD:
            self.instance.kill(how)

    def hit(self, name):
        """True: it was hit and the chat goes on."""
        how, most = POINTS[name]
        was_hit = self._arm(name, self.rng.randint(1, most))
        deadline, again = time.monotonic() + HIT_WITHIN_S, 0.0
        while not was_hit():
            if time.monotonic() > deadline:
                self.faults.kill_off()
                return False
            if time.monotonic() > again:
                self._provoke(how)
                again = time.monotonic() + PROVOKE_EVERY_S
            time.sleep(0.005)
        if self.rule:
            self.rule.clear()
            self.rule = None
        self.load.await_acks(10)
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=20)
    parser.add_argument("--points", default=",".join(POINTS))
    parser.add_argument("--check-each", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true")
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    rng = random.Random(a.seed)
    folder = tempfile.mkdtemp(prefix="im-points-")
    faults = Faults(folder, BUILD, SANITIZED)
    instance = Instance(keep_dir=folder, env=faults.environment(), options=["--backoff-max", "200"], conf=["plugin_opt_im_segment_bytes 8m"])
    instance.start(timeout=120)
    flood = Flood(instance)
    load = Load(instance, rng)
    load.start()
    load.await_acks(10)
    points = Points(instance, faults, load, flood, rng)
    hits, found = collections.Counter(), []
    for name in a.points.split(","):
        for _ in range(a.hits):
            if not points.hit(name):
                found.append(("NOT-HIT", f"{name} was not passed within {HIT_WITHIN_S} s"))
                break
            hits[name] += 1
        if a.check_each:
            found += load.settle()
            load.resume()
        print(f"{name:28} {hits[name]:4} hits{'' if not a.check_each else ', ' + load.figures(found)}", flush=True)
        if found:
            break
    if not found:
        found = load.settle()
    load.stop()
    print(f"{sum(hits.values())} hits of {len(hits)} kill points; {load.figures(found)}")
    for verdict, sentence in found[:20]:
        print(f"{verdict}: {sentence}")
    instance.stop()
    if instance.sanitizer_reports():
        print(instance.sanitizer_reports())
        found.append(("SANITIZER", "reports above"))
    if found or a.keep:
        print(f"kept in {instance.dir}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        faults.remove()
        load.remove()
    print("kill point test " + ("FAILED" if found else "passed") + f" (seed {a.seed})")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
