"""Passwords, commands, files, secrets (reliability table 3.6, and the rows of 3.5 that a device token has)."""
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import time
import uuid

import pytest

from client import Client
from instance import BUILD, SANITIZED
from raw import CONNACK, PUBACK, PUBREC, SUBACK, Attacker, connack, connack_of_password, connect, login, properties, publish, subscribe

CONF = ("plugin_opt_im_admins carol", "plugin_opt_im_rate_refusals 100000", "plugin_opt_im_login_burst 1000")
CONTROL, RESPONSE = "$CONTROL/im/v1", "$CONTROL/im/v1/response"
PASSWORD = "a very secret passphrase 7b1d"


# ---- tokens and passwords

def test_a1_passwords_are_kept_as_argon2id(im):
    """Somebody reads the store.

    Passwords are argon2id with 19 MiB and two passes at least and a salt each; tokens are hashes; the texts are nowhere."""
    for name in ("pw1", "pw2"):
        im.imctl("user", "add", name, stdin=PASSWORD + "\n")
    time.sleep(0.3)
    found = set()
    for path in im.dir.rglob("*"):
        if path.is_file() and path.name not in ("broker.conf", "import.csv"):
            data = path.read_bytes()
            found |= set(re.findall(rb"\$argon2id\$v=19\$m=\d+,t=\d+,p=1\$[A-Za-z0-9+/]+\$", data))
            assert PASSWORD.encode() not in data, path
            assert not [u for u, token in im.users.items() if token.encode() in data], path
    costs = {tuple(int(x) for x in re.findall(rb"[mt]=(\d+)", h)) for h in found}
    assert len(found) >= 2 and all(m >= 19456 and t >= 2 for m, t in costs), costs


def test_a2_nobody_is_told_whether_a_user_exists(im):
    """CONNECT with wrong passwords as somebody, as nobody, as somebody disabled; the answers are compared.

    The same CONNACK for all."""
    im.imctl("user", "add", "gone", "--no-password")
    im.imctl("user", "disable", "gone")
    for v5 in (False, True):
        assert len({connack_of_password(im, connect("guess", name, "x", v5=v5)) for name in ("dave", "nobody-here", "gone", "$im", "Dave")}) == 1


@pytest.mark.parametrize("token", ["", "x", "x" * 65000, "' OR 1=1 --", "../../../dev/null", "null", "0", "\u202e", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
                                   "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA"])
def test_j1_j8_tokens_that_are_none(im, token):
    """CONNECT as alice with such a token; with hers cut, longer, in other case.

    CONNACK "not authorized"."""
    for t in (token, im.users["alice"][:-1], im.users["alice"] + "A", im.users["alice"].swapcase()):
        assert connack_of_password(im, connect("alice:j", "alice", t)) == 5


def test_j6_a_token_of_somebody_else(im):
    """CONNECT as alice with bob's token, with bob's device.

    "Not authorized": token, user and client id must agree."""
    assert connack(im, connect("alice:j", "alice", im.users["bob"])) == 5
    assert connack(im, connect("bob:j", "alice", im.users["bob"])) == 5
    assert connack(im, connect("bob:j", "bob", im.users["bob"])) == 0


def test_j7_a_token_that_is_revoked_while_connected(im):
    """A device is connected with a token; the admin revokes it; the device comes back with it.

    The connection ends within a moment; then "not authorized"."""
    im.users.update(im.add_users(["lost"]))
    with login(im, "lost", "phone") as r:
        im.imctl("token", "revoke", "lost")
        assert r.closed()
    assert connack(im, connect("lost:phone", "lost", im.users["lost"])) == 5


# ---- commands

COMMANDS = [{"command": "user.remove", "user": "bob"}, {"command": "user.add", "user": "evil", "password": "x"}, {"command": "token.issue", "users": ["bob"]},
            {"command": "history", "user": "bob", "conv": "u/carol"}, {"command": "user.list"}, {"command": "send", "from": "bob", "conv": "u/carol", "text": "forged"},
            {"command": "group.add", "group": "friends", "users": ["dave"]}, {"command": "session.kick", "user": "bob"}, {"command": "status"}]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("v5", [False, True])
