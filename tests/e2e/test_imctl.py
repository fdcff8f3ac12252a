"""Every verb of imctl against a live instance: exit codes, --json, and that an answer means "in force"."""
import json
import os
import re
import signal
import subprocess
import time
import uuid

import pytest

from client import Client
from instance import BUILD, ROOT, Instance
from raw import Raw

CONF = ("plugin_opt_im_hash_memory 8", "plugin_opt_im_hash_passes 1", "plugin_opt_im_login_burst 1000",
        "plugin_opt_im_login_wait 0")  # old passwords are tried here again and again, from one address
DONE, REFUSED, USAGE, NOT_FOUND, EXISTS, UNAVAILABLE, DENIED = range(7)

# (words, standard input, exit code): in this order, on an instance with users and the group friends.
VERBS = [
    (["user", "add", "ann"], "secret\n", DONE),
    (["user", "add", "ann"], "secret\n", EXISTS),
    (["user", "add", "Ann"], "secret\n", REFUSED),
    (["user", "add", "nopw"], "", USAGE),
    (["user", "add", "nopw", "--no-password", "--title", "No Pw"], None, DONE),
    (["user", "add"], "x\n", USAGE),
    (["user", "add", "x", "y"], "x\n", USAGE),
    (["user", "password", "ann"], "other\n", DONE),
    (["user", "password", "nobody-here"], "x\n", NOT_FOUND),
    (["user", "title", "ann", "Ann Ä 漢"], None, DONE),
    (["user", "title", "nobody-here", "x"], None, NOT_FOUND),
    (["user", "disable", "ann"], None, DONE),
    (["user", "enable", "ann"], None, DONE),
    (["user", "enable", "nobody-here"], None, NOT_FOUND),
    (["user", "list"], None, DONE),
    (["user", "show", "ann"], None, DONE),
    (["user", "show", "nobody-here"], None, NOT_FOUND),
    (["user", "import", "no-such-file"], None, NOT_FOUND),
    (["token", "issue", "ann", "bob"], None, DONE),
    (["token", "issue", "nobody-here"], None, NOT_FOUND),
    (["token", "issue", "ann", "--days", "3"], None, DONE),
    (["token", "issue", "ann", "--days", "x"], None, USAGE),
    (["token", "list", "ann"], None, DONE),
    (["token", "list", "nobody-here"], None, NOT_FOUND),
    (["token", "revoke", "ann", "no-such-token"], None, NOT_FOUND),
    (["token", "revoke", "ann"], None, DONE),
    (["block", "add", "ann", "bob"], None, DONE),
    (["block", "list", "ann"], None, DONE),
    (["block", "add", "ann", "nobody-here"], None, NOT_FOUND),
    (["block", "remove", "ann", "bob"], None, DONE),
    (["group", "create", "team", "--owner", "ann", "--title", "The team"], None, DONE),
    (["group", "create", "team", "--owner", "ann"], None, EXISTS),
    (["group", "create", "team2"], None, USAGE),
    (["group", "create", "team2", "--owner", "nobody-here"], None, NOT_FOUND),
    (["group", "add", "team", "bob", "carol"], None, DONE),
    (["group", "add", "no-such-group", "bob"], None, NOT_FOUND),
    (["group", "add", "team", "nobody-here"], None, NOT_FOUND),
    (["group", "role", "team", "bob", "admin"], None, DONE),
    (["group", "role", "team", "bob", "king"], None, REFUSED),
    (["group", "title", "team", "Team"], None, DONE),
    (["group", "list"], None, DONE),
    (["group", "members", "team"], None, DONE),
    (["group", "members", "no-such-group"], None, NOT_FOUND),
    (["group", "kick", "team", "carol"], None, DONE),
    (["send", "ann", "u/bob", "hello"], None, DONE),
    (["send", "ann", "u/bob", "hello", "--id", "twice"], None, DONE),
    (["send", "ann", "u/bob", "hello", "--id", "twice"], None, DONE),
    (["send", "ann", "u/bob", "other", "--id", "twice"], None, REFUSED),
    (["send", "ann", "u/bob", "--stdin"], "from stdin\n", DONE),
    (["send", "ann", "u/bob"], None, USAGE),
    (["send", "ann", "u/nobody-here", "x"], None, NOT_FOUND),
    (["send", "ann", "g/friends", "not a member"], None, REFUSED),
    (["send", "system", "g/team", "from the system"], None, DONE),
    (["history", "bob", "u/ann"], None, DONE),
    (["history", "bob", "u/ann", "--from", "2", "--to", "3"], None, DONE),
    (["history", "bob", "nonsense"], None, REFUSED),
    (["history", "nobody-here", "u/bob"], None, NOT_FOUND),
    (["history", "bob", "u/nobody-here"], None, NOT_FOUND),
    (["conversations", "bob"], None, DONE),
    (["session", "list"], None, DONE),
    (["session", "list", "bob"], None, DONE),
    (["session", "kick", "bob", "bob:not-connected"], None, NOT_FOUND),
    (["push", "list", "bob"], None, UNAVAILABLE),  # im_push is empty; test_push.py has the rest
    (["push", "test", "bob"], None, UNAVAILABLE),
    (["push", "why", "bob", "u/ann", "1"], None, UNAVAILABLE),
    (["push", "stats"], None, UNAVAILABLE),
    (["status"], None, DONE),
    (["why", "ann", "publish", "im/v1/to/u/bob"], None, DONE),
    (["why", "ann", "publish", "im/v1/to/g/friends"], None, DENIED),
    (["why", "ann", "subscribe", "im/v1/in/#"], None, DONE),
    (["why", "ann", "connect", "bob:phone"], None, DENIED),
    (["why", "ann", "dance", "x"], None, REFUSED),
    (["backup", "/no-such-folder/b"], None, REFUSED),
    (["backup", "--verify", "no-such-file"], None, NOT_FOUND),
    (["backup"], None, USAGE),
    (["restore", "no-such-file"], None, REFUSED),  # it is running
    (["config", "check"], None, DONE),
    (["config", "check", "no-such-file"], None, NOT_FOUND),
    (["help"], None, DONE),
    (["help", "user"], None, DONE),
    (["help", "nonsense"], None, USAGE),
    (["usr", "list"], None, USAGE),
    (["user", "lst"], None, USAGE),
    (["user", "list", "--nonsense"], None, USAGE),
    ([], None, USAGE),
    (["group", "remove", "team"], None, DONE),
    (["group", "remove", "team"], None, NOT_FOUND),
    (["user", "remove", "ann"], None, DONE),
    (["user", "remove", "ann"], None, NOT_FOUND),
    (["history", "ann", "u/bob"], None, DONE),
    (["history", "bob", "u/ann"], None, DONE),
    (["user", "remove", "nopw"], None, DONE),
]


