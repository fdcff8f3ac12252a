"""One instance, its actors and the proxy, as the nemesis and the run see them."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import actors
from faults import Faults
from history import Writer, canonical
from instance import BUILD, SANITIZED, Instance
from journal import Keeper
from nemesis import PARTS, UP_S
from proxy import Proxy

HERE = pathlib.Path(__file__).resolve().parent
FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1")
DISK = "600m"  # of the tmpfs for `diskfull`
VISITORS = 8   # users of connection storms
SETTLE_S = 35  # settle period of the actors' longest keepalive (links.py): 1.5 x 20 s + 5 s
SILENT_BYTES, OVERHEAD = 64 << 20, 256  # im_silent_bytes, and what a message counts there beside its body (handover.c)
EXIT = re.compile(r"evt=exit part=(\S+) pid=(\d+) how=\"([^\"]*)\"")


class Crowd:
    """A process of actors.py."""

    def __init__(self, plan):
        self.process = subprocess.Popen([sys.executable, str(HERE / "actors.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.status, self.lock = {}, threading.Lock()
        self.tell(plan)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.status = json.loads(line)

    def tell(self, command):
        with self.lock:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.tell({"do": "end"})
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Chat:
    """Crowds on an instance."""

    def __init__(self):
        self.crowds, self.marks = [], 0

    def tell(self, command):
        for c in self.crowds:
            c.tell(command)

    def total(self, field):
        return sum(c.status.get(field, 0) for c in self.crowds)

    def mark(self):
        self.marks += 1
        self.tell({"do": "mark", "mark": self.marks})

    def all_gone(self, limit=20):
        """Once the server is dead: everybody has read what it still sent, and so knows its acknowledgements."""
        self.mark()
        deadline = time.monotonic() + limit
        while any(c.status.get("mark") != self.marks or c.status["up"] for c in self.crowds):
            if time.monotonic() > deadline:
                raise RuntimeError(f"there are connections {limit} s after the server's death")
            time.sleep(0.01)

    def round_trip(self, limit):
        """Seconds from the last mark to the first answer to a message sent after it."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            trips = [c.status["roundtrip"] for c in self.crowds if c.status.get("mark") == self.marks and c.status["roundtrip"] is not None]
            if trips:
                return min(trips)
            time.sleep(0.01)
        raise RuntimeError(f"no message goes all the way {limit} s after the fault\n" + self.instance.logs(15))


