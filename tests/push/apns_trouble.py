"""
The stand-in as a process of its own, full of trouble: it can be killed and stopped, and answers every word of Apple's table, GOAWAYs, resets,
garbage and silence, by a seed. What it answered it has written down before, line by line, so that it outlives a kill -9:

    A ns conn stream job apns-id collapse-id status word spoiled     spoiled: the answer did not get there whole, for this reason
    C ns conn                                                        this connection has ended, whoever ended it
    R ns conn stream                                                 the bridge has given up this request
    X ns text                                                        the bridge or the stand-in itself broke a rule

Commands on standard input, one a line: a mode of MODES. usage: apns_trouble.py PORT SEED FOLDER
"""
import asyncio
import os
import pathlib
import random
import sys
import time

from cryptography.hazmat.primitives import serialization

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import apns_standin  # noqa: E402

BUG = [(400, "BadCollapseId"), (400, "BadExpirationDate"), (400, "BadMessageId"), (400, "BadPriority"), (400, "InvalidPushType"), (400, "DuplicateHeaders"),
       (400, "MissingDeviceToken"), (400, "PayloadEmpty"), (404, "BadPath"), (405, "MethodNotAllowed"), (403, "MissingProviderToken"), (418, "Teapot")]
AGAIN = [(500, "InternalServerError"), (503, "ServiceUnavailable"), (503, "Shutdown"), (400, "IdleTimeout"), (413, "PayloadTooLarge"),
         (429, "TooManyRequests"), (599, "Odd"), (408, None)]
CONFIG = [(400, "TopicDisallowed"), (400, "BadTopic"), (400, "MissingTopic"), (403, "InvalidProviderToken"), (403, "Forbidden"), (403, "BadCertificate"),
          (403, "BadCertificateEnvironment"), (403, "BadEnvironmentKeyIdInToken"), (403, "BadEnvironmentKeyInToken"), (302, None), (407, None)]
KEY = [(403, "ExpiredProviderToken"), (403, "UnrelatedKeyIdInToken"), (429, "TooManyProviderTokenUpdates")]
DEAD = [(410, "Unregistered"), (410, "ExpiredToken"), (400, "BadDeviceToken"), (400, "DeviceTokenNotForTopic")]
MODES = ("fine", "calm", "throttle", "config", "mass", "goaway", "limits")
SHARE = 0.06  # of the answers in `calm`


class Tell:
    """In place of a list that the tests look at afterwards: a hundred thousand requests need not be kept, and what matters is written down."""

    def __init__(self, fn=lambda item: None):
        self.append = fn


def is_dead(token):
    """One in 97 devices was wiped; the sender of the jobs goes by this too."""
    return int(token[:8], 16) % 97 == 0


