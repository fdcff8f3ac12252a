#!/usr/bin/python3
"""Every process dies at its n-th write, sync, rename and send after its start, for each n: places that nobody thought of naming.

    tests/chaos/sweep_test.py [--kinds write,sync,rename,send] [--most 200] [--step 1] [--seed S] [--keep]

All three are killed and started again, and each ends just before its own n-th call; then a message must go all the way. A process
that comes to fewer calls of a kind within REACH_S, twice in a row, is left out of what remains of it. In the end of each kind every
rule must hold.
"""
import argparse
import pathlib
import random
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from faults import KILL, RENAME, SEND, SYNC, WRITE  # noqa: E402
from load import trial  # noqa: E402
from nemesis import PARTS  # noqa: E402

KINDS = {"write": WRITE, "sync": SYNC, "rename": RENAME, "send": SEND}
REACH_S = 5
ROUND_TRIP_S = 30


def shot(instance, faults, load, kind, programs, n):
    """Those that died at their n-th call."""
    for name in PARTS:
        instance.kill(name)
    rules = {p: faults.fail(p, "", KINDS[kind], KILL, after=n - 1, count=1) for p in programs}
    deadline = time.monotonic() + REACH_S
    while not all(r.hits for r in rules.values()) and time.monotonic() < deadline:
        time.sleep(0.005)
    hit = [p for p, r in rules.items() if r.hits]
    faults.heal()
    load.log.line("info", "fault", kind="kill", target="all")
    load.mark()
    return hit, load.round_trip(ROUND_TRIP_S)


def sweep(instance, faults, load, kind, options):
    """Tells for each process how often it died and at which n last; the number of deaths."""
    deaths, last, missed, slowest = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), 0.0
    for n in range(1, options.most + 1, options.step):
        programs = [p for p in PARTS if missed[p] < 2]
        if not programs:
            break
        hit, took = shot(instance, faults, load, kind, programs, n)
        slowest = max(slowest, took)
        for p in programs:
            missed[p] = 0 if p in hit else missed[p] + 1
            if p in hit:
                deaths[p], last[p] = deaths[p] + 1, n
    told = ", ".join(f"{p} {deaths[p]} times up to n = {last[p]}" for p in PARTS)
    print(f"{kind:7} {told}; slowest round trip after it {slowest:.2f} s", flush=True)
    return sum(deaths.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true")
    a = parser.parse_args()
    began, deaths, good, seeds = time.monotonic(), [], True, random.Random(a.seed)
    for kind in a.kinds.split(","):
        def body(instance, faults, load, rng, kind=kind):
            deaths.append(sweep(instance, faults, load, kind, a))
            return []
        good &= trial("im-sweep-", seeds.randrange(1 << 30), a.keep, body)
    print(f"sweep {'passed' if good else 'FAILED'}: {sum(deaths)} deaths in {time.monotonic() - began:.0f} s (seed {a.seed})")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
