"""
Apple's provider API as it is published, on python3-h2: an HTTP/2 stack that shares nothing with the bridge's. It checks what it is sent
as Apple says it does, keeps what it accepted, and does wrong what a test tells it to.

A fault is a function `fault(conn, request)`, a coroutine, that says True when it has dealt with the request itself. Everything odd on
the wire is made of hyperframe's frames, past h2's own rules.
"""
import asyncio
import json
import re
import socket
import ssl
import struct
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import jwt
from hyperframe.frame import ContinuationFrame, DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame

from ports import free_ports

LIMIT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
TYPES = {"alert", "background", "voip", "complication", "fileprovider", "mdm", "location", "liveactivity", "pushtotalk"}
MOST = {"voip": 5120}


class Request:
    def __init__(self, conn, stream, headers):
        self.conn, self.stream, self.raw = conn, stream, headers
        self.headers = dict(headers)
        self.body = b""
        self.at = time.monotonic()
        self.answer = None

    def __getitem__(self, name):
        return self.headers.get(name)

    @property
    def token(self):
        return self[":path"].rsplit("/", 1)[-1]

    @property
    def json(self):
        return json.loads(self.body)


class Conn(asyncio.Protocol):
    """One connection. `standin.limit`: streams once a good provider token was seen; before that one."""

    def __init__(self, standin):
        self.standin = standin
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_inbound_headers=True, validate_outbound_headers=False))
        self.requests = {}
        self.frozen = None  # bytes that came while frozen
        self.trusted = False
        self.last = 0
        self.said = 2**31 - 1  # the last stream of our GOAWAY: what is above is not looked at
        self.pings = 0
        self.answer_pings = True
        self.number = 0
        self.has_certificate = False
        self.most_open = self.count = 0

    # ---- from the network
    def connection_made(self, transport):
        self.transport = transport
        self.has_certificate = bool(transport.get_extra_info("peercert"))
        self.trusted = self.has_certificate
        self.number = len(self.standin.conns)
        self.standin.conns.append(self)
        if not self.standin.silent:
            limit = self.standin.limit if self.trusted else self.standin.first_limit
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values={**self.h2.local_settings, LIMIT: limit})  # set later it is not said
            self.h2.initiate_connection()
            self.flush()

    def connection_lost(self, error):
        self.transport = None
        self.standin.lost.append(self)

    def data_received(self, data):
        if self.frozen is not None:
            self.frozen.append(data)
            return
        if self.standin.silent:
            return
        if not self.answer_pings:
            data = self.without_pings(data)
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as e:
            self.standin.errors.append(e)
            self.flush()
            self.close()
            return
        for e in events:
            self.on_event(e)
        self.flush()

    @staticmethod
    def without_pings(data):
        """Whole frames only, which is how an idle peer's PING arrives."""
        out = b""
        while len(data) >= 9:
            length = int.from_bytes(data[:3], "big") + 9
            if data[3] != 6:
                out += data[:length]
            data = data[length:]
        return out + data

    def on_event(self, e):
        if isinstance(e, h2.events.RequestReceived):
            self.requests[e.stream_id] = Request(self, e.stream_id, e.headers)
            self.last = e.stream_id
            self.most_open = max(self.most_open, len(self.requests))
        elif isinstance(e, h2.events.DataReceived):
            self.requests[e.stream_id].body += e.data
            self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, h2.events.StreamEnded):
            self.count += 1
            if e.stream_id <= self.said:
                asyncio.ensure_future(self.serve(self.requests[e.stream_id]))
        elif isinstance(e, h2.events.StreamReset):
            self.standin.resets.append((self, e.stream_id))
            self.requests.pop(e.stream_id, None)
        elif isinstance(e, h2.events.PingReceived):
            self.pings += 1

    async def serve(self, request):
        s = self.standin
        s.requests.append(request)
        try:
            if s.fault and await s.fault(self, request):
                return
            if s.delay:
                await asyncio.sleep(s.delay)
            self.answer(request)
        except Exception as e:  # a test looks at them: a stand-in that stumbles must not look like a fault
            s.errors.append(e)

    # ---- to the network
    def flush(self):
        data = self.h2.data_to_send()
        if data and self.transport and self.frozen is None:
            self.transport.write(data)

    def frame(self, *frames):
        if self.transport:
            self.transport.write(b"".join(f.serialize() for f in frames))

    def answer(self, request, verdict=None):
        """What Apple would say to it; verdict (status, reason, more) if the test knows better."""
        s = self.standin
        status, reason, more = verdict or s.check(self, request)
        if status == 200:
            s.accepted.append(request)
            if not self.trusted:
                self.trusted = True
                self.h2.update_settings({LIMIT: s.limit})
        request.answer = (status, reason)
        body = json.dumps({"reason": reason, **more}).encode() if reason else b""
        self.respond(request, status, body)

    def respond(self, request, status, body=b"", headers=()):
        if request.stream not in self.requests or not self.transport:
            return
        lines = [(":status", str(status)), ("apns-id", request["apns-id"] or "8f3d4b1e-0000-4000-8000-000000000000"), *headers]
        self.h2.send_headers(request.stream, lines, end_stream=not body)
        if body:
            self.h2.send_data(request.stream, body, end_stream=True)
        del self.requests[request.stream]
        self.flush()

    def header_block(self, lines):
        return self.h2.encoder.encode(lines)

    def raw_headers(self, request, lines, end=False, **kwargs):
        f = HeadersFrame(request.stream, data=self.header_block(lines), **kwargs)
        f.flags.add("END_HEADERS")
        if end:
            f.flags.add("END_STREAM")
        self.frame(f)

    def raw_data(self, request, data, end=False, pad=0):
        f = DataFrame(request.stream, data=data, pad_length=pad)
        if pad:
            f.flags.add("PADDED")
        if end:
            f.flags.add("END_STREAM")
        self.frame(f)

    def goaway(self, last, reason=None, code=0):
        self.said = min(self.said, last)
        self.frame(GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=json.dumps({"reason": reason}).encode() if reason else b""))

    def rst(self, request, code):
        self.frame(RstStreamFrame(request.stream, error_code=code))
        self.requests.pop(request.stream, None)

    def set_limit(self, n):
        self.h2.update_settings({LIMIT: n})
        self.flush()

    def freeze(self):
        self.frozen = []

    def thaw(self):
        held, self.frozen = self.frozen, None
        for data in held:
            self.data_received(data)
        self.flush()

    def close(self):
        if self.transport:
            self.transport.close()

    def abort(self):
        """TCP RST: what has not been read yet is lost."""
        sock = self.transport and self.transport.get_extra_info("socket")
        if sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.transport:
            self.transport.abort()