@pytest.mark.parametrize("as_json", [False, True])
def test_every_verb_and_its_exit_code(im, as_json):
    wrong = []
    second = {"ann": "eve", "u/ann": "u/eve", "nopw": "nopw2"} if as_json else {}  # a removed name is not given again
    for words, stdin, code in VERBS:
        words = [second.get(w, w) for w in words]
        p = im.imctl(*(["--json"] if as_json else []), *words, stdin=stdin if stdin is not None else "", check=False)
        if p.returncode != code:
            wrong.append((words, "exit", p.returncode, "wanted", code, p.stdout[-200:], p.stderr[-300:]))
        elif code not in (DONE, DENIED) and not p.stderr.startswith("imctl: "):
            wrong.append((words, "no sentence", p.stderr))
        elif as_json and words[:1] not in (["help"], []):
            wrong += [(words, "not JSON", line) for line in p.stdout.splitlines() if not is_json(line)]
    assert not wrong, "\n".join(map(str, wrong))


def is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_mistake_made_in_broker_conf_does_not_lock_the_admin_out(im):
    """What runs was started with the file as it was; `config check` is who complains."""
    path = im.dir / "broker.conf"
    good = path.read_text()
    try:
        path.write_text(good + "plugin_opt_im_ack_window many\nset_tcp_nodelay false\nplugin_opt_im_nonsense 1\n")
        assert im.imctl("user", "list").returncode == DONE
        assert im.imctl("config", "check", check=False).returncode == REFUSED
        path.write_text(re.sub(r"(?m)^plugin_opt_im_dir .*$", "", good))
        p = im.imctl("user", "list", check=False)
        assert p.returncode == REFUSED and "im_dir" in p.stderr
    finally:
        path.write_text(good)


