"""im-api, to which strangers speak HTTP (reliability table 3.6, A4): what one request is, who is asking, how much and how slowly."""
import base64
import concurrent.futures
import json
import os
import pathlib
import re
import socket
import tempfile
import threading
import time
import uuid

import jwt
import pytest
from instance import SANITIZED
from ports import free_ports
from raw_http import head, said, status

KEY = os.urandom(32).hex()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="im-http-"))
(FOLDER / "jwt.key").write_text(KEY)
(FOLDER / "jwt.key").chmod(0o600)
PORT, = free_ports(1)
OPTIONS = ["--no-bridges"]
CONF = (f"plugin_opt_im_http_listen 127.0.0.1:{PORT}", f"plugin_opt_im_jwt_keys HS256:{FOLDER}/jwt.key")
MIB = 1024


def rss(im):
    return im.rss_kib()["im-api"]


# ---- what one request is

LENGTHS = [
    ["Content-Length: {n}", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: {n}"], ["Content-Length: {n}", "Content-Length: 5"], ["Content-Length: 5", "content-length: 5"],
    ["Content-Length: 5, 5"], ["Content-Length: +5"], ["Content-Length: -5"], ["Content-Length: 0x5"], ["Content-Length: 5 {n}"], ["Content-Length: 5;"],
    ["Content-Length: 18446744073709551621"], ["Content-Length: 184467440737095516210"], ["Content-Length:"], ["Content-Length : 5"],
    ["Content-Length:\r\n 5"], ["Content-Length: 5\r\n {n}"], ["Transfer-Encoding:\r\n chunked", "Content-Length: {n}"],
    ["Transfer-Encoding: chunked\r\n , identity", "Content-Length: {n}"], ["Transfer-Encoding : chunked", "Content-Length: 5"],
    ["Transfer-Encoding: xchunked"], ["Transfer-Encoding: identity"], ["Transfer-Encoding: chunked, identity"], ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: \x0bchunked", "Content-Length: 5"], ["Transfer-Encoding: \"chunked\""], ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["X: y\nTransfer-Encoding: chunked", "Content-Length: {n}"],
    ["X: y\rTransfer-Encoding: chunked", "Content-Length: {n}"], ["Transfer-Encoding chunked", "Content-Length: 5"], ["\x01Content-Length: 5"],
    ["Content-Length\x00: 5"], ["Host: elsewhere"],
]


@pytest.mark.parametrize("lines", LENGTHS, ids=lambda x: " | ".join(x))
def test_h1_one_request_that_hides_another(im, lines):
    """alice's request, whose length can be read in two ways; behind it, or in it, one of bob's, as a proxy would send both on.

    Refused, and the connection is closed: bob's request is nobody's."""
    hidden = head(im, b"Content-Length: 2", user="bob") + b"{}"
    lines = [x.format(n=5 + len(hidden)).encode("latin-1") for x in lines]
    a = said(PORT, head(im, *lines) + b"0\r\n\r\n" + hidden)
    assert a.closed and not a.users and set(a.statuses) <= {400, 413}, a.data  # the library says some things twice


@pytest.mark.parametrize("chunks", [b"-1\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"10000000000000002\r\n{}\r\n0\r\n\r\n", b" 2\r\n{}\r\n0\r\n\r\n", b"\r\n", b"2{}\r\n0\r\n\r\n",
                                    b"2\r\n{}0\r\n\r\n"])
def test_h1_chunks_that_are_none(im, chunks):
    """alice's request in chunks whose sizes are none; behind them one of bob's.

    Refused, and the connection is closed."""
    a = said(PORT, head(im, b"Transfer-Encoding: chunked") + chunks + head(im, b"Content-Length: 2", user="bob") + b"{}")
    assert a.closed and not a.users and set(a.statuses) <= {400, 413}, a.data