class World(Chat):
    def __init__(self, options, rng):
        super().__init__()
        self.options, self.rng = options, rng
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="im-chaos-"))
        self.histories = self.folder / "history"
        self.histories.mkdir()
        self.data = self.folder / "data"
        self.data.mkdir()
        self.mounted = False
        if "diskfull" in options.faults:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(self.data)], check=True)
            self.mounted = True
        (self.data / "d").mkdir()
        self.log = Writer(self.histories, "nemesis")
        self.log.line("info", "run", seed=options.seed, durability=options.durability, power_window_ns=10**9)
        self.power_cuts = "power" in options.faults
        self.faults = Faults(self.data / "d", BUILD, SANITIZED) if {"disk", "power"} & set(options.faults) else None
        self.instance = Instance(conf=[f"plugin_opt_im_durability {options.durability}", "plugin_opt_im_segment_bytes 8m",
                                       f"plugin_opt_im_journal_limit {'128m' if self.mounted else '1g'}"],
                                 options=["--backoff-max", "200"], keep_dir=self.data / "d", env=self._environment())
        self.killed, self.excused = {}, set()   # pid -> name of what was killed; pids that may end by themselves
        self.proxy = self.keeper = None

    # ---- set up

    def _environment(self):
        """Of the broker and the services."""
        env = self.faults.environment() if self.faults else {}
        if "clock" in self.options.faults:
            libraries = [faketime()] + ([env["LD_PRELOAD"]] if self.faults else [])
            env.update(LD_PRELOAD=":".join(libraries), FAKETIME_TIMESTAMP_FILE=str(self.folder / "clock"), FAKETIME_CACHE_DURATION="1",
                       DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_RESET="1")
        return env

    def start(self):
        self.set_clock(0)
        self.instance.start(timeout=300)
        o = self.options
        self.users = [f"u{i}" for i in range(o.users)]
        extra = ["probe1", "probe2"] + [f"storm{i}" for i in range(VISITORS)]
        self.instance.users = self.tokens = self.instance.add_users(self.users + extra)
        half, self.movers = self.users[:o.users // 2], self.users[-2:]
        self.groups = {"crowd": self.users, "half": half}
        for name, members in self.groups.items():
            self.instance.imctl("group", "create", name, "--owner", "u0")
            self.instance.imctl("group", "add", name, *members[1:])
        self.instance.imctl("group", "create", "closed", "--owner", "probe1")
        self.proxy = Proxy(self.instance.port, self.rng.random())
        self.proxy.start()
        self.keeper = Keeper(self.data / "d" / "journal", Writer(self.histories, "journal"), canonical)
        self.keeper.start()
        self._crowds()

    def _crowds(self):
        """Receivers first, then senders: two processes, each with half of everybody."""
        plans = [{"seed": self.rng.random(), "folder": str(self.histories), "actors": [],
                  "visitors": [self._spec("visitor", f"storm{i}", "v", i) for i in range(k, VISITORS, 2)]} for k in (0, 1)]
        everybody = [dict(self._spec("receiver", u, "r", i), acks=i % 5 != 2) for i, u in enumerate(self.users)]
        # One whom nothing but the server's patience saves: it acks nothing, the broker keeps nothing for it, and its network loses packets.
        everybody.append(dict(self._spec("receiver", self.users[0], "q", 7), acks=False, clean=True))
        everybody += [self._sender(i) for i in range(self.options.senders)]
        self.receivers = {s["client"]: s for s in everybody if s["kind"] == "receiver"}
        for i, spec in enumerate(everybody):
            plans[i % 2]["actors"].append(spec)
        self.crowds = [Crowd(p) for p in plans]
        self.conversations = {canonical(s["user"], a) for s in everybody if s["kind"] == "sender" for a in s["to"]}

    def _spec(self, kind, user, device, i):
        """All combinations come up: library, version, session, way."""
        return {"kind": kind, "user": user, "client": f"{user}:{device}", "token": self.tokens[user], "lib": "paho" if i % 4 == 1 else "raw",
                "v5": i // 2 % 2 == 1, "clean": i % 3 == 0, "port": self.proxy.port if i % 3 == 1 else self.instance.port}

    def _sender(self, i):
        users, n = self.users, len(self.users)
        user = users[i % n]
        direct = [f"u/{users[(i + k) % n]}" for k in (1, 2)]
        groups = [f"g/{g}" for g, members in self.groups.items() if user in members]
        qos = ((1,), (1, 1, 2), (1, 1, 1, 0), (2,), (1,))[i % 5]
        return dict(self._spec("sender", user, f"s{i // n}", i), to=direct * 3 + groups, qos=qos, anon=i % 6 == 5,
                    rate=self.options.rate / self.options.senders, window=14, denied=0.005)

    # ---- for faults

    def pids(self):
        with contextlib.suppress(OSError):
            return {name: pid for name, pid in self.instance.pids().items() if name in PARTS}
        return {}

    def kill(self, names):
        """SIGKILL at once to all of them; their pids."""
        before = {n: p for n, p in self.pids().items() if n in names and self._is(n, p)}
        for name, pid in before.items():
            with contextlib.suppress(ProcessLookupError):
                self.killed[pid] = name
                os.kill(pid, 9)
        return before

    def _is(self, name, pid):
        """The list may be of a moment ago, and a number may belong to somebody else by now."""
        with contextlib.suppress(OSError):
            return open(f"/proc/{pid}/comm").read().strip() == name
        return False

    def wait_new(self, names, before):
        deadline = time.monotonic() + UP_S
        while any(self.pids().get(n) in (None, before.get(n)) for n in names):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{names} were not started again within {UP_S} s")
            time.sleep(0.005)

    def excuse(self, since=None):
        """What runs now may end by itself, and what has ended since could; gives what the next call wants as `since`."""
        ended = self._exits(since) if since is not None else []
        self.excused |= set(self.pids().values()) | {pid for _, pid, _ in ended}
        return len(self.instance.lines)

    def hog(self):
        return self.data / "hog"

    def set_clock(self, seconds):
        if "clock" in self.options.faults:
            new = self.folder / "clock.new"
            new.write_text(f"{seconds:+d}s\n")
            new.rename(self.folder / "clock")

    def cut_power(self, rng):
        pids = self.pids()
        when = Faults.stop_all(self.instance)
        self.killed.update((pid, name) for name, pid in pids.items())
        self.faults.power_loss(rng)
        self.all_gone()
        self.log.line("info", "fault", kind="power", target="all", at=int(when * 1e9))
        self.instance.start(timeout=60)

    # ---- for the run

    def _exits(self, since=0):
        """(part, pid, how) of what the supervisor saw ending."""
        found = (EXIT.search(line) for line in self.instance.lines[since:])
        return [(m[1], int(m[2]), m[3]) for m in found if m]

    def crashes(self):
        """Of these what was not killed by us."""
        return [e for e in self._exits() if e[1] not in self.killed and e[1] not in self.excused]

    def stop(self):
        for c in self.crowds:
            c.end()
        if self.proxy:
            self.proxy.stop()
        self.instance.stop()

    def remove(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.data)], check=False)
        if self.faults:
            self.faults.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


def faketime():
    return next((p for p in FAKETIME if os.path.exists(p)), None)


def message_fields(m, conv):
    return actors.message_fields(m, conv)


__all__ = ["BUILD", "World", "faketime", "message_fields"]