def test_the_table_above_has_every_verb_of_the_help(im):
    usages = [line.split("  ")[1].split() for line in im.imctl("help").stdout.splitlines() if re.match(r"  [a-z]", line)]
    tried = {tuple(words[:2]) for words, _, _ in VERBS} | {tuple(words[:1]) for words, _, _ in VERBS}
    untried = [u for u in usages if tuple(w for w in u[:2] if w.islower() and not w.startswith("-")) not in tried
               and u[:2] not in (["config", "sample"], ["config", "reference"])]
    assert len(usages) > 30 and not untried, untried


def test_printed_sample_and_reference_are_those_of_the_repository(im):
    assert im.imctl("config", "reference").stdout == (ROOT / "docs/configuration.md").read_text()
    assert im.imctl("config", "sample").stdout.strip() in (ROOT / "broker.conf").read_text()


def log_in(im, user, password, device="check"):
    with Raw(im.port, user, f"{user}:{device}", password) as c:
        return c.rc


def test_an_answer_means_in_force(im):
    for i in range(20):
        name = f"quick{i}"
        im.imctl("user", "add", name, stdin="first\n")
        assert log_in(im, name, "first") == 0
        im.imctl("user", "password", name, stdin="second\n")
        assert (log_in(im, name, "second"), log_in(im, name, "first")) == (0, 5)
        token = im.imctl("token", "issue", name).stdout.split()[1]
        assert log_in(im, name, token) == 0
        im.imctl("token", "revoke", name)
        assert log_in(im, name, token) == 5
        im.imctl("user", "disable", name)
        assert log_in(im, name, "second") == 5
        im.imctl("user", "enable", name)
        assert log_in(im, name, "second") == 0
        im.imctl("user", "remove", name)
        assert log_in(im, name, "second") == 5


def test_membership_and_blocks_are_in_force_when_answered(im):
    with Client(im, "dave", "force") as dave, Client(im, "bob", "force") as bob:
        dave.subscribe("im/v1/in/err")
        bob.subscribe("im/v1/in/err")
        for _ in range(5):
            im.imctl("group", "add", "friends", "dave")
            dave.publish("im/v1/to/g/friends", "in")
            dave.none("im/v1/in/err", 0.1)
            im.imctl("group", "kick", "friends", "dave")
            dave.publish("im/v1/to/g/friends", "out")
            assert dave.json("im/v1/in/err")["code"] == "not_member"
            im.imctl("block", "add", "dave", "bob")
            bob.publish("im/v1/to/u/dave", "blocked")
            assert bob.json("im/v1/in/err")["code"] == "blocked"
            im.imctl("block", "remove", "dave", "bob")
            bob.publish("im/v1/to/u/dave", "fine")
            bob.none("im/v1/in/err", 0.1)


def test_sessions_are_listed_and_kicked(im):
    with Client(im, "bob", "kickme") as bob:
        rows = [json.loads(line) for line in im.imctl("--json", "session", "list", "bob").stdout.splitlines()]
        assert "bob:kickme" in {r["client_id"] for r in rows}
        bob.mqtt._thread_terminate = True  # no reconnect
        im.imctl("session", "kick", "bob", "bob:kickme")
        bob.disconnects.get(timeout=5)


def test_disabling_and_removing_ends_connections(im):
    for verb in ("disable", "remove"):
        im.imctl("user", "add", f"gone-{verb}", stdin="pw\n")
        with Raw(im.port, f"gone-{verb}", f"gone-{verb}:x", "pw") as c:
            assert c.rc == 0
            im.imctl("user", verb, f"gone-{verb}")
            with pytest.raises(ConnectionError):
                c.read(5)


