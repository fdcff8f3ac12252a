#!/usr/bin/python3
"""kill -9 at random moments under load: nothing acknowledged is lost, nothing is stored twice, order holds.

    tests/kill/kill_test.py [--kills 200] [--seed S] [--users 8] [--keep]

Senders and receivers are stock Paho clients. Broker, seqgen and the message service are killed one after
another, in pairs and all at once; the supervisor starts them again. Then everything is left alone, every
receiver catches up, and what senders recorded, what receivers recorded and what the store holds are
compared (history.py). Ends with counts and status 0 only if every rule holds.
"""
import argparse
import collections
import json
import pathlib
import random
import sys
import threading
import time

import paho.mqtt.client as mqtt

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
from history import History, Row, check  # noqa: E402
from instance import Instance  # noqa: E402

PARTS = ("mosquitto", "im-seqgen", "im-offline")
OUTSTANDING = 15   # below Paho's own window of 20, so that it never holds messages back
NOT_NOW = ("journal_full", "journal_failed", "unavailable") # nothing was acknowledged; the client repeats it, and that may be taken
QUIET_S = 60       # for everything to be resolved once the kills are over


class Actor(threading.Thread):
    """A stock client with its own loop in its own thread, so that nothing is sent between a CONNACK and the repeats."""

    def __init__(self, instance, device, token, filters):
        super().__init__(daemon=True)
        self.device, self.user, self.filters = device, device.split(":")[0], filters
        self.port = instance.port
        self.stopping = threading.Event()
        self.connected = False
        self.connects = 0
        self.mqtt = mqtt.Client(client_id=device, clean_session=False, protocol=mqtt.MQTTv311)
        self.mqtt.username_pw_set(self.user, token)
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_disconnect = self._on_disconnect
        self.mqtt.on_message = self._on_message

    def _on_connect(self, client, userdata, flags, rc):
        self.connected = rc == 0
        if rc == 0:
            self.connects += 1
            client.subscribe([(f, 1) for f in self.filters])

    def _on_disconnect(self, client, userdata, rc):
        self.connected = False

    def _on_message(self, client, userdata, m):
        self.received(m.topic, m.payload)

    def received(self, topic, payload):
        raise NotImplementedError

    def turn(self):
        pass

    def run(self):
        pause = 0.05
        while not self.stopping.is_set():
            try:
                if self.mqtt.loop(timeout=0.02) != mqtt.MQTT_ERR_SUCCESS:
                    self.connected = False
                    time.sleep(pause + random.random() * pause)
                    self.mqtt.reconnect() if self.connects else self.mqtt.connect("127.0.0.1", self.port, keepalive=60)
            except OSError:
                time.sleep(0.05)
                continue
            self.turn()
        self.mqtt.disconnect()


class Sender(Actor):
    def __init__(self, instance, device, token, history, lock, addresses, rate, rng):
        super().__init__(instance, device, token, ["im/v1/in/ack", "im/v1/in/err"])
        self.history, self.lock, self.addresses, self.rate, self.rng = history, lock, addresses, rate, rng
        self.n = 0
        self.mids = {}
        self.open = {}          # id -> time of the first try
        self.next_at = 0.0
        self.sending = True
        self.mqtt.on_publish = self._on_publish

    def _on_publish(self, client, userdata, mid):
        key = self.mids.pop(mid, None)
        if key:
            with self.lock:
                self.history.acked.setdefault((self.user, key), time.monotonic())
            self.open.pop(key, None)

    def received(self, topic, payload):
        events = json.loads(payload)
        with self.lock:
            if topic.startswith("im/v1/in/ack"):
                for e in events:
                    self.history.ack_events.append((self.user, e["id"], canonical(self.user, e["conv"]), e["seq"], e["msgid"], e.get("dup", False)))
            elif topic.startswith("im/v1/in/err") and events.get("id") and events["code"] not in NOT_NOW:
                self.history.refused[self.user, events["id"]] = events["code"]

    def turn(self):
        now = time.monotonic()
        if not self.sending or not self.connected or now < self.next_at or len(self.open) >= OUTSTANDING:
            return
        self.next_at = now + self.rng.expovariate(self.rate)
        self.n += 1
        mid, address = f"{self.user}-{self.n}", self.rng.choice(self.addresses)
        body = f"{self.n} " + "x" * self.rng.choice((0, 10, 100, 1000))
        with self.lock:
            self.history.attempts[self.user, mid] = (canonical(self.user, address), body, self.n, now)
        self.open[mid] = now
        info = self.mqtt.publish(f"im/v1/to/{address}/{mid}", body, qos=2 if self.n % 10 == 0 else 1)
        self.mids[info.mid] = mid