def test_a3_commands_of_somebody_who_is_no_admin(im, v5, qos):
    """Alice and dave PUBLISH every kind of command to $CONTROL/im/v1, alone and all in one, and try to read the answers.

    not_allowed; nothing is carried out and no answer comes."""
    for who in ("alice", "dave"):
        with login(im, who, v5=v5) as r:
            assert r.send(subscribe(RESPONSE, v5=v5)).until(SUBACK)[-1] >= 0x80
            for mid, c in enumerate(COMMANDS, 1):
                r.send(publish(CONTROL, json.dumps({"commands": [c]}), qos, mid, v5=v5))
            got = r.deliveries(0.5)
            assert not [t for t, _ in got if t.startswith("$CONTROL")]
            assert sum(b'"not_allowed"' in p for t, p in got if t.endswith("/err")) == len(COMMANDS) + 1
    assert im.imctl("user", "show", "bob").returncode == 0
    assert im.imctl("user", "show", "evil", check=False).returncode != 0
    assert "forged" not in str(im.history("bob", "u/carol"))


def test_a3_answers_go_to_the_asker_alone(im):
    """Carol, an admin, commands on one device while another of her devices, and alice, wait for answers.

    Only the asking device gets one, with the tokens in it."""
    with login(im, "carol") as asker, login(im, "carol") as other, login(im) as alice:
        for r in (asker, other):
            assert r.send(subscribe([RESPONSE, "im/v1/in/#"])).until(SUBACK)[2:] == b"\1\1"
        assert alice.send(subscribe([RESPONSE, "$CONTROL/#", "im/v1/in/#"])).until(SUBACK)[2:] == b"\x80\x80\1"
        asker.send(publish(CONTROL, '{"commands":[{"command":"token.issue","users":["bob"]}]}')).until(PUBACK)
        mine = [p for t, p in asker.deliveries(0.6) if t == RESPONSE]
        token = json.loads(mine[0][mine[0].index(b"{"):])["responses"][0]["data"]["tokens"][0]["token"]
        assert connack(im, connect("bob:issued", "bob", token)) == 0
        for r in (other, alice):
            assert not [t for t, p in r.deliveries(0.2) if t == RESPONSE or token.encode() in p]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"commands":1}', b'{"commands":[1]}', b'{"commands":[{"command":1}]}', b'{"commands":[{}]}',
                                  b'{"commands":[{"command":"user.list","user":{"a":1}}]}', b"[" * 60000, b'{"commands":[' + b'{"command":"x"},' * 3000 + b"{}]}",
                                  b'{"commands":[{"command":"user.add","user":"a\\u0000b","password":"x"}]}', b"\xff" * 1000, b"x" * 200000],
                         ids=lambda b: repr(b[:30]))
def test_a3_commands_that_are_none(im, body):
    """An admin PUBLISHes malformed commands.

    An error in the answer; nothing else happens."""
    with login(im, "carol") as r:
        r.send(subscribe(RESPONSE)).until(SUBACK)
        r.send(publish(CONTROL, body)).until(PUBACK)
        answers = [p for t, p in r.deliveries(0.4) if t == RESPONSE]
        assert answers and all(b"error" in p and b'"data"' not in p for p in answers), answers
    im.imctl("user", "list")


def test_a3_an_admin_no_longer(im):
    """Carol is taken off im_admins (SIGHUP) while she is connected and has subscribed to answers.

    Her next command is refused, and no answer reaches her."""
    conf = im.dir / "broker.conf"
    before = conf.read_text()
    log = im.dir / "log/mosquitto.log"
    with login(im, "carol") as r:
        r.send(subscribe([RESPONSE])).until(SUBACK)
        try:
            seen = log.read_text().count("evt=reload")
            conf.write_text(before.replace("im_admins carol", "im_admins nobody-else"))
            im.kill("mosquitto", 1)
            deadline = time.monotonic() + 10
            while log.read_text().count("evt=reload") == seen and time.monotonic() < deadline:
                time.sleep(0.02)
            r.send(publish(CONTROL, '{"commands":[{"command":"user.list"}]}')).until(PUBACK)
            got = r.deliveries(0.4)
            assert not [t for t, _ in got if t == RESPONSE] and any(b"not_allowed" in p for _, p in got)
        finally:
            conf.write_text(before)
            im.kill("mosquitto", 1)


