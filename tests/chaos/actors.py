#!/usr/bin/python3
"""A process full of actors: senders and receivers in one event loop, each with a history of its own.

Standard input: the plan (one JSON line), then commands, one a line:
    {"do":"mark","mark":7}          report the first round trip that begins from now on
    {"do":"storm","n":300}          so many more clients connect at once, and go a moment later
    {"do":"drop","share":0.5}       actors lose their connections, hard or softly
    {"do":"hush"}                   no new messages;   {"do":"speak"}: go on;   {"do":"end"}: disconnect and exit
Standard output: {"attempted","acked","answered","received","open","up","mark","roundtrip","tops"} every half second, and at the end of a round trip.
"""
import base64
import json
import os
import pathlib
import random
import select
import sys
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
from history import Writer, canonical  # noqa: E402
from links import PahoLink, RawLink  # noqa: E402
from raw import text  # noqa: E402

ACK_EVERY_S = 0.3
BEHIND_S = 2.0       # of its rate a sender makes up after an outage
SIZES = (0, 16, 64, 64, 200, 200, 1000, 1000, 4000)
STATUS_EVERY_S = 0.5
STORM_S = 1.5


def crc(body):
    return f"{zlib.crc32(body):08x}"


class Actor:
    def __init__(self, spec, folder, rng):
        self.spec, self.rng, self.inc = spec, rng, 0
        self.user, self.name = spec["user"], spec["client"]
        self.log = Writer(folder, self.name)
        self.log.line("info", "actor", **{k: spec[k] for k in ("kind", "user", "lib", "v5", "clean", "client")})
        self.link = PahoLink(spec, self) if spec["lib"] == "paho" else RawLink(spec, self)

    def up(self):
        self.inc += 1
        self.link.subscribe(self.FILTERS)

    def down(self):
        pass

    def repeated(self, token):
        pass

    def turn(self, now):
        pass


