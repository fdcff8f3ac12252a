"""A small chat with a history, for tests that break the processes under it in ways of their own: actors and rules are those of
scripts/chaos; two groups and pairs, all with message ids, and what must hold when everything is quiet again."""
import collections
import contextlib
import os
import pathlib
import random
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import chaos  # noqa: E402
import checker  # noqa: E402
from history import History, Writer, canonical  # noqa: E402
from client import Client  # noqa: E402
from faults import Faults  # noqa: E402
from instance import BUILD, SANITIZED, Instance  # noqa: E402
from world import Chat, Crowd  # noqa: E402


class Flood:
    """Fills the journal's segments, beside the chat that is checked: large messages to somebody who is not there."""

    def __init__(self, instance):
        self.instance = instance
        self.token = instance.add_users(["flood", "sink"])["flood"]

    def send(self, megabytes):
        try:
            with Client(self.instance, "flood", "pc", password=self.token) as c:
                for _ in range(megabytes * 16):
                    c.publish("im/v1/to/u/sink", os.urandom(48 << 10), qos=1)
        except Exception:
            pass  # the broker ended meanwhile, as it was to


class Load(Chat):
    movers = ()

    def __init__(self, instance, rng, users=6, rate=25.0):
        super().__init__()
        self.instance, self.history = instance, None
        self.histories = pathlib.Path(tempfile.mkdtemp(prefix="im-load-"))
        self.log = Writer(self.histories, "nemesis")
        self.users = [f"u{i}" for i in range(users)]
        tokens = instance.users = instance.add_users(self.users + ["probe1", "probe2"])
        members = {"g0": self.users, "g1": self.users[:users // 2]}
        for group, names in members.items():
            instance.imctl("group", "create", group, "--owner", "u0")
            instance.imctl("group", "add", group, *names[1:])
        specs = []
        for i, u in enumerate(self.users):
            spec = {"user": u, "token": tokens[u], "lib": "paho" if i % 2 else "raw", "v5": i % 3 == 0, "clean": False, "port": instance.port}
            to = [f"u/{self.users[(i + k) % users]}" for k in (1, 2)] + [f"g/{g}" for g in members if u in members[g]]
            specs.append(dict(spec, kind="receiver", client=f"{u}:r", acks=i % 2 == 0))
            specs.append(dict(spec, kind="sender", client=f"{u}:s", to=to, qos=(1,) * 9 + (2,), anon=False, rate=rate, window=14, denied=0.0))
        self.conversations = {canonical(s["user"], a) for s in specs for a in s.get("to", ())}
        self.receivers = {s["client"]: s for s in specs if s["kind"] == "receiver"}
        self.plan = {"seed": rng.random(), "folder": str(self.histories), "actors": specs, "visitors": []}

    def start(self):
        self.crowds = [Crowd(self.plan)]

    def acked(self):
        return self.total("acked")

    def await_acks(self, more, deadline_s=60):
        """The chat goes on after what the test did: so many more are acknowledged."""
        self.log.line("info", "fault", kind="test", target="?")
        want = self.acked() + more
        if chaos.wait(deadline_s, lambda: self.acked() >= want, 0.02) is None:
            raise SystemExit(f"nothing is acknowledged any more ({self.acked()} of {want})\n" + self.instance.logs())

    def settle(self):
        """Stops sending, waits until all is resolved and delivered; [(verdict, sentence)]. resume() goes on."""
        with contextlib.suppress(FileNotFoundError):
            (self.histories / "store.jsonl").unlink()
        chaos.heal(self)
        chaos.complete(self, chaos.dump(self))
        self.log.flush()
        self.history = History().read(self.histories)
        return checker.check(self.history)

    def resume(self):
        self.tell({"do": "speak"})

    def stop(self):
        for c in self.crowds:
            c.end()

    def remove(self):
        shutil.rmtree(self.histories, ignore_errors=True)

    def figures(self, found):
        n, verdicts = checker.numbers(self.history, found), collections.Counter(v for v, _ in found)
        return (f"attempted {n['attempted']}, acknowledged {n['acked']}, ack events {len(self.history.acks)}, stored {n['stored']}, "
                f"refused {n['refused']}; " + (", ".join(f"{v} {k}" for v, k in sorted(verdicts.items())) or "every rule holds"))


def trial(prefix, seed, keep, body):
    """body(instance, faults, load, rng) does its worst on a chat of its own and gives what it found; then all is let settle and judged.

    True: nothing was found."""
    folder = tempfile.mkdtemp(prefix=prefix)
    faults, rng, load = Faults(folder, BUILD, SANITIZED), random.Random(seed), None
    instance = Instance(keep_dir=folder, env=faults.environment(), options=["--backoff-max", "200"], conf=["plugin_opt_im_segment_bytes 8m"])
    print(f"seed {seed}", flush=True)
    try:
        instance.start(timeout=120)
        load = Load(instance, rng)
        load.start()
        load.await_acks(10)
        found = body(instance, faults, load, rng)
        if not found:
            found = load.settle()
            if not load.history.acks:
                found.append(("NOTHING", "no message was answered: there is nothing to check"))
            print(load.figures(found))
    finally:
        if load:
            load.stop()
        instance.stop()
    if instance.sanitizer_reports():
        found.append(("SANITIZER", instance.sanitizer_reports()))
    for verdict, sentence in found[:20]:
        print(f"{verdict}: {sentence}")
    if found or keep:
        print(f"kept in {instance.dir} and {load.histories}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        faults.remove()
        load.remove()
    return not found