class Receiver(Actor):
    def __init__(self, instance, device, token, history, lock, acks):
        super().__init__(instance, device, token, ["im/v1/in/msg/#", "im/v1/in/sent/#", "im/v1/in/evt/#"])
        self.acks, self.lock = acks, lock
        self.log = history.deliveries.setdefault(device, [])
        self.newest, self.acked, self.ack_at = {}, {}, 0.0

    def received(self, topic, payload):
        if "/evt/" in topic:
            return
        m = json.loads(payload)
        if m["type"] == "system":
            return
        conv = canonical(self.user, m["conv"])
        with self.lock:
            self.log.append((conv, m["seq"], m["msgid"], m["body"]))
        self.newest[m["conv"]] = max(self.newest.get(m["conv"], 0), m["seq"])

    def turn(self):
        now = time.monotonic()
        if not self.acks or not self.connected or now < self.ack_at:
            return
        self.ack_at = now + 0.3
        moves = [{"conv": c, "delivered": s} for c, s in self.newest.items() if self.acked.get(c) != s]
        if moves:
            self.mqtt.publish("im/v1/ack", json.dumps(moves), qos=1)
            self.acked.update({m["conv"]: m["delivered"] for m in moves})


def canonical(user, address):
    if address.startswith("g/"):
        return address
    a, b = sorted((user, address[2:]))
    return f"u/{a}:{b}"


class Nemesis:
    def __init__(self, instance, rng):
        self.instance, self.rng = instance, rng
        self.kills = collections.Counter()
        self.slowest = 0.0

    def strike(self):
        kind = self.rng.random()
        targets = PARTS if kind < 0.15 else self.rng.sample(PARTS, 2) if kind < 0.3 else [self.rng.choice(PARTS)]
        before = self.instance.pids()
        for name in targets:
            if self.instance.kill(name):
                self.kills[name] += 1
        start = time.monotonic()
        while any(self.instance.pids().get(n) in (None, before.get(n)) for n in targets):
            if time.monotonic() - start > 30:
                raise SystemExit(f"{targets} were not started again\n" + self.instance.logs())
            time.sleep(0.01)
        self.slowest = max(self.slowest, time.monotonic() - start)

    def total(self):
        return sum(self.kills.values())