# ---- injection

NASTY = ["x'); DROP TABLE user;--", "' OR '1'='1", '"; DROP TABLE user', "%", "_", "\\", "a\nb", "a\r\nb", "{x}", "$(id)", "`id`", "%s%n%x", "../../etc/passwd",
         "\u202e", "\u0001", "x" * 200, "NULL", "*", "a b"]


def test_a5_what_is_no_name_reaches_no_database(im):
    """Names, titles, conversations, cursors, ids and pages made of SQL, format and shell, by request, command and imctl.

    Refused or kept as they are; the tables are whole."""
    users = im.imctl("user", "list").stdout
    with login(im) as r:
        r.send(subscribe("im/v1/in/#")).until(SUBACK)
        r.deliveries(0.3)
        for i, text in enumerate(NASTY):
            for method, args in (("history", {"conv": "u/" + text}), ("history", {"conv": "g/" + text}), ("history", {"conv": "u/bob", "next": text}),
                                 ("members", {"group": text}), ("conversations", {"next": text}), ("groups", {"next": text}),
                                 ("sync", {"cursors": [{"conv": text, "seq": 1}]})):
                r.send(publish(f"im/v1/req/{method}/i{i}", json.dumps(args), qos=0))
            r.send(publish("im/v1/send", json.dumps({"to": "u/bob", "body": text, "ext": {text: text}, "type": "text"}), qos=0))
            r.send(publish("im/v1/send", json.dumps({"to": "u/bob", "body": "x", "reply": text, "mentions": [text]}), qos=0))
        assert r.deliveries(0.7)
    for text in NASTY:
        assert im.imctl("user", "add", text, stdin="x\n", check=False).returncode != 0
        im.imctl("user", "title", "dave", "--", text, check=False)
        im.imctl("history", "alice", "u/" + text, check=False)
    assert im.imctl("user", "list").stdout.count("\n") == users.count("\n")
    bodies = [m["body"] for m in im.history("alice", "u/bob")]
    assert all(text in bodies for text in NASTY)
    with sqlite3.connect(f"file:{im.dir}/store/store.db?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA quick_check").fetchone()[0] == "ok"


def test_a5_no_sql_is_built_from_text():
    """A printf of SQL in the sources.

    There is none but of numbers and names that are constants."""
    root = BUILD.parent if (BUILD.parent / "services").exists() else None
    if root is None:
        pytest.skip("built elsewhere")
    for path in (root / "services").rglob("*.c"):
        for line in re.findall(r'(?:printf|im_buf_printf)\([^;]*?"[^"]*\b(?:SELECT|INSERT|UPDATE|DELETE|WHERE|VALUES)\b[^"]*"', path.read_text(), re.S):
            assert "%s" not in line and "'%" not in line, (path, line)


# ---- secrets, files, processes

def test_a9_files_sockets_and_folders_are_ours_alone(im):
    """Somebody else on the host looks at the state folder.

    Nothing below it is open to group or others, sockets neither; the secret is 0600."""
    assert stat.S_IMODE(im.dir.stat().st_mode) == 0o700
    for path in im.dir.rglob("*"):
        if path.is_symlink() or path.name in ("import.csv",) or "bin" in path.parts[-2:]:
            continue
        mode = path.lstat().st_mode
        if path == im.dir / "run/bus.sock":
            continue  # mosquitto's own, with its umask; the folder it is in is closed, and the secret decides
        assert not stat.S_IMODE(mode) & 0o077, (path, oct(mode))
    assert stat.S_IMODE((im.dir / "run/bus.secret").stat().st_mode) == 0o600