class Standin:
    """with Standin(pem, keys={kid: (team, public key)}, topics={...}) as s: ... s.port, s.accepted"""

    def __init__(self, pem, keys=None, topics=("com.example.chat",), client_ca=None, alpn=("h2",), limit=1000, first_limit=1, delay=0, port=None):
        self.keys, self.topics, self.limit, self.first_limit, self.delay = keys or {}, set(topics), limit, first_limit, delay
        self.tokens = {}      # token -> dict(topic=, gone_ms=); others are good
        self.bearers = {}     # kid -> (jwt, iat) last accepted
        self.seen_jwts = []
        self.fault = None
        self.silent = False   # TLS, then nothing
        self.mint_floor = 1200
        self.shift_s = 0      # of its clock
        self.requests, self.accepted, self.conns, self.lost, self.resets, self.errors = [], [], [], [], [], []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pem)
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        if client_ca:
            self.context.load_verify_locations(cadata=client_ca.decode())
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.loop = asyncio.new_event_loop()
        self.port = port or free_ports(1)[0]  # it shuts, and listens again on the same

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.listen()
        return self

    def __exit__(self, *_):
        self.call(self._stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, fn, *args):
        """Runs it on the stand-in's thread and waits."""
        async def run():
            result = fn(*args)
            return await result if asyncio.iscoroutine(result) else result
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def listen(self):
        async def run():
            self.server = await self.loop.create_server(lambda: Conn(self), "127.0.0.1", self.port, ssl=self.context)
        self.call(run)

    async def _stop(self):
        self.server.close()
        for c in self.conns:
            c.abort()

    def shut(self):
        """No server any more; connections are cut."""
        self.call(self._stop)

    # ---- Apple's rules
    def check(self, conn, r):
        def no(status, reason, **more):
            return status, reason, more
        names = [n for n, _ in r.raw]
        if r[":method"] != "POST":
            return no(405, "MethodNotAllowed")
        if not r[":path"].startswith("/3/device/"):
            return no(404, "BadPath")
        if not r.token:
            return no(400, "MissingDeviceToken")
        if len(names) != len(set(names)):
            return no(400, "DuplicateHeaders")
        if not conn.has_certificate:
            problem = self.check_jwt(r)
            if problem:
                return no(*problem)
        return self.check_fields(r, no)

    def check_fields(self, r, no):
        if not r["apns-topic"]:
            return no(400, "MissingTopic")
        if r["apns-topic"] not in self.topics:
            return no(400, "TopicDisallowed")
        if r["apns-id"] and not UUID.match(r["apns-id"]):
            return no(400, "BadMessageId")
        if (r["apns-priority"] or "10") not in ("1", "5", "10"):
            return no(400, "BadPriority")
        if not re.match(r"^[0-9]{1,10}$", r["apns-expiration"] or "0"):
            return no(400, "BadExpirationDate")
        if len((r["apns-collapse-id"] or "").encode()) > 64:
            return no(400, "BadCollapseId")
        if (r["apns-push-type"] or "alert") not in TYPES:
            return no(400, "InvalidPushType")
        if not r.body or not isinstance(r.json.get("aps"), dict):
            return no(400, "PayloadEmpty")
        if len(r.body) > MOST.get(r["apns-push-type"], 4096):
            return no(413, "PayloadTooLarge")
        if r["apns-push-type"] == "background" and r["apns-priority"] != "5":
            return no(400, "BadPriority")
        return self.check_token(r, no)

    def check_token(self, r, no):
        if not re.match(r"^[0-9a-fA-F]+$", r.token) or len(r.token) % 2:
            return no(400, "BadDeviceToken")
        t = self.tokens.get(r.token.lower(), {})
        if t.get("other_env"):
            return no(400, "BadDeviceToken")
        if t.get("topic", r["apns-topic"]) != r["apns-topic"]:
            return no(400, "DeviceTokenNotForTopic")
        if "gone_ms" in t:
            return no(410, "Unregistered", timestamp=t["gone_ms"])
        return 200, None, {}

    def check_jwt(self, r):
        bearer = r["authorization"] or ""
        if not bearer.lower().startswith("bearer "):
            return 403, "MissingProviderToken"
        text = bearer[7:]
        try:
            head = jwt.get_unverified_header(text)
            team, public = self.keys[head["kid"]]
            claims = jwt.decode(text, public, algorithms=["ES256"], options={"verify_iat": False})
        except (KeyError, jwt.InvalidTokenError):
            return 403, "InvalidProviderToken"
        if head.get("alg") != "ES256" or claims.get("iss") != team or not isinstance(claims.get("iat"), int):
            return 403, "InvalidProviderToken"
        now = time.time() + self.shift_s
        if claims["iat"] > now + 300:
            return 403, "InvalidProviderToken"
        if claims["iat"] < now - 3600:
            return 403, "ExpiredProviderToken"
        return self.check_updates(head["kid"], text, claims["iat"])

    def check_updates(self, kid, text, iat):
        """A token that is newer than the last by less than 20 minutes is one too many; the last one stays good."""
        known, at = self.bearers.get(kid, (None, None))
        if text not in self.seen_jwts:
            self.seen_jwts.append(text)
        if known and text != known and 0 <= iat - at < self.mint_floor:
            return 429, "TooManyProviderTokenUpdates"
        if not known or iat >= at:
            self.bearers[kid] = (text, iat)
        return None


__all__ = ["Standin", "Conn", "Request", "ContinuationFrame", "HeadersFrame", "PingFrame", "GoAwayFrame"]
