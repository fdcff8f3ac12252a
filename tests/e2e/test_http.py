"""Requests over HTTP (im-api): who may ask, that the answers are those of MQTT, limits, and what is said while parts are down."""
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import jwt
import pytest
from client import Client
from instance import BUILD, Instance
from ports import free_ports

TOKEN = "ab12" * 16
KEY = os.urandom(32).hex()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="im-http-"))
(FOLDER / "jwt.key").write_text(KEY)
(FOLDER / "jwt.key").chmod(0o600)
PORT = free_ports(1)[0]
OPTIONS = ["--no-bridges"]
CONF = [f"plugin_opt_im_http_listen 127.0.0.1:{PORT}", "plugin_opt_im_push honor", f"plugin_opt_im_jwt_keys HS256:{FOLDER}/jwt.key"]


@pytest.fixture(scope="module")
def tokens(im):
    return im.tokens(["alice", "bob", "carol"])


def basic(user, secret):
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def ask(method, authorization=None, client_id=None, args=None, verb="POST", port=None, timeout=20, path=None, headers=()):
    """(status, answer, headers)"""
    c = http.client.HTTPConnection("127.0.0.1", port or PORT, timeout=timeout)
    sent = dict(headers)
    if authorization:
        sent["Authorization"] = authorization
    if client_id:
        sent["Im-Client-Id"] = client_id
    body = args if isinstance(args, (bytes, type(None))) else json.dumps(args)
    try:
        c.request(verb, path or f"/v1/req/{method}", body, sent)
        r = c.getresponse()
        return r.status, json.loads(r.read()), dict(r.getheaders())
    finally:
        c.close()


def test_a_phone_registers_over_http_and_the_same_device_sees_it_over_mqtt(im, tokens):
    alice = basic("alice", tokens["alice"])
    args = {"provider": "honor", "app": "chat", "token": TOKEN}
    status, answer, headers = ask("push.register", alice, "alice:phone", args)
    assert status == 200 and answer["ok"] and answer["state"] == "active", answer
    assert answer["method"] == "push.register" and TOKEN not in json.dumps(answer)
    assert headers["Content-Type"] == "application/json" and headers["Cache-Control"] == "no-store"
    with Client(im, "alice", "phone") as c:
        c.subscribe("im/v1/in/#")
        seen = c.request("push.get")["registrations"]
    assert [(r["device"], r["provider"], r["registered"]) for r in seen] == [("alice:phone", "honor", answer["registered"])]
    assert ask("push.get", alice, "alice:phone")[1]["registrations"] == seen
    assert ask("push.unregister", alice, "alice:phone")[0] == 200
    assert ask("push.get", alice, "alice:phone")[1]["registrations"] == []
    assert ask("push.unregister", alice, "alice:phone")[0] == 404


def test_history_and_the_rest_are_what_mqtt_answers(im, tokens):
    with Client(im, "bob", "pc") as c:
        c.subscribe("im/v1/in/#")
        for i in range(3):
            c.publish("im/v1/to/u/alice", f"number {i}")
        deadline = time.monotonic() + 10
        while len(over_mqtt := c.request("history", {"conv": "u/alice"})["messages"]) < 3:
            assert time.monotonic() < deadline
    status, answer, _ = ask("history", basic("bob", tokens["bob"]), "bob:pc", {"conv": "u/alice"})
    assert status == 200 and answer["messages"] == over_mqtt and answer["more"] is False
    assert ask("history", basic("carol", tokens["carol"]), "carol:pc", {"conv": "g/none"})[0] in (403, 404)
    assert ask("me", basic("bob", tokens["bob"]), "bob:pc")[1]["user"] == "bob"


def test_a_jwt_names_its_user(im, tokens):
    now = int(time.time())
    good = jwt.encode({"sub": "alice", "exp": now + 600}, KEY, "HS256")
    status, answer, _ = ask("me", "Bearer " + good, "alice:phone")
    assert status == 200 and answer["user"] == "alice", answer
    for bad in (jwt.encode({"sub": "alice", "exp": now - 600}, KEY, "HS256"), jwt.encode({"sub": "alice", "exp": now + 600}, "x" * 64, "HS256"),
                jwt.encode({"sub": "nobody", "exp": now + 600}, KEY, "HS256"), good + "x", "x"):
        assert ask("me", "Bearer " + bad, "alice:phone")[0] == 401
    assert ask("me", "Bearer " + good, "bob:phone")[0] == 401
    assert ask("me", basic("alice", good), "alice:phone")[0] == 200
    assert ask("me", basic("bob", good), "bob:phone")[0] == 401


