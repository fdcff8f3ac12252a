"""MQTT by hand, for what no library does: packets half read or never, and reason codes that libraries hide.

Blocking, with a deadline per read. Properties of MQTT 5 are sent empty; received ones stay bytes.
"""
import socket
import struct
import time

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 14


def length(n):
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("!H", len(s)) + s


def packet(kind, flags, *parts):
    body = b"".join(parts)
    return bytes([kind << 4 | flags]) + length(len(body)) + body


class Raw:
    def __init__(self, port, user=None, client_id="", password=None, v5=False, clean=True, keepalive=60, receive_buffer=None):
        self.v5, self.buffer, self.mid = v5, b"", 0
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
        tail = (text(user) if user is not None else b"") + (text(password) if password is not None else b"")
        self.socket.sendall(packet(CONNECT, 0, text("MQTT"), bytes([5 if v5 else 4, flags]), struct.pack("!H", keepalive),
                                   b"\0" if v5 else b"", text(client_id), tail))
        kind, _, body = self.read()
        assert kind == CONNACK, kind
        self.rc = body[1]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def next_mid(self):
        self.mid = self.mid % 65535 + 1
        return self.mid

    def publish_packet(self, topic, payload, qos=1, retain=False):
        mid = struct.pack("!H", self.next_mid()) if qos else b""
        payload = payload if isinstance(payload, bytes) else payload.encode()
        return packet(PUBLISH, qos << 1 | retain, text(topic), mid, b"\0" if self.v5 else b"", payload)

    def publish(self, topic, payload, qos=1, retain=False):
        """The reason code of the acknowledgement (0 in 3.1.1)."""
        self.socket.sendall(self.publish_packet(topic, payload, qos, retain))
        if not qos:
            return 0
        body = self.wait(PUBACK if qos == 1 else PUBREC)
        code = body[2] if len(body) > 2 else 0
        if qos == 2 and code < 0x80:
            self.socket.sendall(packet(PUBREL, 2, body[:2]))
            self.wait(PUBCOMP)
        return code

    def subscribe(self, filter, qos=1):
        self.socket.sendall(packet(SUBSCRIBE, 2, struct.pack("!H", self.next_mid()), b"\0" if self.v5 else b"", text(filter), bytes([qos])))
        return self.wait(SUBACK)[-1]

    # ---- reading

    def _fill(self, n, deadline):
        while len(self.buffer) < n:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionError("closed by the broker")
            self.buffer += piece

    def read(self, timeout=10):
        """(kind, flags, body) of the next packet."""
        deadline = time.monotonic() + timeout
        size, at, shift = 0, 1, 0
        while True:
            self._fill(at + 1, deadline)
            byte = self.buffer[at]
            size |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        self._fill(at + size, deadline)
        head, body, self.buffer = self.buffer[0], self.buffer[at:at + size], self.buffer[at + size:]
        return head >> 4, head & 15, body

    def wait(self, kind, timeout=10):
        """The body of the next packet of this kind; others are passed over, QoS 1 publishes acknowledged."""
        deadline = time.monotonic() + timeout
        while True:
            got, flags, body = self.read(max(0.001, deadline - time.monotonic()))
            if got == kind:
                return body
            if got == PUBLISH:
                self.take(flags, body)

    def take(self, flags, body):
        """(topic, payload) of a PUBLISH, acknowledged at once."""
        size = struct.unpack("!H", body[:2])[0]
        topic, rest = body[2:2 + size].decode(), body[2 + size:]
        if flags & 6:
            self.socket.sendall(packet(PUBACK if flags & 6 == 2 else PUBREC, 0, rest[:2]))
            rest = rest[2:]
        if self.v5:
            rest = rest[1 + rest[0]:] if rest[0] < 128 else rest[2 + (rest[0] & 127) + (rest[1] << 7):]
        return topic, rest

    def message(self, timeout=10):
        deadline = time.monotonic() + timeout
        while True:
            kind, flags, body = self.read(max(0.001, deadline - time.monotonic()))
            if kind == PUBLISH:
                return self.take(flags, body)