def test_a9_j10_secrets_are_in_no_log_and_no_command_line(im):
    """Logins with passwords and tokens, good and bad, by users, imctl and services; then all logs and /proc/*/cmdline are read.

    None of the secrets is there; environments hold none either."""
    im.imctl("user", "add", "logged", stdin=PASSWORD + "\n")
    wrong = "wrong-" + uuid.uuid4().hex
    secrets = [PASSWORD, wrong, (im.dir / "run/bus.secret").read_text().strip(), *im.users.values()]
    connack(im, connect("logged:x", "logged", PASSWORD))
    connack(im, connect("logged:x", "logged", wrong))
    connack(im, connect("x", wrong, wrong))
    with login(im) as r:
        r.send(publish("im/v1/to/u/bob", "body-" + wrong) + publish("im/v1/nonsense/" + "a", wrong) + publish("im/v1/send", '{"' + wrong)).deliveries(0.3)
    slow = subprocess.Popen([str(BUILD / "bin/imctl"), "--dir", str(im.dir), "user", "password", "logged"], stdin=subprocess.PIPE, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=im.environment())
    try:
        for pid in [*im.pids().values(), slow.pid, im.process.pid]:
            for what in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{what}", "rb") as f:
                    data = f.read()
                assert not [s for s in secrets if s.encode() in data], (pid, what)
    finally:
        slow.communicate(PASSWORD + "\n", timeout=30)
    logs = "".join(p.read_text(errors="replace") for p in (im.dir / "log").glob("*"))
    assert "evt=" in logs
    assert not [s for s in secrets if s in logs and s != wrong]
    assert f"password={wrong}" not in logs and "body-" + wrong not in logs and '{"' + wrong not in logs


@pytest.mark.skipif(SANITIZED, reason="sanitizers need to look at themselves")
def test_a9_no_core_files(im):
    """Every process that holds secrets or messages is asked what it would leave behind in a crash.

    RLIMIT_CORE is 0 in all of them."""
    for name, pid in im.pids().items():
        with open(f"/proc/{pid}/limits") as f:
            core = next(line for line in f if line.startswith("Max core file size"))
        assert core.split()[4] == "0", (name, core)


def test_a12_the_bus_credential_over_tcp(im):
    """CONNECT as $im with the real secret, over TCP; over the Unix socket with a wrong one and with other client ids.

    CONNACK "not authorized" each: services come over the Unix socket, with the secret, under their own ids."""
    secret = (im.dir / "run/bus.secret").read_text().strip()
    assert connack(im, connect("$im-offline", "$im", secret)) == 5
    assert connack(im, connect("$im-x", "$im", secret, v5=True)) == 0x87

    def over_unix(client_id, user, password):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(im.dir / "run/bus.sock"))
            s.sendall(connect(client_id, user, password))
            answer = s.recv(4)
            return answer[3] if len(answer) == 4 else None

    assert over_unix("$im-offline", "$im", "0" * 64) == 5
    assert over_unix("$im-offline", "$im", secret.upper()) == 5
    assert over_unix("$im-offline", "$im", secret[:63]) == 5
    assert over_unix("$im-offline", "alice", im.users["alice"]) == 5
    assert over_unix("alice:x", "$im", secret) == 5
    assert over_unix("$im-test", "$im", secret) == 0


@pytest.mark.parametrize("level", [0x83, 0x84, 0x80, 0, 1, 2, 6, 255])
def test_a13_the_bridge_bit_and_protocols_that_do_not_exist(im, level):
    """CONNECT with the bridge bit in the protocol level, and with levels MQTT never had.

    A bridge is an ordinary client with its user's rights; all other levels are refused."""
    with Attacker(im) as r:
        body = r.send(connect(f"alice:l{level}", "alice", im.users["alice"], level=level)).until(CONNACK)
        if body is None or body[1] != 0:
            return
        assert level == 0x84
        codes = r.send(subscribe(["#", "$im/#", "im/#", "$CONTROL/im/v1/response"])).until(SUBACK)
        assert codes[2:] == b"\x80" * 4
        r.send(publish("im/v1/in/msg/u/bob", "forged", retain=True) + publish("$im/out", "forged", mid=2))
        assert r.errors(0.3)