def test_nobody_asks_for_another_user_or_without_a_token(im, tokens):
    good = tokens["alice"]
    for authorization, client_id in ((None, "alice:phone"), (basic("alice", "wrong"), "alice:phone"), (basic("alice", good), "bob:phone"),
                                     (basic("bob", good), "bob:phone"), (basic("", good), "alice:phone"), ("Bearer " + good, "alice:phone"),
                                     (basic("$im", good), "$im-ctl-1"), (basic("alice", good), "$im-api"), (basic("nobody", good), "nobody:x"),
                                     ("Basic !!!", "alice:phone"), ("Digest x", "alice:phone"), (basic("alice", ""), "alice:phone"),
                                     (basic("a\"lice", good), "alice:phone"), (basic("alice", good), "alice:phone/../x")):
        status, answer, headers = ask("me", authorization, client_id)
        assert status == 401 and not answer["ok"] and answer["error"]["reason"], (authorization, client_id, status, answer)
        assert headers["WWW-Authenticate"].startswith("Bearer")
        assert good not in json.dumps(answer)
    assert ask("me", basic("alice", good))[0] == 400  # no device
    im.imctl("user", "password", "carol", stdin="opensesame\nopensesame\n")
    assert ask("me", basic("carol", "opensesame"), "carol:phone")[0] == 401  # passwords are for MQTT
    im.imctl("user", "disable", "alice")
    try:
        assert ask("me", basic("alice", good), "alice:phone")[0] == 401
    finally:
        im.imctl("user", "enable", "alice")
    said = "".join(p.read_text(errors="replace") for p in (im.dir / "log").glob("*"))
    assert good not in said and "rule=bad_token" in said


def test_bad_input_gets_a_clear_answer(im, tokens):
    alice = basic("alice", tokens["alice"])
    for expected, code, request in (
            (400, "bad_json", {"args": b"{"}), (400, "bad_json", {"args": b"[]"}), (400, "bad_json", {"args": b'{"a":1,"a":2}'}),
            (400, "bad_json", {"args": b"\xff\xfe"}), (400, "bad_json", {"args": {"nothing": 1}}), (413, "too_big", {"args": b" " * 65537}),
            (404, "unknown_method", {"method": "mee"}), (404, "unknown_method", {"method": "user.add"}), (404, "unknown_method", {"method": "%00"}),
            (404, "not_found", {"path": "/"}), (404, "not_found", {"path": "/v1/request/me"}), (405, "not_allowed", {"verb": "GET"}),
            (405, "not_allowed", {"verb": "DELETE"})):
        status, answer, _ = ask(request.pop("method", "me"), alice, "alice:phone", **request)
        assert (status, answer["error"]["code"]) == (expected, code), (request, status, answer)
        assert answer["error"]["reason"]
    assert ask("me", alice, "alice:phone", args=b"")[0] == 200


def raw(data, seconds):
    """What comes back until the server closes, or in so many seconds: it gives somebody silent 15 to go on."""
    out = b""
    with socket.create_connection(("127.0.0.1", PORT), seconds) as s:
        s.sendall(data)
        try:
            while chunk := s.recv(4096):
                out += chunk
        except (TimeoutError, ConnectionResetError):
            pass
    return out