def test_import_of_a_thousand_reports_bad_lines_by_number(im, tmp_path):
    lines = [f"imp{i},pass word,{i}" for i in range(1000)]
    bad = {17: "no comma here", 99: "Capital,pw", 500: "imp1,again", 501: "x" * 2000 + ",pw", 900: "imp900,", 901: "all,pw"}
    for number, text in bad.items():
        lines[number - 1] = text
    lines[700] = ""  # passed over
    path = tmp_path / "users.csv"
    path.write_text("\n".join(lines) + "\n")
    p = im.imctl("user", "import", str(path), check=False, timeout=120)
    assert p.returncode == REFUSED
    assert {int(n) for n in re.findall(rf"^{re.escape(str(path))}:(\d+): .+", p.stderr, re.M)} == set(bad), p.stderr
    assert p.stdout.split() == ["993", "added,", "6", "not"]
    assert log_in(im, "imp5", "pass word,5") == 0  # split at the first comma
    assert log_in(im, "imp998", "pass word,998") == 0
    p = im.imctl("--json", "user", "import", str(path), check=False, timeout=120)
    rows = [json.loads(line) for line in p.stdout.splitlines()]
    assert p.returncode == REFUSED and rows[-1] == {"added": 0, "failed": 999}
    assert {r["code"] for r in rows[:-1]} >= {"exists", "bad_name", "bad_field", "too_big"}


def test_import_from_standard_input(im):
    assert im.imctl("user", "import", "-", stdin="std1,pw\nstd2,pw\r\n").stdout.split() == ["2", "added,", "0", "not"]
    assert log_in(im, "std2", "pw") == 0


def test_history_as_json_is_complete_and_in_order(im):
    ids = [uuid.uuid4().hex for _ in range(50)]
    for i in ids:
        im.imctl("send", "carol", "u/dave", f"body {i}", "--id", i)
    rows = im.history("dave", "u/carol")
    assert [m["id"] for m in rows if m["id"] in set(ids)] == ids
    assert [m["seq"] for m in rows] == sorted(m["seq"] for m in rows)


def test_output_that_cannot_be_written_is_a_failure(im):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        p = subprocess.run([str(BUILD / "bin/imctl"), "--dir", str(im.dir), "user", "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == REFUSED and p.stderr.strip()


# ---- without a service, without a broker

def test_a_service_that_does_not_answer_is_told_with_its_own_exit_code(im):
    im.kill("im-offline", signal.SIGSTOP)
    try:
        p = im.imctl("user", "list", check=False, timeout=60)
    finally:
        im.kill("im-offline", signal.SIGCONT)
    assert p.returncode == UNAVAILABLE and "message service" in p.stderr, p.stderr
    assert im.imctl("user", "list").returncode == DONE


def test_a_service_that_is_down_is_told_at_once(im):
    deadline = time.monotonic() + 20
    while True:  # until it was caught between its end and its next start
        pid = im.pids()["im-offline"]
        im.kill("im-offline")
        while os.path.exists(f"/proc/{pid}"):  # until then the broker may take a question for it, which is lost without anybody's knowing
            assert time.monotonic() < deadline, "it does not end"
        began = time.monotonic()
        p = im.imctl("status", check=False)
        if p.returncode != DONE:
            break
        assert time.monotonic() < deadline, "always back in time"
    assert p.returncode == UNAVAILABLE and p.stderr.startswith("imctl: "), p.stderr
    assert time.monotonic() - began < 15
    while im.imctl("status", check=False).returncode != DONE:
        assert time.monotonic() < deadline + 20


def test_without_an_instance(tmp_path):
    other = Instance()
    try:
        p = other.imctl("status", check=False)
        assert p.returncode == UNAVAILABLE and "broker.conf" in p.stderr
        other._write_conf()
        (other.dir / "conf.d").mkdir()
        (other.dir / "conf.d/listeners.conf").write_text(f"listener 0 {other.dir}/run/bus.sock\n")
        p = other.imctl("status", check=False)
        assert p.returncode == UNAVAILABLE and "not running" in p.stderr, p.stderr
        (other.dir / "broker.conf").write_text("plugin_opt_im_nod 1\n")
        p = other.imctl("config", "check", check=False)
        assert p.returncode == REFUSED and "broker.conf:1" in p.stdout, p.stdout
    finally:
        other.remove()
