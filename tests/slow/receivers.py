"""Receivers that misbehave, each in a way of its own, and can be healed: then all that was sent to them must come.

A device that never acknowledges (im/v1/ack) is a silent one, whose memory im_silent_* bound; one that has done so once is an
acking one, bound by im_ack_window.

What a silent device has not taken from its socket does not settle (docs/delivery.md, "Who does not read"): it comes again with
the next connection. A stored session has it in the broker's queue besides.
"""
import json
import struct
import threading
import time
from dataclasses import dataclass

from raw import PINGREQ, PUBLISH, Raw, packet, properties

KEEPALIVE = 20       # seconds: a settle period of 35, and a PINGREQ now and then keeps the silent ones connected
PING_EVERY = 6
WEBSOCKET_PING = 300  # seconds after which libwebsockets pings a connection; it hangs up 10 s later
SETTLE = 1.5 * KEEPALIVE + 5
KINDS = ("stalled", "trickle", "no_puback", "no_ack", "away")


@dataclass(frozen=True)
class Variant:
    name: str
    qos: int = 1
    v5: bool = False
    receive_maximum: int = None
    websocket: bool = False


VARIANTS = (Variant("v311-qos0", 0), Variant("v311-qos1", 1), Variant("v311-qos2", 2), Variant("v5-window1", 1, True, 1),
            Variant("websocket", 1, websocket=True))


class Receiver:
    def __init__(self, im, user, kind, variant):
        self.im, self.user, self.kind, self.variant = im, user, kind, variant
        self.name = f"{kind} {variant.name}"
        self.firsts, self.newest, self.acked = [], 0, 0     # (seq, id) in the order of first arrival
        self.healed = threading.Event()
        self.thread = None
        self.connect(receive_buffer=4096 if kind in ("stalled", "trickle") else None)
        if kind == "no_ack":
            self.ack_once()
        if kind == "away":
            self.raw.close()
        elif kind == "trickle":
            self.run(self.trickle)
        elif kind in ("no_puback", "no_ack"):
            self.run(self.swallow)

    def connect(self, receive_buffer=None):
        v, clean, props = self.variant, self.kind != "no_puback", b""
        if v.v5:
            props = properties(receive_maximum=v.receive_maximum, **({} if clean else {"session_expiry": 3600}))
        self.raw = Raw(self.im.ws_port if v.websocket else self.im.port, self.user, f"{self.user}:d", self.im.users[self.user], v5=v.v5,
                       keepalive=KEEPALIVE, receive_buffer=receive_buffer, websocket=v.websocket, clean=clean, props=props)
        self.since = time.monotonic()
        assert self.raw.rc == 0
        assert self.raw.subscribe("im/v1/in/#", v.qos) == v.qos

    def run(self, what):
        self.thread = threading.Thread(target=what, daemon=True)
        self.thread.start()

    def ping(self):
        if self.kind != "away" and not self.healed.is_set():
            self.raw.socket.sendall(packet(PINGREQ, 0))

    # ---- misbehaving

    def trickle(self):
        sock = getattr(self.raw.socket, "sock", self.raw.socket)  # below the WebSocket's frames
        sock.settimeout(2)
        kept = b""
        while not self.healed.wait(1):
            try:
                kept += sock.recv(1)
            except TimeoutError:
                pass
        if self.variant.websocket:
            self.raw.socket.raw += kept
        else:
            self.raw.buffer += kept

    def swallow(self):
        """Reads all; "no_ack" sends PUBACKs, but no im/v1/ack; "no_puback" neither."""
        while not self.healed.is_set():
            try:
                kind, flags, body = self.raw.read(0.3)
            except TimeoutError:
                continue
            if kind == PUBLISH:
                self.note(*(self.raw.take(flags, body) if self.kind == "no_ack" else self.peek(flags, body)))

    def peek(self, flags, body):
        size = struct.unpack("!H", body[:2])[0]
        return body[2:2 + size].decode(), body[body.index(b"{"):] if b"{" in body else b""

    def ack_once(self):
        """From now on the device is an acking one."""
        self.im.imctl("send", "sender", f"u/{self.user}", "hello")
        while not self.newest:
            self.note(*self.raw.message())
        self.firsts.clear()
        self.acked = self.newest
        self.raw.publish("im/v1/ack", json.dumps([{"conv": "u/sender", "delivered": self.newest}]))

    # ---- what has come

    def note(self, topic, payload):
        if not topic.startswith("im/v1/in/msg/"):
            return
        m = json.loads(payload)
        if m["seq"] <= self.newest:
            return  # a repeat; at least once
        assert m.get("prev", 0) == self.newest, f"{self.name}: {m['seq']} came behind {self.newest}, but before it was {m.get('prev')}"
        self.newest = m["seq"]
        self.firsts.append((m["seq"], m["id"]))

    def ack(self, least):
        if self.newest - self.acked >= least:
            self.acked = self.newest
            self.raw.socket.sendall(self.raw.publish_packet("im/v1/ack", json.dumps([{"conv": "u/sender", "delivered": self.newest}]), 0))

    # ---- healed

    def heal(self, last, deadline):
        """Behaves from now on; reads until the id `last` has come."""
        self.healed.set()
        if self.thread:
            self.thread.join(10)
        if self.kind in ("away", "no_puback"):
            self.raw.close()
            self.connect()
        if self.kind == "no_ack":
            self.ack(1)
        pinged = time.monotonic()
        while not self.firsts or self.firsts[-1][1] != last:
            if self.kind in ("no_ack", "away"):
                self.ack(100)
            try:
                self.note(*self.raw.message(min(1, max(0.001, deadline - time.monotonic()))))
            except TimeoutError:
                assert time.monotonic() < deadline, f"{self.name}: {len(self.firsts)} came, the last is missing"
            except ConnectionError:
                if not self.variant.websocket or time.monotonic() < self.since + WEBSOCKET_PING or time.monotonic() > deadline:
                    raise
                self.connect()  # it had not read the broker's WebSocket ping, and was hung up
            if time.monotonic() - pinged > PING_EVERY:
                pinged = time.monotonic()
                self.raw.socket.sendall(packet(PINGREQ, 0))
        self.raw.close()


class Pinger:
    """Keeps the connections of silent clients alive: what they never do is read."""

    def __init__(self, receivers):
        self.receivers, self.over = receivers, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(PING_EVERY):
            for r in self.receivers:
                try:
                    r.ping()
                except OSError:
                    pass

    def stop(self):
        self.over.set()
        self.thread.join()
