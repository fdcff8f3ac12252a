"""What goes wrong, when and for how long: faults with a start and a stop, and a schedule by seed.

A fault is a class with

    name, weight            how often, beside the others of the run
    hold = (least, most)    seconds between start and stop, by the schedule's random numbers
    tolerant = False        True: processes may end by themselves meanwhile, and be started again
    needs = ()              of what World offers: "proxy", "clock", "disk", "preload"
    start(world, rng)       does it and returns its target, for the report
    stop(world)             undoes it; also called if start raised

and joins by @fault. What faults.py does inside the processes ("preload") has kill points too: killpoint_test.py.
"""
import collections
import errno
import os
import resource
import signal
import threading
import time

from faults import SYNC, WRITE
from proxy import MODES

PARTS = ("mosquitto", "im-seqgen", "im-offline")
UP_S = 30           # a killed part is back within
RECOVERED_S = 30    # and a message goes all the way within
SLOW_S = 5          # recoveries that took longer are shown with the ends of the logs: a run that passes keeps nothing else
AGAIN = 0.15        # share of faults that hit while the one before is still being recovered from
FAULTS = {}


def fault(cls):
    FAULTS[cls.name] = cls
    return cls


class Fault:
    weight, hold, tolerant, needs = 1.0, (0.0, 0.0), False, ()

    def start(self, world, rng):
        raise NotImplementedError

    def stop(self, world):
        pass


def victims(rng):
    kind = rng.random()
    return list(PARTS) if kind < 0.12 else rng.sample(PARTS, 2) if kind < 0.27 else [rng.choice(PARTS)]


@fault
class Kill(Fault):
    name, weight = "kill", 12.0

    def start(self, world, rng):
        targets = victims(rng)
        again = rng.random() < AGAIN  # killed once more as soon as it is there, in the middle of its recovery
        before = world.kill(targets)
        if again:
            world.wait_new(targets, before)
            time.sleep(rng.uniform(0.0, 0.1))
            before = world.kill(targets)
        world.wait_new(targets, before)
        return ",".join(targets)


@fault
class Stop(Fault):
    name, weight, hold = "stop", 2.0, (0.1, 3.0)

    def start(self, world, rng):
        chosen = victims(rng)
        self.pids = [pid for name, pid in world.pids().items() if name in chosen]
        self.signal(signal.SIGSTOP)
        return ",".join(chosen)

    def stop(self, world):
        self.signal(signal.SIGCONT)

    def signal(self, sig):
        for pid in self.pids:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass


@fault
class Net(Fault):
    name, weight, hold, needs = "net", 2.0, (0.5, 4.0), ("proxy",)

    def start(self, world, rng):
        mode = rng.choice(MODES)
        world.proxy.set(mode, delay_s=rng.uniform(0.02, 0.5), after=rng.randrange(1, 20000))
        return mode

    def stop(self, world):
        world.proxy.heal()


@fault
class Connections(Fault):
    """Everybody loses the connection at once, or hundreds more come."""
    name, weight, hold = "connections", 1.0, (0.5, 1.0)

    def start(self, world, rng):
        if rng.random() < 0.5:
            share = rng.choice((0.1, 0.5, 1.0))
            world.tell({"do": "drop", "share": share})
            return f"drop {share}"
        n = rng.randrange(50, 200)
        world.tell({"do": "storm", "n": n})
        return f"storm {n}"


@fault
class Clock(Fault):
    """The wall clock of broker and services jumps, by seconds or an hour, in either direction."""
    name, weight, hold, needs = "clock", 1.0, (1.0, 4.0), ("clock",)

    def start(self, world, rng):
        seconds = rng.choice((-3600, -60, -2, 2, 60, 3600))
        world.set_clock(seconds)
        return f"{seconds:+d} s"

    def stop(self, world):
        world.set_clock(0)


@fault
class Memory(Fault):
    """A service gets no more address space than it has: it may end, and is started again without that limit."""
    name, weight, hold, tolerant = "memory", 0.5, (0.5, 2.0), True

    def start(self, world, rng):
        name = rng.choice(PARTS[1:])
        self.pid = world.pids().get(name)
        try:
            size = int(open(f"/proc/{self.pid}/statm").read().split()[0]) * resource.getpagesize()
            self.limit(size + (1 << 20))
        except (FileNotFoundError, ProcessLookupError):
            pass
        return name

    def stop(self, world):
        try:
            self.limit(resource.RLIM_INFINITY)
        except ProcessLookupError:
            pass  # it ended

    def limit(self, n):
        resource.prlimit(self.pid, resource.RLIMIT_AS, (n, resource.RLIM_INFINITY))


