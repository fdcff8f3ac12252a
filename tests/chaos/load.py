"""A small chat with a history, for tests that break the processes under it: stock senders and receivers as in
tests/kill, two groups and pairs, and what must hold when everything is quiet again (tests/kill/history.py)."""
import collections
import pathlib
import random
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "kill"), str(HERE.parent / "support")]
from history import History, check  # noqa: E402
from kill_test import QUIET_S, Receiver, Sender, store_rows, until  # noqa: E402


class Load:
    def __init__(self, instance, rng, users=6, rate=25.0):
        self.instance = instance
        self.users = [f"u{i}" for i in range(users)]
        tokens = instance.add_users(self.users)
        for group, members in (("g0", self.users), ("g1", self.users[:users // 2])):
            instance.imctl("group", "create", group, "--owner", "u0")
            instance.imctl("group", "add", group, *members[1:])
        self.members = {"g/g0": self.users, "g/g1": self.users[:users // 2]}
        self.history, self.lock = History(), threading.Lock()
        self.receivers = [Receiver(instance, f"{u}:r", tokens[u], self.history, self.lock, acks=i % 2 == 0) for i, u in enumerate(self.users)]
        self.senders = []
        for i, u in enumerate(self.users):
            addresses = [f"u/{self.users[(i + k) % users]}" for k in (1, 2)] + [g for g in self.members if u in self.members[g]]
            self.senders.append(Sender(instance, f"{u}:s", tokens[u], self.history, self.lock, addresses, rate, random.Random(rng.random())))

    def start(self):
        for actor in self.receivers + self.senders:
            actor.start()

    def acked(self):
        return len(self.history.acked)

    def await_acks(self, more, deadline_s=60):
        """The chat goes on: so many more are acknowledged."""
        want = self.acked() + more
        if not until("acks", deadline_s, lambda: self.acked() >= want):
            raise SystemExit(f"nothing is acknowledged any more ({self.acked()} of {want})\n" + self.instance.logs())

    def receivers_of(self, conv):
        return [f"{u}:r" for u in (self.members[conv] if conv in self.members else set(conv[2:].split(":")))]

    def _complete(self):
        with self.lock:
            have = {d: {(c, s) for c, s, _, _ in log} for d, log in self.history.deliveries.items()}
        return all((r.conv, r.seq) in have[d] for r in self.history.rows for d in self.receivers_of(r.conv))

    def settle(self):
        """Stops sending, waits until all is resolved and delivered; [(verdict, sentence)]. resume() goes on."""
        h = self.history
        for s in self.senders:
            s.sending = False
        if not until("the instance", 30, lambda: self.instance.imctl("status", check=False).returncode == 0):
            raise SystemExit("the instance does not come back\n" + self.instance.logs())
        until("senders", QUIET_S, lambda: not any(s.open for s in self.senders))
        open_ids = [(s.user, mid) for s in self.senders for mid in s.open]
        until("ack events", 5, lambda: len({(e[0], e[1]) for e in h.ack_events}) >= len(h.acked))
        convs = {v[0] for v in h.attempts.values()}
        h.rows = store_rows(self.instance, convs)
        until("receivers", QUIET_S, self._complete)
        h.rows = store_rows(self.instance, convs)
        with self.lock:
            found = check(h, self.receivers_of)
        return found + [("STUCK", f"{user} {mid} was neither acknowledged nor refused") for user, mid in open_ids]

    def resume(self):
        for s in self.senders:
            s.sending = True

    def stop(self):
        actors = self.senders + self.receivers
        for actor in actors:
            actor.stopping.set()
        for actor in actors:
            actor.join(5)

    def figures(self, found):
        h, verdicts = self.history, collections.Counter(v for v, _ in found)
        return (f"attempted {len(h.attempts)}, acknowledged {len(h.acked)}, ack events {len(h.ack_events)}, stored {len(h.rows)}, "
                f"refused {len(h.refused)}; " + (", ".join(f"{v} {n}" for v, n in sorted(verdicts.items())) or "every rule holds"))
