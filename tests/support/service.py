"""The message service's end of $im/push/{provider}, for tests of a bridge: hands out jobs, answers what the bridge asks, hears verdicts."""
import collections
import threading
import time

from bridge import BusClient, pb


class Service:
    """ticket(job, ask) -> dict of a Ticket's fields, or None for no answer. By default it says send, with a body of `body`."""

    def __init__(self, instance, provider, ticket=None, start=None):
        self.topic, self.provider = f"$im/push/{provider}", provider
        self.start = start or f"{time.monotonic_ns():x}"
        self.body, self.hears = "accepted", True
        self.ticket = ticket or self.send
        self.frames = collections.OrderedDict()  # number -> jobs, not confirmed
        self.number, self.stored, self.full, self.greeted = 0, 0, False, 0
        self.asks, self.verdicts, self.answers = [], {}, {}
        self.fulls, self.asked = 0, 0
        self.changed = threading.Condition()
        self.mqtt = BusClient(instance.dir / "run/bus.sock", client_id="$im-push-tester")
        self.mqtt.username_pw_set("$im", (instance.dir / "run/bus.secret").read_text().strip())
        self.mqtt.on_connect = lambda c, u, flags, rc: c.subscribe(self.topic + "/up", 1)
        self.mqtt.on_subscribe = lambda c, u, mid, granted: self.hello()
        self.mqtt.on_message = lambda c, u, m: self.take(pb.Up.FromString(m.payload))
        self.mqtt.max_inflight_messages_set(0)
        self.mqtt.connect("bus")
        self.mqtt.loop_start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def say(self, **parts):
        self.mqtt.publish(self.topic, pb.Down(**parts).SerializeToString(), 1)

    def hello(self, to=""):
        self.say(hello=pb.Hello(protocol=1, provider=self.provider, version="test", start=self.start, to=to))

    def take(self, up):
        with self.changed:
            if up.HasField("hello"):
                self.greeted += 1
                if not up.hello.to:
                    self.hello(to=up.hello.start)
                for number, jobs in self.frames.items():
                    self.say(frame=number, jobs=jobs)
            self.fulls += up.full and not self.full
            self.full = up.full
            if up.of == self.start:
                self.stored = max(self.stored, up.stored)
                while self.frames and next(iter(self.frames)) <= up.stored:
                    self.frames.popitem(last=False)
            tickets = [t for t in (self._answer(a) for a in up.asks) if t is not None]
            if tickets:
                self.say(tickets=tickets)
            for v in up.verdicts:
                self.verdicts[(v.user, v.device, v.registered_ms, v.state)] = v
            if up.verdicts and self.hears:
                self.say(heard=up.said)
            for a in up.answers:
                self.answers[a.id] = a.json
            self.changed.notify_all()

    def _answer(self, ask):
        self.asks.append(ask)
        fields = self.ticket(ask.job, ask)
        return None if fields is None else pb.Ticket(id=ask.id, **fields)

    def token(self, job, **more):
        return pb.Token(**{"app": job.app, "env": "one", "token": "t" + job.device, "registered_ms": 1000, **more})

    def send(self, job, ask, body=None, **more):
        return {"verdict": pb.VERDICT_SEND, "token": self.token(job), "body": self.body if body is None else body, "seq": job.seq, **more}

    # ---- what a test does

    def job(self, key, user="alice", device=None, **more):
        now = int(time.time() * 1000)
        return pb.Job(**{"key": key, "user": user, "device": device or f"{user}:phone", "app": "chat", "created_ms": now, "deadline_ms": now + 86400000,
                         **more})

    def give(self, *jobs):
        with self.changed:
            self.number += 1
            self.frames[self.number] = jobs
            if not self.full:
                self.say(frame=self.number, jobs=jobs)
            return self.number

    def ask(self, json, timeout=10):
        """What the bridge says to a query of imctl's."""
        with self.changed:
            self.asked += 1
            number = self.asked
            self.say(queries=[pb.Query(id=number, json=json)])
            assert self.changed.wait_for(lambda: number in self.answers, timeout), "no answer"
            return self.answers[number]

    def wait(self, what, timeout=10):
        with self.changed:
            assert self.changed.wait_for(what, timeout), "not in time"