class Trouble(apns_standin.Standin):
    def __init__(self, folder, port, seed, keys, topics):
        super().__init__(f"{folder}/server.pem", keys=keys, topics=topics, port=port)
        self.rng = random.Random(seed)
        self.log = os.open(f"{folder}/standin.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.mode, self.seen, self.good = "fine", 0, set()
        self.requests = self.accepted = Tell()
        self.lost = Tell(lambda conn: self.write("C", time.monotonic_ns(), self.name_of(conn)))
        self.resets = Tell(lambda r: self.write("R", time.monotonic_ns(), self.name_of(r[0]), r[1]))
        self.errors = Tell(lambda e: self.write("X", time.monotonic_ns(), repr(e)))
        self.fault = self.decide

    def check_jwt(self, r):
        """A signature is checked once."""
        bearer = r["authorization"]
        problem = None if bearer in self.good else super().check_jwt(r)
        if not problem:
            self.good.add(bearer)
        return problem

    def write(self, *fields):
        os.write(self.log, (" ".join(map(str, fields)) + "\n").encode())

    @staticmethod
    def name_of(conn):
        return f"{os.getpid()}.{conn.number}"

    def note(self, conn, r, status, word, spoiled="-"):
        self.write("A", time.monotonic_ns(), self.name_of(conn), r.stream, r.job, r["apns-id"], r["apns-collapse-id"], status, word or "-", spoiled)

    def end(self, conn):
        self.lost.append(conn)
        conn.abort()

    # ---- one request

    async def decide(self, conn, r):
        if not self.is_open(conn, r):
            return True  # a GOAWAY of the same moment says that it was not looked at
        r.job = r.json["im"]["msgid"]
        if not conn.trusted and len(conn.requests) > 1:
            self.errors.append(f"{len(conn.requests)} streams where one was allowed")
        self.seen += 1
        verdict = self.check(conn, r)
        if verdict[0] == 200:
            verdict = await self.verdict(conn, r)
        if verdict and self.is_open(conn, r):
            self.note(conn, r, *verdict[:2])
            conn.answer(r, verdict)
        return True

    @staticmethod
    def is_open(conn, r):
        return conn.transport and r.stream in conn.requests and r.stream <= conn.said

    async def verdict(self, conn, r):
        """None: it has been dealt with."""
        odd = r["apns-topic"].endswith(".odd")
        if self.mode == "mass":
            return self.dead(r)
        if self.mode == "config":
            return (*self.rng.choice(CONFIG), {})
        if self.mode == "throttle" and self.rng.random() < 0.8:
            return self.busy(conn, r)
        if self.mode == "goaway" and self.seen % 10 == 0 and not self.goaway(conn, r):
            return None
        if self.mode == "limits" and self.seen % 30 == 0:
            self.move_limit(conn)
        if self.mode != "fine" and self.rng.random() < SHARE:
            return await self.calm(conn, r, odd)
        return self.dead(r) if is_dead(r.token) else (200, None, {})

    def dead(self, r):
        status, word = DEAD[int(r.token[8:16], 16) % len(DEAD)]
        return status, word, {"timestamp": int(time.time() * 1000)} if status == 410 else {}

    def busy(self, conn, r):
        status, word = self.rng.choice([(503, "ServiceUnavailable"), (503, "ServiceUnavailable"), (429, "TooManyRequests")])
        self.note(conn, r, status, word)
        conn.respond(r, status, b'{"reason":"%s"}' % word.encode(), [("retry-after", "1")])

    async def calm(self, conn, r, odd):
        roll = self.rng.random()
        if roll < 0.35:
            return (*self.rng.choice(AGAIN), {})
        if roll < 0.40:
            return (*self.rng.choice(BUG), {})
        if roll < 0.45:
            return (*self.rng.choice(KEY if self.rng.random() < 0.3 else CONFIG), {}) if odd else (200, None, {})
        if roll < 0.60:
            await asyncio.sleep(self.rng.random())
            return 200, None, {}
        often = (self.refuse, self.reset, self.lose, self.silence, self.garble, self.drip)
        await self.rng.choice(6 * often + (self.halve, self.cut))(conn, r)  # these two cost a whole connection, and a rest of 5 s
        return None

    # ---- what is wrong on the wire

    @staticmethod
    def rst(conn, r, code):
        """Through h2, which counts what is open."""
        conn.h2.reset_stream(r.stream, code)
        conn.requests.pop(r.stream, None)
        conn.flush()

    async def refuse(self, conn, r):
        self.note(conn, r, 0, "REFUSED_STREAM")
        self.rst(conn, r, 7)

    async def reset(self, conn, r):
        self.note(conn, r, 0, "RST_STREAM")
        self.rst(conn, r, self.rng.choice([1, 2, 8, 11]))

    async def lose(self, conn, r):
        """It is accepted, and nobody hears of it."""
        self.note(conn, r, 200, None, "reset")
        self.rst(conn, r, 2)

    async def silence(self, conn, r):
        self.note(conn, r, 200, None, "silence")
        conn.taken = max(self.taken(conn), r.stream)

    async def garble(self, conn, r):
        self.note(conn, r, 400, "garbage")
        conn.respond(r, 400, self.rng.choice([b"", b"{", b"\0\0", b"[" * 1000, b'{"reason":17}', b'{"reason":"Bad\xffDevice"}']))

    async def halve(self, conn, r):
        self.note(conn, r, 200, None, "half")
        f = apns_standin.HeadersFrame(r.stream, data=conn.header_block([(":status", "200")])[:1])
        conn.frame(f)
        self.end(conn)

    async def drip(self, conn, r):
        self.note(conn, r, 503, "dripped")
        conn.requests.pop(r.stream)
        conn.h2.send_headers(r.stream, [(":status", "503")])
        for byte in b'{"reason":"Shutdown"}':
            conn.h2.send_data(r.stream, bytes([byte]), pad_length=3)
            conn.flush()
        conn.h2.end_stream(r.stream)
        conn.flush()

    async def cut(self, conn, r):
        accepted = self.rng.random() < 0.5
        self.note(conn, r, *(200, None, "cut") if accepted else (0, "cut"))
        self.end(conn)

    @staticmethod
    def taken(conn):
        """The highest stream that was accepted in silence: a GOAWAY below it would be a lie."""
        return getattr(conn, "taken", 0)

    def goaway(self, conn, r):
        """False: this stream is above what was said, or has been dealt with."""
        if self.rng.random() < 0.3:
            self.note(conn, r, 200, None, "goaway")
            conn.taken = max(self.taken(conn), r.stream)
            conn.goaway(conn.taken)
            asyncio.get_running_loop().call_later(0.02, self.end, conn)
            return False
        last = max(self.taken(conn), self.rng.choice([r.stream, r.stream - 2, r.stream - 4, 2**31 - 1]))
        conn.goaway(last, self.rng.choice([None, "Shutdown", "BadCertificate" if self.rng.random() < 0.02 else "IdleTimeout"]))
        if self.rng.random() < 0.3:
            asyncio.get_running_loop().call_later(0.2, self.end, conn)
        return r.stream <= conn.said

    def move_limit(self, conn):
        n = self.rng.choice([0, 1, 2, 10, 100, 1000])
        conn.set_limit(n)
        if n == 0:
            asyncio.get_running_loop().call_later(0.5, conn.set_limit, 100)


def command(standin, mode):
    assert mode in MODES, mode
    standin.mode = mode


def main():
    port, seed, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    key = serialization.load_pem_private_key(open(f"{folder}/key.p8", "rb").read(), None).public_key()
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    keys = {kid: ("TEAM123456", public) for kid in ("ABC123DEFG", "ODD123DEFG")}
    with Trouble(folder, port, seed, keys, {"com.example.chat", "com.example.news", "com.example.odd"}) as standin:
        print("listening", flush=True)
        for line in sys.stdin:
            standin.call(command, standin, line.strip())


if __name__ == "__main__":
    main()
