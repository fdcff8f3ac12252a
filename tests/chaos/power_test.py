#!/usr/bin/python3
"""Power loss: everything is killed at once and the disk put back to what was synced, again and again under load.

    tests/chaos/power_test.py [--cycles 200] [--durability disk] [--seed S] [--keep]

`disk`: nothing acknowledged is lost. `process`: only what was acknowledged in the last second before a cut, and as
a rule in the last 10 ms. An ack event (in/ack) is never taken back in either. In some cycles the message
service stands still before the cut, so that only the journal has what comes; in some a part is killed alone
before it, so that what one process left unsynced is found by the next; in some the disk fails before it.
"""
import argparse
import collections
import errno
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import OPEN, SYNC, WRITE, Faults  # noqa: E402
import checker  # noqa: E402
from load import Flood, Load  # noqa: E402
from instance import BUILD, Instance  # noqa: E402

PARTS = ("mosquitto", "im-seqgen", "im-offline")
# What the disk does before a cut: program, part of the path, calls, error, how often, delay
DISK = (
    ("mosquitto", ".seg", WRITE, errno.EIO, 2, 0), ("mosquitto", ".seg", SYNC, errno.EIO, 1, 0), ("mosquitto", ".seg", WRITE, errno.ENOSPC, 50, 0),
    ("mosquitto", ".seg", SYNC, 0, 5, 300), ("mosquitto", ".seg", OPEN, errno.EROFS, 3, 0),
    ("im-offline", ".log$", WRITE, errno.EIO, 1, 0), ("im-offline", ".log$", SYNC, errno.EIO, 1, 0), ("im-offline", ".log$", WRITE, errno.ENOSPC, 1, 0),
    ("im-offline", ".log$", SYNC, 0, 3, 500), ("im-offline", "store.db", WRITE, errno.ENOSPC, 2, 0), ("im-offline", "store.db-wal", SYNC, errno.EIO, 1, 0),
    ("im-seqgen", "", SYNC, errno.EIO, 2, 0), ("im-seqgen", "", WRITE, errno.EIO, 2, 0),
)
WINDOW_S = 1.0   # docs: `process` is on disk at most this much later

# A cut: when everything was dead, when it began to start again, and whether a call of the journal had failed since the start before
Cut = collections.namedtuple("Cut", "when up failed")


def life_of(p, cuts):
    """Number of the cut that ended the life in which it was acknowledged. A PUBACK may be read when its broker is gone already, but
    not after the next one has begun to start (all_gone)."""
    return next(i for i, cut in enumerate(cuts) if p.done / 1e9 < cut.up)


def ages(pubs, lost, cuts):
    """[(seconds, message)]: how long before the end of acknowledging it was acknowledged, the youngest first.

    That end is the cut or, if the journal's disk failed before it, that failure: the last message that was accepted was
    sent before it."""
    last = collections.Counter()
    for p in pubs:
        if p.acked() and p.done / 1e9 < cuts[-1].up:
            life = life_of(p, cuts)
            last[life] = max(last[life], p.first / 1e9)
    found = []
    for p in lost:
        life = life_of(p, cuts)
        end = min(last[life], cuts[life].when) if cuts[life].failed else cuts[life].when
        found.append((max(0.0, end - p.done / 1e9), p))
    return sorted(found, key=lambda x: x[0])


def excused(history, found, cuts):
    """With `process` a loss within the window is the price that was named. Returns (what remains, ages of all that is lost)."""
    lost = [p for p, _ in checker.missing(history, checker.Index(history)) if p.done / 1e9 < cuts[-1].up]
    old = ages(history.pubs.values(), lost, cuts)
    named = {f"{p.id} " for age, p in old if age <= WINDOW_S}
    remain = [(v, s) for v, s in found if v != "LOST" or not any(s.startswith(name) for name in named)]
    return remain, [age for age, _ in old]


def cycle(instance, faults, load, flood, rng, number):
    load.await_acks(20)
    program = error = rule = None
    if number % 4 == 0:    # segments change while it happens
        threading.Thread(target=flood.send, args=(20,), daemon=True).start()
    time.sleep(rng.uniform(0, 0.5) if number % 4 else rng.uniform(0, 2.5))
    if number % 4 == 1:    # else the message log syncs what the journal has not
        instance.kill("im-offline", signal.SIGSTOP)
        time.sleep(rng.uniform(0.05, 0.5))
    elif number % 4 == 2:
        instance.kill(rng.choice(PARTS))
        time.sleep(rng.uniform(0, 0.6))
    elif number % 4 == 3:
        program, path, calls, error, count, delay_ms = rng.choice(DISK)
        rule = faults.fail(program, path, calls, error, count=count, delay_ms=delay_ms)
        if program == "im-seqgen":
            instance.kill("im-offline")  # what it writes is leases, and those are asked for at a start
        time.sleep(rng.uniform(0.1, 1.5))
    when = faults.stop_all(instance)
    hit = f"{program} {errno.errorcode.get(error, 'slow')}" if rule and rule.hits else None
    lost = faults.power_loss(rng)
    faults.heal()
    load.all_gone()
    cut = Cut(when, time.monotonic(), hit is not None and program == "mosquitto" and error != 0)
    instance.start(timeout=60)
    return cut, lost, hit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--durability", default="disk", choices=("process", "disk"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true")
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    rng = random.Random(a.seed)
    folder = tempfile.mkdtemp(prefix="im-power-")
    faults = Faults(folder, BUILD)
    instance = Instance(keep_dir=folder, env=faults.environment(), options=["--backoff-max", "200"],
                        conf=[f"plugin_opt_im_durability {a.durability}", "plugin_opt_im_segment_bytes 8m"])
    instance.start(timeout=120)
    load, flood = Load(instance, rng), Flood(instance)
    load.start()
    cuts, taken, failures, shown = [], collections.Counter(), collections.Counter(), time.monotonic()
    for number in range(a.cycles):
        cut, lost, hit = cycle(instance, faults, load, flood, rng, number)
        cuts.append(cut)
        taken.update(lost)
        failures.update([hit] if hit else [])
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{len(cuts)} cuts, {load.acked()} acknowledged, taken back so far: {dict(taken)}", flush=True)
    found, old = load.settle(), []
    load.stop()
    print(f"{a.durability}: {len(cuts)} power cuts, {taken['bytes']} bytes and {taken['entries']} entries of folders taken back")
    print("the disk failed before: " + (", ".join(f"{n} {hit}" for hit, n in sorted(failures.items())) or "never"))
    if a.durability == "process":
        found, old = excused(load.history, found, cuts)
    print(load.figures(found))
    if a.durability == "process":
        print(f"acknowledged and lost: {len(old)} ({sum(x > 0.010 for x in old)} of them older than 10 ms; "
              f"oldest {1000 * max(old, default=0):.1f} ms before the cut or the failure)")
    for verdict, sentence in found[:20]:
        print(f"{verdict}: {sentence}")
    instance.stop()
    if found or a.keep:
        print(f"kept in {instance.dir}")
    else:
        instance.remove()
        faults.remove()
        load.remove()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"power test ({a.durability}) " + ("FAILED" if found else "passed") + f" (seed {a.seed})")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
