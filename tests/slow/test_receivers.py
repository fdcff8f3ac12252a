"""Slow, greedy and silent receivers: all kinds at once, in all variants, and what they cost the others.

The others' latency is measured three times: alone, beside the same load to receivers that behave, beside those that do not. The
bound on the broker's memory is computed from the settings, not from what was seen.
"""
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import others
from instance import SANITIZED, Instance
from raw import PUBACK, PUBCOMP, PUBREC, PUBREL, Raw, packet
from receivers import KINDS, SETTLE, VARIANTS, Pinger, Receiver
from scale import SMALL

SILENT_BYTES = 1 << 20       # small runs: each receiver is sent more than that
SILENT_TOTAL = 512 << 20     # handover.c
ACK_WINDOW = 500
PER_MESSAGE = 1024           # bytes the broker takes for a queued message besides its payload (measured: 700 to 900)
BROKER_ROOM = 48 << 20       # frames and deliveries under way: link window, im_expand_bytes, packets; freed memory that malloc keeps
SERVICE_ROOM = 160 << 20     # im_store_backlog 64 MiB, its rows on the way into SQLite, pages and kept messages (docs/delivery.md, 15)
WINDOW = {0: 1 << 30, 1: 200, 2: 15}  # the sender's; of QoS 2 the broker takes 20


def settings(scale):
    conf = ["plugin_opt_im_rate_user 0", "plugin_opt_im_rate_connection 0", f"plugin_opt_im_ack_window {ACK_WINDOW}", "plugin_opt_im_log warning"]
    return conf if scale.full else conf + [f"plugin_opt_im_silent_bytes {SILENT_BYTES}"]


class Sender:
    """Sends to all receivers in turn at a steady rate, with ids, at each one's QoS."""

    def __init__(self, im, receivers, scale):
        self.im, self.scale, self.ids, self.open = im, scale, {r: [] for r in receivers}, 0
        self.prefix, self.body = uuid.uuid4().hex[:6], "z" * scale.body

    def read(self, raw):
        kind, _, body = raw.read(60)
        if kind == PUBREC:
            raw.socket.sendall(packet(PUBREL, 2, body[:2]))
        self.open -= kind in (PUBACK, PUBCOMP)

    def send(self, raw, r):
        mid = f"{self.prefix}-{r.user}-{len(self.ids[r])}"  # an id is one message of its sender
        self.ids[r].append(mid)
        qos = r.variant.qos
        raw.socket.sendall(raw.publish_packet(f"im/v1/to/u/{r.user}/{mid}", self.body, qos))
        self.open += qos > 0
        while self.open >= WINDOW[qos] or raw.buffer:
            self.read(raw)

    def run(self):
        counts = {r: self.scale.backlog if r.kind == "away" else self.scale.messages for r in self.ids}
        start, sent = time.monotonic(), 0
        with Raw(self.im.port, "sender", "sender:s", self.im.users["sender"]) as raw:
            for n in range(max(counts.values())):
                for r in (r for r in counts if n < counts[r]):
                    self.send(raw, r)
                    sent += 1
                    if sent % 50 == 0:
                        time.sleep(max(0, start + sent / self.scale.rate - time.monotonic()))
            while self.open:
                self.read(raw)
        return sent, time.monotonic() - start


