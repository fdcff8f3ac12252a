"""A client's connection in an event loop, raw or by the stock library, with one face for both.

    publish(topic, payload, qos, token)   later handler.acked(token, rc); after a lost connection it is sent again by itself
    handler.up() down() repeated(token) acked(token, rc) message(topic, payload)

Repeats go out in the order of the first sending and before anything new, as MQTT demands: with DUP and the old packet id if the
broker still has the session, otherwise as new packets.
"""
import collections
import contextlib
import errno
import random
import socket
import struct
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import raw
from raw import CONNACK, CONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBSCRIBE, packet, text

PINGREQ = 12
HOST = "127.0.0.1"
SILENCE_S = 8       # with something open and nothing heard for so long a client gives the connection up
BACKOFF_S = (0.03, 0.15)


class Link:
    def __init__(self, spec, handler):
        self.spec, self.handler = spec, handler
        self.connected, self.closed, self.again_at = False, False, 0.0

    def _lost(self):
        was, self.connected = self.connected, False
        self.again_at = time.monotonic() + random.uniform(*BACKOFF_S)
        if was:
            self.handler.down()


class RawLink(Link):
    def __init__(self, spec, handler, keepalive=20):
        super().__init__(spec, handler)
        self.v5, self.keepalive = spec["v5"], keepalive
        self.sock, self.out, self.inbox, self.mid = None, bytearray(), bytearray(), 0
        self.sent = collections.OrderedDict()  # packet id -> [token, topic, payload, qos, properties, released]
        self.heard = self.pinged = 0.0

    # ---- what the loop calls

    def fileno(self):
        return self.sock.fileno()

    def wants_write(self):
        return bool(self.out) or not self.connected

    def tick(self, now):
        if self.sock is None:
            if not self.closed and now >= self.again_at:
                self._connect()
        elif now - self.heard > (SILENCE_S if self.sent or not self.connected else self.keepalive):
            self.drop()
        elif self.connected and now - max(self.heard, self.pinged) > self.keepalive / 3:
            self.pinged = now
            self.out += packet(PINGREQ, 0)

    def writable(self):
        try:
            if self.out:
                del self.out[:self.sock.send(self.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.drop()

    def readable(self):
        try:
            piece = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.drop()
            return
        self.heard = time.monotonic()
        self.inbox += piece
        while self.sock is not None and self._packet():
            pass

    def drop(self, hard=False):
        if self.sock is None:
            return
        if hard:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.sock = None
        self._lost()

    def close(self):
        self.closed = True
        if self.sock and self.connected:
            self.out += packet(raw.DISCONNECT, 0)
            self.writable()
        self.drop()

    # ---- out

    def _connect(self):
        self.out.clear()
        self.inbox.clear()
        self.heard = time.monotonic()
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.sock.connect_ex((HOST, self.spec["port"])) not in (0, errno.EINPROGRESS):
            self.drop()
            return
        s = self.spec
        expiry = b"\x05\x11\x00\x00\x0e\x10" if not s["clean"] else b"\0"  # Session Expiry Interval 3600
        self.out += packet(CONNECT, 0, text("MQTT"), bytes([5 if self.v5 else 4, 0xc0 | (2 if s["clean"] else 0)]), struct.pack("!H", self.keepalive),
                           expiry if self.v5 else b"", text(s["client"]), text(s["user"]), text(s["token"]))

    def _next_mid(self):
        while True:
            self.mid = self.mid % 65535 + 1
            if self.mid not in self.sent:
                return self.mid

    def subscribe(self, filters):
        self.out += packet(SUBSCRIBE, 2, struct.pack("!H", self._next_mid()), b"\0" if self.v5 else b"", *[text(f) + b"\1" for f in filters])

    def publish(self, topic, payload, qos, token, properties=b""):
        mid = self._next_mid() if qos else 0
        if qos:
            self.sent[mid] = [token, topic, payload, qos, properties, False]
        self._send(mid, topic, payload, qos, properties, 0)

    def _send(self, mid, topic, payload, qos, properties, dup):
        self.out += packet(PUBLISH, dup << 3 | qos << 1, text(topic), struct.pack("!H", mid) if qos else b"",
                           raw.length(len(properties)) + properties if self.v5 else b"", payload)

    def _repeat(self, session_present):
        old, self.sent = self.sent, collections.OrderedDict()
        for mid, entry in old.items():
            token, topic, payload, qos, properties, released = entry
            if released and not session_present:
                continue
            self.sent[mid] = entry
            if released:
                self.out += packet(PUBREL, 2, struct.pack("!H", mid))
            else:
                self.handler.repeated(token)
                self._send(mid, topic, payload, qos, properties, int(session_present))

    # ---- in

    def _packet(self):
        size, at, shift = 0, 1, 0
        while True:
            if len(self.inbox) <= at:
                return False
            byte = self.inbox[at]
            size |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        if len(self.inbox) < at + size:
            return False
        head, body = self.inbox[0], bytes(self.inbox[at:at + size])
        del self.inbox[:at + size]
        self._take(head >> 4, head & 15, body)
        return True

    def _take(self, kind, flags, body):
        if kind == PUBLISH:
            self._delivery(flags, body)
        elif kind in (PUBACK, PUBREC):
            self._answered(kind, body)
        elif kind == PUBCOMP:
            self.sent.pop(struct.unpack("!H", body[:2])[0], None)
        elif kind == CONNACK:
            if body[1]:
                self.drop()
                return
            self.connected = True
            self.handler.up()
            self._repeat(body[0] & 1)
        elif kind == raw.DISCONNECT:
            self.drop()

    def _answered(self, kind, body):
        mid, rc = struct.unpack("!H", body[:2])[0], body[2] if len(body) > 2 else 0
        entry = self.sent.get(mid)
        if entry is None or entry[5]:
            return
        if kind == PUBACK or rc >= 0x80:
            del self.sent[mid]
        else:
            entry[5] = True
            self.out += packet(PUBREL, 2, body[:2])
        self.handler.acked(entry[0], rc)

    def _delivery(self, flags, body):
        size = struct.unpack("!H", body[:2])[0]
        topic, rest = body[2:2 + size].decode(), body[2 + size:]
        if flags & 6:
            self.out += packet(PUBACK, 0, rest[:2])  # deliveries are QoS 1 at most
            rest = rest[2:]
        if self.v5:
            rest = rest[1 + rest[0]:] if rest[0] < 128 else rest[2 + (rest[0] & 127) + (rest[1] << 7):]
        self.handler.message(topic, rest)


class Peeking(mqtt.Client):
    """Paho, which shows neither the reason codes of acknowledgements nor what it sends again: looked at in passing."""
    rc = 0

    def _send_publish(self, mid, *args, **more):
        self.on_sending(mid)
        return super()._send_publish(mid, *args, **more)

    def _look(self):
        body = self._in_packet["packet"]
        self.rc = body[2] if len(body) > 2 else 0

    def _handle_pubackcomp(self, cmd):
        if cmd == "PUBACK":
            self._look()
        else:
            self.rc = 0
        return super()._handle_pubackcomp(cmd)

    def _handle_pubrec(self):
        self._look()
        self.on_pubrec(struct.unpack("!H", self._in_packet["packet"][:2])[0], self.rc)
        return super()._handle_pubrec()


class PahoLink(Link):
    """Paho 1.6 does not look at the reason of a PUBREC: it sends PUBREL for what was refused, too. If the connection ends before the
    PUBCOMP and the next attempt to connect fails, it forgets that PUBREC came and sends the PUBLISH again, without DUP: a new message of
    the old packet id, which the server takes or refuses anew (test_links.py). So what is refused is kept until Paho has done with it."""

    def __init__(self, spec, handler, keepalive=10):
        super().__init__(spec, handler)
        self.tokens, self.refused, self.keepalive, self.begun = {}, {}, keepalive, False   # packet id -> token
        kind = {"protocol": mqtt.MQTTv5} if spec["v5"] else {"protocol": mqtt.MQTTv311, "clean_session": spec["clean"]}
        self.mqtt = Peeking(client_id=spec["client"], **kind)
        self.mqtt._connect_timeout = 0.5  # the loop has others to serve
        self.mqtt.username_pw_set(spec["user"], spec["token"])
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_disconnect = lambda *a: None
        self.mqtt.on_message = lambda c, u, m: handler.message(m.topic, m.payload)
        self.mqtt.on_publish = self._on_publish
        self.mqtt.on_pubrec = self._on_pubrec
        self.mqtt.on_sending = self._on_sending

    @property
    def sock(self):
        return self.mqtt.socket()

    def fileno(self):
        return self.mqtt.socket().fileno()

    def wants_write(self):
        return self.mqtt.want_write()

    def tick(self, now):
        if self.sock is not None:
            self._check(self.mqtt.loop_misc())
        elif self.connected:
            self._lost()
        elif not self.closed and now >= self.again_at:
            self._connect()

    def writable(self):
        self._check(self.mqtt.loop_write())

    def readable(self):
        for _ in range(50):
            self._check(self.mqtt.loop_read())
            sock = self.sock
            if sock is None:
                return
            try:
                sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                pass  # the next loop_read tells Paho

    def _check(self, rc):
        if rc != mqtt.MQTT_ERR_SUCCESS or self.sock is None:
            self._lost()

    def _connect(self):
        self.again_at = time.monotonic() + 0.2
        try:
            if self.begun:
                self.mqtt.reconnect()
            elif self.spec["v5"]:
                props = Properties(PacketTypes.CONNECT)
                props.SessionExpiryInterval = 0 if self.spec["clean"] else 3600
                self.mqtt.connect(HOST, self.spec["port"], self.keepalive, clean_start=self.spec["clean"], properties=props)
            else:
                self.mqtt.connect(HOST, self.spec["port"], self.keepalive)
            self.begun = True
        except OSError:
            self._lost()

    def _on_connect(self, client, userdata, flags, rc, props=None):
        if (rc if isinstance(rc, int) else rc.value) == 0:
            self.connected = True
            self.handler.up()

    def subscribe(self, filters):
        self.mqtt.subscribe([(f, 1) for f in filters])

    def publish(self, topic, payload, qos, token):
        info = self.mqtt.publish(topic, payload, qos)
        if qos:
            self.tokens[info.mid] = token
            self.refused.pop(info.mid, None)
        if self.sock is None:  # found broken while writing: what follows must wait for CONNACK and for the repeats
            self._lost()

    def _on_sending(self, mid):
        """Before a PUBLISH goes out. One that is known by its packet id went out before."""
        if mid in self.refused:
            self.tokens[mid] = self.refused.pop(mid)
        if mid in self.tokens:
            self.handler.repeated(self.tokens[mid])

    def _on_pubrec(self, mid, rc):
        if rc >= 0x80 and mid in self.tokens:
            self.refused[mid] = self.tokens[mid]
            self._answer(mid, rc)

    def _on_publish(self, client, userdata, mid, *rest):
        self.refused.pop(mid, None)
        self._answer(mid, self.mqtt.rc)

    def _answer(self, mid, rc):
        token = self.tokens.pop(mid, None)
        if token is not None:
            self.handler.acked(token, rc)

    def drop(self, hard=False):
        with contextlib.suppress(OSError, AttributeError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.closed = True
        self.mqtt.disconnect()
