"""MQTT by hand, for what no library does: packets half read or never, forged ones, and reason codes that libraries hide.

The functions build packets of any content. `Raw` is a well-behaved client: blocking, with a deadline per read, empty MQTT 5
properties. `Attacker` is a socket without manners: it sends whatever it is given and notes what comes back.
"""
import json
import socket
import struct
import time
import uuid

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(10, 16)

# MQTT 5 properties by name: (identifier, kind)
PROPERTIES = {"payload_format": (0x01, "B"), "expiry": (0x02, "I"), "content_type": (0x03, "s"), "response_topic": (0x08, "s"),
              "correlation": (0x09, "s"), "subscription_id": (0x0b, "v"), "session_expiry": (0x11, "I"), "auth_method": (0x15, "s"),
              "will_delay": (0x18, "I"), "receive_maximum": (0x21, "H"), "alias_maximum": (0x22, "H"), "alias": (0x23, "H"),
              "user": (0x26, "p"), "packet_maximum": (0x27, "I")}


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


def properties(**values):
    """Without their length: properties(alias=1, user=[("a", "b")])."""
    out = b""
    for name, value in values.items():
        number, kind = PROPERTIES[name]
        for v in value if kind == "p" else [value]:
            out += bytes([number]) + (text(v[0]) + text(v[1]) if kind == "p" else text(v) if kind == "s" else length(v) if kind == "v"
                                      else struct.pack("!" + kind, v))
    return out


def block(raw):
    return length(len(raw)) + raw


def connect(client_id, user=None, password=None, v5=False, clean=True, will=None, keepalive=60, props=b"", will_props=b"", level=None):
    """will: (topic, payload, qos, retain)"""
    flags, tail = (2 if clean else 0), text(client_id)
    if will:
        flags |= 4 | will[2] << 3 | (32 if will[3] else 0)
        tail += (block(will_props) if v5 else b"") + text(will[0]) + text(will[1])
    if user is not None:
        flags, tail = flags | 128, tail + text(user)
    if password is not None:
        flags, tail = flags | 64, tail + text(password)
    return packet(CONNECT, 0, text("MQTT"), bytes([(5 if v5 else 4) if level is None else level, flags]), struct.pack("!H", keepalive),
                  block(props) if v5 else b"", tail)


def publish(topic, payload=b"", qos=1, mid=1, retain=False, v5=False, props=b"", dup=False):
    payload = payload.encode() if isinstance(payload, str) else payload
    return packet(PUBLISH, qos << 1 | retain | (8 if dup else 0), text(topic), struct.pack("!H", mid) if qos else b"",
                  block(props) if v5 else b"", payload)


def subscribe(filters, mid=1, v5=False, qos=1, props=b""):
    filters = [filters] if isinstance(filters, (str, bytes)) else filters
    return packet(SUBSCRIBE, 2, struct.pack("!H", mid), block(props) if v5 else b"", *(text(f) + bytes([qos]) for f in filters))


def unsubscribe(filters, mid=1, v5=False):
    filters = [filters] if isinstance(filters, (str, bytes)) else filters
    return packet(UNSUBSCRIBE, 2, struct.pack("!H", mid), block(b"") if v5 else b"", *(text(f) for f in filters))


BYE = packet(DISCONNECT, 0)