def allowed_growth(receivers, scale):
    """MiB that the broker may take for these receivers, by the settings."""
    payload = scale.body + 200  # the JSON around it
    total = 0
    for r in receivers:
        if r.kind == "no_ack":
            total += ACK_WINDOW * (payload + PER_MESSAGE)
        elif r.kind != "away":
            most = min(scale.messages, ((64 << 20) if scale.full else SILENT_BYTES) // payload + 500)  # a page over
            total += most * (payload + PER_MESSAGE)
    return (min(total, SILENT_TOTAL // payload * (payload + PER_MESSAGE)) + BROKER_ROOM) / (1 << 20)


def beside(im, credentials, scale, load):
    """The others' latency while `load` runs, again and again until it has ended: the worst of the rounds."""
    with ThreadPoolExecutor(1) as pool:
        running, worst = pool.submit(load), {}
        while not worst or not running.done():
            got = others.latency(im, credentials, scale.seconds)
            worst = {k: max(v, worst.get(k, 0)) for k, v in got.items()}
        return worst, running.result()


def check_latency(figures, scale):
    usual, beside_slow = figures["latency_behaving_ms"], figures["latency_slow_ms"]
    if SANITIZED:
        return
    assert beside_slow["p50"] <= 2 * max(usual["p50"], scale.p50_ms), figures
    assert beside_slow["p99"] <= 2 * max(usual["p99"], scale.p99_ms), figures


def check_store(im, r, ids):
    """What came is what was sent is what the store holds, in one order."""
    assert [i for _, i in r.firsts] == ids, r.name
    sent = set(ids)
    stored = [(m["seq"], m["id"]) for m in im.history(r.user, "u/sender") if m["id"] in sent]
    assert stored == r.firsts, r.name


@pytest.fixture
def im(scale):
    instance = Instance(conf=settings(scale))
    instance.start()
    yield instance
    instance.remove()


def test_slow_greedy_and_silent_receivers(im, scale, figures):
    cases = [(k, v) for k in KINDS for v in VARIANTS if not (k == "no_puback" and v.qos == 0)]
    credentials = others.add(im, 4 * others.PAIRS)
    im.users = im.add_users(["sender"] + [f"r{i}" for i in range(len(cases))])
    figures["latency_alone_ms"] = others.latency(im, credentials, scale.seconds)
    figures["latency_behaving_ms"], _ = beside(im, credentials, scale, lambda: others.latency(im, credentials, scale.seconds, rate=scale.rate, first=20))
    receivers = [Receiver(im, f"r{i}", *case) for i, case in enumerate(cases)]
    pinger, memory, sender = Pinger(receivers), others.Memory(im), Sender(im, receivers, scale)
    figures["latency_slow_ms"], (figures["messages"], figures["send_s"]) = beside(im, credentials, scale, sender.run)
    for r in receivers:
        began = time.monotonic()
        r.heal(sender.ids[r][-1], began + (300 if scale.full else 90))
        figures[f"{r.name}_s"] = round(time.monotonic() - began, 1)
        check_store(im, r, sender.ids[r])
    pinger.stop()
    figures["memory_mib_before_most_after"] = seen = memory.stop()
    figures["broker_growth_allowed_mib"] = round(allowed_growth(receivers, scale))
    check_latency(figures, scale)
    if not SANITIZED:
        before, most, _ = seen["mosquitto"]
        assert most - before <= allowed_growth(receivers, scale), figures
        before, most, _ = seen["im-offline"]
        assert most - before <= SERVICE_ROOM / (1 << 20), figures


# ---- for ever

def handed(im):
    rows = [json.loads(line) for line in im.imctl("--json", "session", "list").stdout.splitlines()]
    return {r["user"]: r["handed"] for r in rows}


@pytest.fixture
def small_im():
    instance = Instance(conf=settings(SMALL))
    instance.start()
    yield instance
    instance.remove()


def test_who_never_reads_gets_one_budget_however_long(small_im, figures):
    """Silent, alive by PINGREQ, for three settle periods: what was handed over stays where it was, and all comes when they read."""
    im, scale = small_im, replace(SMALL, messages=3000)
    cases = [("stalled", VARIANTS[0]), ("stalled", VARIANTS[1]), ("stalled", VARIANTS[4]), ("no_puback", VARIANTS[1])]
    im.users = im.add_users(["sender"] + [f"n{i}" for i in range(len(cases))])
    receivers = [Receiver(im, f"n{i}", *case) for i, case in enumerate(cases)]
    pinger, memory, sender = Pinger(receivers), others.Memory(im), Sender(im, receivers, scale)
    sender.run()
    budget = SILENT_BYTES // scale.body + 1
    deadline, most = time.monotonic() + 3 * SETTLE, {}
    while time.monotonic() < deadline:
        most = {user: max(n, most.get(user, 0)) for user, n in handed(im).items() if user != "sender"}
        time.sleep(2)
    figures["sent_to_each"], figures["budget"], figures["handed_to_each"] = scale.messages, budget, most
    began = time.monotonic()
    with ThreadPoolExecutor(len(cases)) as pool:
        for healed in [pool.submit(r.heal, sender.ids[r][-1], began + 4 * SETTLE) for r in receivers]:
            healed.result()
    figures["all_read_after_s"] = round(time.monotonic() - began, 1)
    for r in receivers:
        check_store(im, r, sender.ids[r])
    pinger.stop()
    figures["memory_mib_before_most_after"] = memory.stop()
    assert len(most) == len(cases) and 0 < min(most.values()) and max(most.values()) <= budget, figures