@fault
class DiskFull(Fault):
    """No byte is left on the data folder's disk, which is a tmpfs of the run's own."""
    name, weight, hold, tolerant, needs = "diskfull", 1.0, (0.5, 3.0), True, ("disk",)

    def start(self, world, rng):
        with open(world.hog(), "wb", buffering=0) as f:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        f.write(b"\0" * size)
                except OSError:
                    pass
        return "data"

    def stop(self, world):
        world.hog().unlink(missing_ok=True)


# program, path, calls, error (0: none), times, delay in ms: each is something a disk does
DISK = (
    ("mosquitto", ".seg", WRITE, errno.EIO, 2, 0), ("mosquitto", ".seg", SYNC, errno.EIO, 1, 0), ("mosquitto", ".seg", WRITE, errno.ENOSPC, 20, 0),
    ("mosquitto", ".seg", SYNC, 0, 5, 300), ("im-offline", ".log$", WRITE, errno.EIO, 1, 0), ("im-offline", ".log$", SYNC, errno.EIO, 1, 0),
    ("im-offline", ".log$", WRITE, errno.ENOSPC, 1, 0), ("im-offline", ".log$", SYNC, 0, 3, 500), ("im-offline", "store.db", WRITE, errno.ENOSPC, 2, 0),
    ("im-offline", "store.db-wal", SYNC, errno.EIO, 1, 0), ("im-seqgen", "", SYNC, errno.EIO, 2, 0),
)


@fault
class Disk(Fault):
    """EIO, ENOSPC, a failed or slow fdatasync, in one process."""
    name, weight, hold, tolerant, needs = "disk", 3.0, (0.2, 2.0), True, ("preload",)

    def start(self, world, rng):
        program, path, calls, error, count, delay_ms = rng.choice(DISK)
        world.faults.fail(program, path, calls, error, count=count, delay_ms=delay_ms)
        return f"{program} {path} {errno.errorcode.get(error, 'slow')}"

    def stop(self, world):
        world.faults.heal()


@fault
class Power(Fault):
    """The machine loses power: everything ends at once, and what no sync covers may be gone."""
    name, weight, tolerant, needs = "power", 2.0, True, ("preload",)

    def start(self, world, rng):
        world.cut_power(rng)
        return "all"


class Nemesis(threading.Thread):
    def __init__(self, world, faults, rng, pause_s):
        super().__init__(daemon=True)
        self.world, self.rng, self.pause_s = world, rng, pause_s
        self.faults = [FAULTS[f] for f in faults]
        self.done = collections.Counter()
        self.recoveries = []     # (seconds from the end of a fault to the first message that went all the way, fault)
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        try:
            while not self.stopping.is_set():
                self.strike()
                self.stopping.wait(self.rng.expovariate(1.0 / self.pause_s))
        except Exception as e:  # told by the main thread, which ends the run
            self.error = e

    def strike(self):
        kind = self.rng.choices(self.faults, [f.weight for f in self.faults])[0]
        hold, overlap = self.rng.uniform(*kind.hold), self.rng.random() < AGAIN
        f = kind()
        since = self.world.excuse() if kind.tolerant else None
        target = "?"
        try:
            target = f.start(self.world, self.rng)
            if kind is not Power:  # that one is in the history with its moment
                self.world.log.line("info", "fault", kind=kind.name, target=target, hold=round(hold, 3))
            time.sleep(hold)
        finally:
            f.stop(self.world)
            if kind.tolerant:  # a start may have failed in between, too
                self.world.excuse(since)
        self.done[kind.name] += 1
        self.world.mark()
        if not overlap:
            took = self.world.round_trip(RECOVERED_S)
            self.recoveries.append((took, f"{kind.name} {target}"))
            self.world.log.line("info", "recovered", kind=kind.name, target=target, s=round(took, 3))
            if took > SLOW_S:
                print(f"slow: {took:.1f} s after {kind.name} {target}\n{self.world.instance.logs(20)}", flush=True)

    def stop(self):
        self.stopping.set()
        self.join(120)
        if self.is_alive():
            raise SystemExit("the nemesis does not end")