def until(what, deadline_s, condition):
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def store_rows(instance, convs):
    rows = []
    for conv in sorted(convs):
        user, address = ("u0", conv) if conv.startswith("g/") else (conv[2:].split(":")[0], "u/" + conv.split(":")[1])
        for m in instance.history(user, address):
            if m.get("type") != "system":
                rows.append(Row(conv, m["seq"], m["msgid"], m["id"], m["from"], m["body"]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--rate", type=float, default=25.0, help="messages a second of each sender")
    parser.add_argument("--durability", default="process", choices=("process", "disk"))
    parser.add_argument("--keep", action="store_true")
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    rng = random.Random(a.seed)
    # Settle periods of 30 s and more must not decide what a test of two minutes sees: receivers ack, or are let to catch up.
    instance = Instance(conf=[f"plugin_opt_im_durability {a.durability}"], options=["--backoff-max", "200"])
    instance.start(timeout=300)
    users = [f"u{i}" for i in range(a.users)]
    tokens = instance.add_users(users)
    instance.imctl("group", "create", "g0", "--owner", "u0")
    instance.imctl("group", "add", "g0", *users[1:])
    instance.imctl("group", "create", "g1", "--owner", "u0")
    instance.imctl("group", "add", "g1", *users[1:a.users // 2])
    members = {"g/g0": users, "g/g1": users[:a.users // 2]}

    history, lock = History(), threading.Lock()
    receivers = [Receiver(instance, f"{u}:r", tokens[u], history, lock, acks=i % 2 == 0) for i, u in enumerate(users)]
    senders = []
    for i, u in enumerate(users):
        addresses = [f"u/{users[(i + k) % a.users]}" for k in (1, 2)] + [g for g in members if u in members[g]]
        senders.append(Sender(instance, f"{u}:s", tokens[u], history, lock, addresses, a.rate, random.Random(rng.random())))
    for actor in receivers + senders:
        actor.start()
    nemesis = Nemesis(instance, rng)
    start = shown = time.monotonic()
    time.sleep(2)
    while nemesis.total() < a.kills:
        nemesis.strike()
        time.sleep(rng.uniform(0.05, 0.8))
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{shown - start:.0f} s: {nemesis.total()} kills, {len(history.attempts)} sent, {len(history.acked)} acknowledged", flush=True)

    for s in senders:
        s.sending = False
    if not until("the instance", 30, lambda: instance.imctl("status", check=False).returncode == 0):
        raise SystemExit("the instance does not come back\n" + instance.logs())
    resolved = until("senders", QUIET_S, lambda: not any(s.open for s in senders))
    unresolved = sum(len(s.open) for s in senders)
    until("acks", 5, lambda: len({(e[0], e[1]) for e in history.ack_events}) >= len(history.acked))
    convs = {v[0] for v in history.attempts.values()}
    history.rows = store_rows(instance, convs)

    def receivers_of(conv):
        return [f"{u}:r" for u in (members[conv] if conv in members else set(conv[2:].split(":")))]

    def complete():
        with lock:
            have = {d: {(c, s) for c, s, _, _ in log} for d, log in history.deliveries.items()}
        return all((r.conv, r.seq) in have[d] for r in history.rows for d in receivers_of(r.conv))

    caught_up = time.monotonic()
    until("receivers", QUIET_S, complete)
    caught_up = time.monotonic() - caught_up
    history.rows = store_rows(instance, convs)
    with lock:
        found = check(history, receivers_of)
    for actor in senders + receivers:
        actor.stopping.set()
    for actor in senders + receivers:
        actor.join(5)

    verdicts = collections.Counter(v for v, _ in found)
    repeats = sum(len(log) - len({(c, s) for c, s, _, _ in log}) for log in history.deliveries.values())
    print(f"kills {nemesis.total()}: " + ", ".join(f"{n} {nemesis.kills[n]}" for n in PARTS) + f"; slowest restart {nemesis.slowest:.2f} s")
    print(f"attempted {len(history.attempts)}, acknowledged {len(history.acked)}, ack events {len(history.ack_events)}, stored {len(history.rows)}, "
          f"refused {len(history.refused)}, unresolved {unresolved}, repeated deliveries {repeats}, last receiver complete after {caught_up:.1f} s")
    print(f"lost {verdicts['LOST']}, duplicated {verdicts['DUP-STORE']}, reordered "
          f"{verdicts['REORDER-FIFO'] + verdicts['REORDER-RT'] + verdicts['REORDER-DELIVERY']}, false acks {verdicts['FALSE-ACK']}, "
          f"undelivered {verdicts['UNDELIVERED']}, other {sum(verdicts.values()) - sum(verdicts[v] for v in ('LOST', 'DUP-STORE', 'REORDER-FIFO', 'REORDER-RT', 'REORDER-DELIVERY', 'FALSE-ACK', 'UNDELIVERED'))}")
    for verdict, sentence in found[:20]:
        print(f"{verdict}: {sentence}")
    good = not found and resolved and history.rows and not history.refused
    instance.stop()
    reports = instance.sanitizer_reports()
    if reports:
        print(reports)
        good = False
    if not a.keep and good:
        instance.remove()
    else:
        print(f"kept in {instance.dir}")
    print("kill test " + ("passed" if good else "FAILED") + f" (seed {a.seed})")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