def test_bent_http_is_refused_and_the_others_feel_nothing(im, tokens):
    alice = basic("alice", tokens["alice"])
    for data in (b"\0" * 1000, b"GET\r\n\r\n", b"POST /v1/req/me HTTP/1.1\r\n\r\n", b"POST /v1/req/me HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"POST /v1/req/me HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"A" * 40000, b"\x16\x03\x01\x02\x00\x01",
                 b"POST /v1/req/me HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n"):
        raw(data, 0.2)
        assert ask("me", alice, "alice:phone")[0] == 200
    chunked = (f"POST /v1/req/me HTTP/1.1\r\nHost: x\r\nAuthorization: {alice}\r\nIm-Client-Id: alice:phone\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
               "\r\n").encode() + b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert b" 413 " in raw(chunked + (b"2000\r\n" + b" " * 0x2000 + b"\r\n") * 8 + b"0\r\n\r\n", 10)
    held = [socket.create_connection(("127.0.0.1", PORT), 5) for _ in range(200)]  # who sends half a head and waits
    for s in held:
        s.sendall(b"POST /v1/req/me HTTP/1.1\r\nHo")
    assert ask("me", alice, "alice:phone")[0] == 200
    for s in held:
        s.close()


def test_many_at_once_are_answered_or_told_to_come_again(im, tokens):
    users = {u: basic(u, tokens[u]) for u in ("alice", "bob", "carol")}

    def one(i):
        user = ("alice", "bob", "carol")[i % 3]
        status, answer, headers = ask("me", users[user], f"{user}:phone{i % 7}")
        assert status == 200 and answer["user"] == user or status in (429, 503) and headers["Retry-After"] == "1", answer
        return status

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(one, range(600)))
    assert statuses.count(200) > 500


def test_what_is_down_is_said_and_comes_back(im, tokens):
    alice = basic("alice", tokens["alice"])

    def until(good, seconds=30):
        deadline = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    im.kill("im-offline", signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, answer, headers = ask("me", alice, "alice:phone", timeout=30)
        assert status == 503 and answer["error"]["code"] == "unavailable" and headers["Retry-After"] == "1"
        assert time.monotonic() - began < 20
    finally:
        im.kill("im-offline", signal.SIGCONT)
    until(lambda: ask("me", alice, "alice:phone")[0] == 200)
    for part in ("im-offline", "mosquitto"):
        before = im.pids()[part]
        im.kill(part)
        until(lambda: im.pids().get(part) not in (None, before))
        until(lambda: ask("me", alice, "alice:phone")[0] == 200)
    before = im.pids()["im-api"]
    im.kill("im-api")

    def back():
        try:
            return im.pids().get("im-api") != before and ask(None, path="/healthz", verb="GET")[0] == 200
        except OSError:
            return False

    until(back)
    until(lambda: ask("me", alice, "alice:phone")[0] == 200)


def test_https_and_settings_that_would_send_tokens_in_the_clear(tmp_path):
    key, cert, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_ports(1)[0]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], check=True, capture_output=True)
    with Instance(conf=[f"plugin_opt_im_http_listen 0.0.0.0:{port}", f"plugin_opt_im_http_cert {cert}", f"plugin_opt_im_http_key {key}"]) as im:
        token = im.add_users(["dora"])["dora"]
        c = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=ssl.create_default_context(cafile=cert))
        c.request("POST", "/v1/req/me", headers={"Authorization": basic("dora", token), "Im-Client-Id": "dora:phone"})
        answer = c.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["user"] == "dora"
        conf = im.dir / "broker.conf"
        text = conf.read_text()

        def check(replaced, by):
            other = im.dir / "other.conf"
            other.write_text(text.replace(replaced, by))
            p = subprocess.run([BUILD / "bin/im-api", "--config", other, "--check"], capture_output=True, text=True)
            return p.returncode, p.stderr

        assert check("", "") == (0, "")
        for replaced, by, says in ((f"plugin_opt_im_http_cert {cert}\n", "", "need each other"),
                                   (f"im_http_listen 0.0.0.0:{port}", "im_http_listen localhost:80", "ADDRESS:PORT"),
                                   (f"im_http_listen 0.0.0.0:{port}", "im_http_listen 127.0.0.1", "ADDRESS:PORT")):
            code, said = check(replaced, by)
            assert code == 78 and says in said, (code, said)
        bare = text.replace(f"plugin_opt_im_http_cert {cert}\n", "").replace(f"plugin_opt_im_http_key {key}\n", "")
        code, said = check(text, bare)
        assert code == 78 and "in the clear" in said, said