class WebSocket:
    """What of a socket Raw needs, with MQTT in the binary frames of RFC 6455. Masks are zero, which it allows."""

    def __init__(self, sock):
        self.sock, self.raw = sock, b""
        sock.sendall(b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
        while b"\r\n\r\n" not in self.raw:
            self._more()
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        assert b" 101 " in head, head

    def _more(self):
        piece = self.sock.recv(1 << 16)
        if not piece:
            raise ConnectionError("closed by the broker")
        self.raw += piece

    def sendall(self, data, opcode=2):
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
        self.sock.sendall(bytes([0x80 | opcode]) + size + b"\0\0\0\0" + data)

    def _frame(self):
        """One whole frame's payload, if it has come. The broker's library pings each connection after 300 s and hangs up 10 s later."""
        if len(self.raw) < 2:
            return None
        opcode = self.raw[0] & 15
        size, at = self.raw[1] & 127, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(self.raw[2:at], "big")
        if len(self.raw) < at + size:
            return None
        data, self.raw = self.raw[at:at + size], self.raw[at + size:]
        if opcode == 9:
            self.sendall(data, 10)
            return self._frame()
        return data

    def recv(self, _most):
        data = self._frame()
        while data is None:
            self._more()
            data = self._frame()
        while (more := self._frame()) is not None:
            data += more
        return data

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def close(self):
        self.sock.close()


class Raw:
    def __init__(self, port, user=None, client_id="", password=None, v5=False, clean=True, keepalive=60, receive_buffer=None,
                 props=b"", websocket=False):
        self.v5, self.buffer, self.mid = v5, b"", 0
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        if websocket:
            self.socket = WebSocket(self.socket)
        self.socket.sendall(connect(client_id, user, password, v5, clean, keepalive=keepalive, props=props))
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
        return publish(topic, payload, qos, self.next_mid() if qos else 0, retain, self.v5)

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
        self.socket.sendall(subscribe(filter, self.next_mid(), self.v5, qos))
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


class Attacker:
    """A socket that speaks MQTT without manners."""

    def __init__(self, im, timeout=10):
        self.sock = socket.create_connection(("127.0.0.1", im.port), timeout)
        self.buffer = b""
        self.waiting = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass # closed: seen when reading
        return self

    def leave(self):
        """As a client should."""
        self.send(BYE).sock.close()

    def _need(self, n):
        while len(self.buffer) < n:
            try:
                more = self.sock.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            self.buffer += more

    def read(self):
        """(kind, body) of the next packet; None: closed."""
        try:
            self._need(2)
            size, shift, at = 0, 0, 1
            while True:
                self._need(at + 1)
                size |= (self.buffer[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if not self.buffer[at - 1] & 128:
                    break
            self._need(at + size)
        except EOFError:
            return None
        kind, body, self.buffer = self.buffer[0] >> 4, self.buffer[at:at + size], self.buffer[at + size:]
        return kind, body

    def until(self, kind):
        """The body of the next packet of this kind; others are put aside. None: closed before."""
        while True:
            p = self.read()
            if p is None:
                return None
            if p[0] == kind:
                return p[1]
            self.waiting.append(p)

    def code(self, kind):
        """The reason code of the next PUBACK or PUBREC; None: closed before."""
        body = self.until(kind)
        return None if body is None else body[2] if len(body) > 2 else 0

    def closed(self, seconds=5):
        """Whether the broker ends this connection."""
        self.sock.settimeout(seconds)
        try:
            while self.read():
                pass
            return True
        except TimeoutError:
            return False

    def deliveries(self, quiet=1.0):
        """Topics and payloads (with their properties in front) of all that has come or comes within a moment; not acknowledged."""
        self.sock.settimeout(quiet)
        try:
            while True:
                p = self.read()
                if p is None:
                    break
                self.waiting.append(p)
        except TimeoutError:
            pass
        out = []
        for kind, body in self.waiting:
            if kind == PUBLISH:
                n = struct.unpack("!H", body[:2])[0]
                out.append((body[2:2 + n].decode(errors="replace"), body[2 + n:]))
        self.waiting = []
        return out

    def errors(self, quiet=1.0):
        """Codes of the in/err deliveries that have come or come within a moment."""
        return [json.loads(body[body.index(b"{"):])["code"] for topic, body in self.deliveries(quiet) if topic.endswith("/err")]


def login(im, user="alice", device=None, v5=False, raw_id=None, **kw):
    """An attacker who is connected as one of the fixture's users."""
    r = Attacker(im)
    r.send(connect(raw_id or f"{user}:{device or uuid.uuid4().hex[:12]}", user, im.users[user], v5=v5, **kw))
    body = r.until(CONNACK)
    assert body and body[1] == 0, body
    r.present = bool(body[0] & 1)
    return r


def connack(im, data):
    """The CONNACK's code; None: closed without one."""
    with Attacker(im) as r:
        body = r.send(data).until(CONNACK)
        return body[1] if body else None


def connack_of_password(im, data, patience=20):
    """The same of one who is closed without an answer and comes again: while others talk, hashes keep their distance (docs/login.md)."""
    deadline = time.monotonic() + patience
    while (code := connack(im, data)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return code