def test_h1_what_is_not_http_1_1(im):
    """HTTP/2, an upgrade to it, CONNECT, TRACE, an absolute address, a chunked body in HTTP/1.0, no Host.

    Refused, or answered as what it is; no other server is spoken to."""
    assert said(PORT, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").users == []
    a = said(PORT, head(im, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", b"Content-Length: 0"), 1)
    assert a.statuses == [200]  # in HTTP/1.1
    for first in (b"CONNECT 127.0.0.1:22 HTTP/1.1", b"TRACE /v1/req/me HTTP/1.1", b"POST http://127.0.0.1/v1/req/me HTTP/1.1", b"OPTIONS /v1/req/me HTTP/1.1"):
        a = said(PORT, head(im, b"Origin: https://evil.example", b"Access-Control-Request-Method: POST", first=first, close=True))
        assert set(a.statuses) <= {400, 404, 405} and not a.users and "access-control" not in a.data.decode().lower(), first
    assert said(PORT, head(im, b"Transfer-Encoding: chunked", first=b"POST /v1/req/me HTTP/1.0") + b"0\r\n\r\n").statuses == [400]
    assert said(PORT, head(im, host=None)).statuses == [400]


# ---- who asks

def test_h2_logins_in_other_places_and_two_of_them(im):
    """A token in the query, a cookie, the body, another scheme; two Authorizations or devices; bytes in them that no text has.

    401, or 400 for what can be read in two ways: never an answer to somebody else."""
    token, bob = im.users["alice"], head(im, user="bob").split(b"\r\n")
    good = base64.b64encode(f"alice:{token}".encode())
    for lines, expected in (
            ([bob[2]], 400), ([bob[3]], 400), ([b"authorization: x"], 400), ([b"Authorization:\r\n Basic " + good], 400), ([b"Im-Client-Id:\r\n bob:phone"], 400)):
        a = said(PORT, head(im, *lines))
        assert a.statuses == [expected] and not a.users and a.closed, (lines, a.data)
    nobody = b"POST /v1/req/me%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIm-Client-Id: alice:phone\r\n%s\r\n"
    for query, line in ((b"?user=alice&token=" + token.encode(), b""), (b"", b"Cookie: token=" + token.encode() + b"\r\n"),
                        (b"", b"X-Authorization: Basic " + good + b"\r\n"), (b"", b"Authorization: Token " + token.encode() + b"\r\n"),
                        (b"", b"Authorization: Basic\r\n"), (b"", b"Authorization: Basic " + good[:-8] + b"\r\n"), (b"", b"Authorization: Basic ====\r\n"),
                        (b"", b"Authorization: Basic " + base64.b64encode(b"alice") + b"\r\n"), (b"", b"Authorization: Basic " + base64.b64encode(b":") + b"\r\n"),
                        (b"", b"Authorization: Basic " + base64.b64encode(b"alice\0:" + token.encode()) + b"\r\n"),
                        (b"", b"Authorization: Basic " + base64.b64encode(b"\xff\xfe:" + token.encode()) + b"\r\n"),
                        (b"", b"Proxy-Authorization: Basic " + good + b"\r\n"), (b"", b"Authorization: Bearer\r\n"), (b"", b"Authorization: Bearer " + good + b"\r\n")):
        a = said(PORT, nobody % (query, line))
        assert a.statuses == [401] and not a.users, (query, line, a.data)
    with_nul = base64.b64encode(f"alice:{token}\0x".encode())  # as I6: what is before it counts, and it is right
    assert said(PORT, nobody % (b"", b"Authorization: Basic " + with_nul + b"\r\n")).statuses in ([401], [200])


def test_h3_guesses_by_the_thousand(im):
    """2,000 wrong tokens and 1,000 badly signed JWTs, 20 at a time, for alice; alice asks meanwhile.

    None gets in, alice is answered; the log grows by a few lines a second and holds none of them."""
    log = im.dir / "log/mosquitto.log"
    before, stop, asked = log.stat().st_size, threading.Event(), []

    def guess(i):
        secret = jwt.encode({"sub": "alice", "exp": int(time.time()) + 60}, uuid.uuid4().hex * 2, "HS256") if i % 3 == 0 else uuid.uuid4().hex
        return status(im, PORT, secret=secret), secret

    def alice():
        while not stop.is_set():
            began = time.monotonic()
            asked.append((status(im, PORT), time.monotonic() - began))

    beside = threading.Thread(target=alice)
    beside.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            results = list(pool.map(guess, range(600 if SANITIZED else 3000)))
    finally:
        stop.set()
        beside.join()
    assert {s for s, _ in results} <= {401, 503} and sum(s == 401 for s, _ in results) > len(results) / 2
    assert len(asked) > 5 and {s for s, _ in asked} <= {200, 503} and sum(s == 200 for s, _ in asked) > len(asked) * 0.9
    assert max(t for _, t in asked) < 10
    text = "".join(p.read_text(errors="replace") for p in (im.dir / "log").glob("*"))
    assert log.stat().st_size - before < 256 << 10 and not [x for _, x in results[:200] if x in text]
    assert status(im, PORT) == 200


def test_h4_line_breaks_in_what_is_said_again(im):
    """Line breaks, quotes and escapes in path, method, device and name, as bytes and percent-encoded.

    In no header of the answer, in no line of the log; the body is one JSON value."""
    marker = uuid.uuid4().hex
    evil = [f"{marker}%0d%0aX-Evil:%201", f"{marker}%0aevt=login%20user=root", f"{marker}%22%7d%00x", f"{marker}%1b[31m%e2%80%ae", f"{marker}/../../v1/req/me", f"{marker}%ff%fe"]
    for path in evil:
        for first in (f"POST /v1/req/{path} HTTP/1.1", f"POST /{path} HTTP/1.1"):
            a = said(PORT, head(im, b"Content-Length: 0", first=first.encode(), close=True))
            assert set(a.statuses) <= {400, 401, 404} and "evil" not in a.heads[0].lower(), a.data
            assert json.loads(a.data.partition(b"\r\n\r\n")[2])["ok"] is False
    login = base64.b64encode(f"al\r\nevt={marker}:x".encode())
    for lines in ([b"Authorization: Basic " + login, b"Im-Client-Id: alice:x"], [b"Authorization: Bearer x", b"Im-Client-Id: " + f"alice:\u2028{marker}\u202e".encode()],
                  [b"Authorization: Bearer x", b"Im-Client-Id: alice:\x1b[2J" + marker.encode()]):
        a = said(PORT, b"\r\n".join((b"POST /v1/req/me HTTP/1.1", b"Host: x", b"Connection: close", *lines, b"", b"")))
        assert set(a.statuses) <= {400, 401}, a.data
    lines = [x for p in (im.dir / "log").glob("*") for x in p.read_bytes().split(b"\n") if marker.encode() in x]
    assert all(re.match(rb"^[\d:TZ. -]+", x) and not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", x) for x in lines), lines


def test_h5_no_command_of_an_admin_and_nothing_of_the_services(im):
    """Admins' commands as methods, with an admin's token too; names and ids of services.

    unknown_method; 401."""
    for name in ("user.add", "token.issue", "group.create", "session.kick", "backup", "status", "commands", "why", "login"):
        a = said(PORT, head(im, b"Content-Length: 14", first=b"POST /v1/req/%s HTTP/1.1" % name.encode(), close=True) + b'{"user":"bob"}')
        assert a.statuses == [404] and b"unknown_method" in a.data, a.data
    secret = (im.dir / "run/bus.secret").read_text().strip()
    for user, device in (("$im", "$im-api"), ("$im", "$im-ctl-1"), ("$im", "$im-offline")):
        login = base64.b64encode(f"{user}:{secret}".encode())
        a = said(PORT, b"POST /v1/req/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic %s\r\nIm-Client-Id: %s\r\n\r\n" % (login, device.encode()))
        assert a.statuses == [401] and secret.encode() not in a.data


# ---- how much, how slowly

def test_h6_larger_than_anybody_needs(im):
    """Bodies of 65537 bytes, announced or in chunks, or announced and never sent; heads of 17 kB; 5,000 headers; arguments nested a million deep.

    413, 431, 400; no memory for what never comes."""
    before = rss(im)
    assert said(PORT, head(im, b"Content-Length: 65537") + b" " * 65537).statuses == [413]
    assert said(PORT, head(im, b"Content-Length: 99999999999")).statuses == [413]
    assert said(PORT, head(im, b"Transfer-Encoding: chunked") + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n").statuses == [413]
    for line in (b"X: " + b"y" * 17000, b"\r\n".join(b"X%d: y" % i for i in range(5000)), b"Authorization2: " + b"z" * 60000):
        assert set(said(PORT, head(im, line)).statuses) <= {400, 413, 431}
    assert set(said(PORT, head(im, first=b"POST /v1/req/" + b"m" * 40000 + b" HTTP/1.1")).statuses) <= {400, 414, 431}
    deep = b"[" * 32000 + b"]" * 32000
    assert said(PORT, head(im, b"Content-Length: %d" % len(deep), close=True) + deep).statuses == [400]
    held = [socket.create_connection(("127.0.0.1", PORT), 5) for _ in range(300)]
    for s in held:
        s.sendall(head(im, b"Content-Length: 65536"))
    assert status(im, PORT) == 200
    assert rss(im) - before < 64 * MIB
    for s in held:
        s.close()


def test_h8_more_requests_than_may_wait(im):
    """1,500 requests of one user on 300 connections, five on each sent at once, answers unread; then 50 that read nothing and go.

    Each is answered or told to come again; memory stays, and the next one is served."""
    before = rss(im)
    held = []
    for _ in range(300):
        s = socket.create_connection(("127.0.0.1", PORT), 10)
        s.sendall((head(im, b"Content-Length: 2", user="dave", first=b"POST /v1/req/conversations HTTP/1.1") + b"{}") * 5)
        held.append(s)
    assert status(im, PORT) in (200, 429, 503)
    for s in held[50:]:
        data = b""
        while data.count(b"HTTP/1.1 ") < 5:
            chunk = s.recv(65536)
            assert chunk, data
            data += chunk
        assert set(re.findall(rb"HTTP/1\.1 (\d+)", data)) <= {b"200", b"429", b"503"}
    for s in held:
        s.close()
    assert rss(im) - before < 64 * MIB
    deadline = time.monotonic() + 20
    while status(im, PORT) != 200:
        assert time.monotonic() < deadline