class Sender(Actor):
    FILTERS = ("im/v1/in/ack", "im/v1/in/err")

    def __init__(self, spec, folder, rng):
        super().__init__(spec, folder, rng)
        self.interval, self.next_at = 1.0 / spec["rate"], time.monotonic() + rng.random()
        self.open, self.refused, self.counts, self.made = {}, {}, {}, 0   # the first two: id -> the fields of its invoke line
        self.attempted = self.taken = self.answered = 0
        self.hushed, self.marked, self.roundtrip = False, None, None
        self.begun = {}   # id -> time, of those sent since the mark

    def turn(self, now):
        while not self.hushed and self.link.connected and now >= self.next_at and len(self.open) < self.spec["window"]:
            self.next_at = max(self.next_at + self.interval, now - BEHIND_S)
            self._send(now)

    def _send(self, now):
        self.made += 1
        key, deny = f"{self.name.replace(':', '.')}-{self.made}", None
        address, qos = self.rng.choice(self.spec["to"]), self.rng.choice(self.spec["qos"])
        if self.rng.random() < self.spec["denied"]:
            address, deny, qos = self.rng.choice((("g/closed", "not_member", 1), ("u/nobody", "unknown_user", 1)))
        conv = canonical(self.user, address)
        n = self.counts[conv] = self.counts.get(conv, 0) + 1
        body = key.encode() + b" " + self._filler()
        fields = {"id": key, "conv": conv, "n": n, "h": crc(body), "len": len(body), "qos": qos}
        if deny:
            fields["deny"] = deny
        anon = self.spec["anon"] and not deny
        if anon:
            fields["anon"] = 1
        if self.marked is not None:
            self.begun[key] = now
        self.attempted += 1
        self.log.line("invoke", "pub", self.inc, dup=0, **fields)
        self.log.flush()
        if qos:
            self.open[key] = fields
        self._publish(address, key, body, qos, anon)

    def _filler(self):
        size = self.rng.choice(SIZES)
        return b"\xff\x00" * (size // 2) if self.rng.random() < 0.1 else b"x" * size

    def _publish(self, address, key, body, qos, anon):
        """The id is a level of the topic, an MQTT 5 property or a field of an envelope."""
        form = self.rng.random()
        if anon:
            self.link.publish(f"im/v1/to/{address}", body, qos, key)
        elif form < 0.2 and b"\xff" not in body:
            self.link.publish("im/v1/send", json.dumps({"to": address, "id": key, "body": body.decode()}).encode(), qos, key)
        elif form < 0.4 and self.spec["v5"] and self.spec["lib"] == "raw":
            self.link.publish(f"im/v1/to/{address}", body, qos, key, b"\x26" + text("im-id") + text(key))
        else:
            self.link.publish(f"im/v1/to/{address}/{key}", body, qos, key)

    def down(self):
        for key in self.open:
            self.log.line("info", "pub", self.inc, id=key)

    def repeated(self, token):
        """It is sent once more. What was refused is open again: the library has begun a new try (PahoLink)."""
        if token in self.refused:
            self.open[token] = self.refused.pop(token)
        if token in self.open:
            self.log.line("invoke", "pub", self.inc, dup=1, **self.open[token])
            self.log.flush()

    def acked(self, token, rc):
        fields = self.open.pop(token, None)
        if fields is not None:
            if rc >= 0x80:
                self.refused[token] = fields
            self.log.line("fail" if rc >= 0x80 else "ok", "pub", self.inc, id=token, rc=rc)
            self.taken += rc < 0x80

    def _answer(self, event):
        key = event["id"]
        self.log.line("ok", "ack", self.inc, id=key, conv=canonical(self.user, event["conv"]), seq=event["seq"], msgid=event["msgid"], dup=event["dup"])
        self.answered += 1
        if self.marked is not None and self.begun.get(key, 0) > self.marked:
            self.roundtrip, self.marked, self.begun = time.monotonic() - self.marked, None, {}

    def message(self, topic, payload):
        told = json.loads(payload)
        if topic == "im/v1/in/ack":
            for event in told:
                self._answer(event)
        elif topic == "im/v1/in/err" and told.get("id"):
            self.log.line("fail", "pub", self.inc, id=told["id"], code=told["code"])


class Receiver(Actor):
    FILTERS = ("im/v1/in/msg/#", "im/v1/in/sent/#", "im/v1/in/evt/sync")

    def __init__(self, spec, folder, rng):
        super().__init__(spec, folder, rng)
        self.received, self.tops, self.told, self.ack_at, self.open = 0, {}, {}, 0.0, {}
        self.convs = {}  # as the user sees it -> canonical

    def message(self, topic, payload):
        if topic.endswith("evt/sync"):
            return
        m = json.loads(payload)
        if topic == "im/v1/in/err":
            self.log.line("fail", "cursor", self.inc, code=m["code"], reason=m["reason"])
            return
        conv = self.convs.get(m["conv"]) or self.convs.setdefault(m["conv"], canonical(self.user, m["conv"]))
        self.log.line("ok", "recv", self.inc, via="push", **message_fields(m, conv))
        self.received += 1
        if m["seq"] > self.tops.get(m["conv"], 0):
            self.tops[m["conv"]] = m["seq"]

    def turn(self, now):
        if not self.spec["acks"] or not self.link.connected or now < self.ack_at or self.open:
            return
        self.ack_at = now + ACK_EVERY_S
        moves = [{"conv": c, "delivered": s} for c, s in self.tops.items() if self.told.get(c) != s]
        if moves:
            token = str(self.ack_at)
            self.open[token] = moves
            self.log.flush()
            self.link.publish("im/v1/ack", json.dumps(moves[:200]).encode(), 1, token)

    def acked(self, token, rc):
        for m in self.open.pop(token, ())[:200]:
            self.told[m["conv"]] = m["delivered"]
            if rc < 0x80:
                self.log.line("ok", "cursor", self.inc, user=self.user, conv=self.convs[m["conv"]], delivered=m["delivered"])


def message_fields(m, conv):
    """What histories keep of a message as clients and imctl show it."""
    if m["type"] == "system":
        body = json.dumps(m["body"], sort_keys=True).encode()
    else:
        body = base64.b64decode(m["body"]) if m.get("enc") == "base64" else m["body"].encode()
    return {"conv": conv, "seq": m["seq"], "msgid": m["msgid"], "h": crc(body), "len": len(body),
            "id": None if m["type"] == "system" else m["id"] or body.split(b" ", 1)[0].decode()}


class Visitor:
    """One of a storm: connects, subscribes, goes."""

    def __init__(self, spec, until):
        self.until, self.name = until, spec["client"]
        self.link = RawLink(spec, self)

    def up(self):
        self.link.subscribe(("im/v1/in/#",))

    def down(self):
        pass

    def message(self, topic, payload):
        pass

    def turn(self, now):
        if now > self.until:
            self.link.close()


class Loop:
    def __init__(self, plan):
        rng = random.Random(plan["seed"])
        kinds = {"sender": Sender, "receiver": Receiver}
        self.actors = [kinds[s["kind"]](s, plan["folder"], random.Random(rng.random())) for s in plan["actors"]]
        self.visitors, self.storm_users = [], plan["visitors"]
        self.rng, self.status_at, self.ending, self.mark, self.trip = rng, 0.0, False, 0, None
        self.commands = b""
        os.set_blocking(0, False)

    def run(self):
        while not self.ending:
            now = time.monotonic()
            everybody = self.actors + self.visitors
            for a in everybody:
                a.link.tick(now)
                a.turn(now)
            self.visitors = [v for v in self.visitors if not v.link.closed]
            linked = [a.link for a in everybody if a.link.sock is not None]
            for link in linked:
                if link.wants_write():
                    link.writable()
            linked = [link for link in linked if link.sock is not None]
            ready, writable, _ = select.select([0] + linked, [link for link in linked if link.wants_write()], [], 0.005)
            for link in writable:
                if link.sock is not None:
                    link.writable()
            for link in ready:
                if link == 0:
                    self.command()
                elif link.sock is not None:
                    link.readable()
            if self.trip is None and self.mark:
                self.trip = min((a.roundtrip for a in self.actors if a.spec["kind"] == "sender" and a.roundtrip is not None), default=None)
                self.status_at = 0.0 if self.trip is not None else self.status_at
            if now >= self.status_at:
                self.status(now)
        for a in self.actors:
            a.link.close()
            a.log.close()

    def command(self):
        piece = os.read(0, 1 << 16)
        self.commands += piece
        self.ending = not piece
        *lines, self.commands = self.commands.split(b"\n")
        for line in lines:
            self.obey(json.loads(line))

    def obey(self, c):
        senders = [a for a in self.actors if a.spec["kind"] == "sender"]
        if c["do"] == "mark":
            self.mark, self.trip = c["mark"], None
            for s in senders:
                s.marked, s.roundtrip, s.begun = time.monotonic(), None, {}
        elif c["do"] in ("hush", "speak"):
            for s in senders:
                s.hushed = c["do"] == "hush"
        elif c["do"] == "drop":
            for a in self.actors:
                if self.rng.random() < c["share"]:
                    a.link.drop(self.rng.random() < 0.5)
        elif c["do"] == "storm":
            until = time.monotonic() + STORM_S
            for i in range(c["n"]):
                user = self.storm_users[i % len(self.storm_users)]
                self.visitors.append(Visitor(dict(user, client=f"{user['user']}:v{i}"), until))
        elif c["do"] == "end":
            self.ending = True

    def status(self, now):
        self.status_at = now + STATUS_EVERY_S
        for a in self.actors:
            a.log.flush()  # first: who reads that something was received may look for it
        senders = [a for a in self.actors if a.spec["kind"] == "sender"]
        receivers = [a for a in self.actors if a.spec["kind"] == "receiver"]
        print(json.dumps({
            "attempted": sum(s.attempted for s in senders), "acked": sum(s.taken for s in senders), "answered": sum(s.answered for s in senders),
            "received": sum(r.received for r in receivers), "open": sum(len(a.open) for a in senders), "up": sum(a.link.connected for a in self.actors),
            "mark": self.mark, "roundtrip": self.trip, "tops": {r.name: r.tops for r in receivers}}), flush=True)


if __name__ == "__main__":
    Loop(json.loads(sys.stdin.buffer.raw.readline())).run()
