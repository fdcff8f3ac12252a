"""im-apns-bridge as it is installed, with a provider in trouble: rows of the fault table that need the whole process (docs/push.md)."""
import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from bridge import pb
from bridge_process import FINAL, Process
from cryptography.hazmat.primitives import serialization
from service import Service

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "push"))
import certs  # noqa: E402
from apns_standin import Standin  # noqa: E402

KID, TEAM, TOPIC = "ABC123DEFG", "TEAM123456", "com.example.chat"
BACKLOG, FRESH = int(os.environ.get("IM_PUSH_BACKLOG", "20000")), int(os.environ.get("IM_PUSH_FRESH", "1000"))  # all; of them not expired
once = pytest.mark.skipif(bool(os.environ.get("IM_SANITIZED")), reason="long; runs in the plain stage")
FAKETIME = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def wait(what, timeout=20):
    end = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return found


def public_of(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apns")
    ca, key = certs.Authority(), certs.p256()
    (folder / "ca.pem").write_bytes(ca.pem())
    certs.write_secret(folder / "server.pem", ca.server())
    certs.write_secret(folder / "key.p8", certs.key_pem(key))
    return types.SimpleNamespace(dir=folder, ca=ca, key=key)


@pytest.fixture
def standin(place):
    with Standin(place.dir / "server.pem", keys={KID: (TEAM, public_of(place.key))}, topics={TOPIC}) as s:
        yield s
    assert not s.errors, s.errors


@pytest.fixture
def make(im, place, standin):
    """make(folder) -> the bridge with the app `chat` on the stand-in."""
    def build(folder, **settings):
        keys = {"key_file": place.dir / "key.p8", "key_id": KID, "team_id": TEAM, "topic": TOPIC, "ca_file": place.dir / "ca.pem",
                "endpoint": f"https://localhost:{standin.port}"}
        return Process(im, folder, "apns", {"chat": "".join(f"{k} {v}\n" for k, v in keys.items())}, **{"im_push_coalesce": 0, **settings})
    return build


@pytest.fixture
def bridge(make, tmp_path):
    with make(tmp_path / "push") as p:
        yield p


@pytest.fixture
def service(im):
    def ticket(job, ask):
        token = pb.Token(app=job.app, env="production", token=job.device.encode().hex().zfill(64), registered_ms=1000)
        return {"verdict": pb.VERDICT_SEND, "token": token, "title": "Bob", "body": "hello", "msgid": job.key, "seq": job.seq}
    with Service(im, "apns", ticket) as s:
        s.send = ticket
        yield s


def greet(service):
    service.wait(lambda: service.greeted, 20)


def stats(service, timeout=20):
    end = time.monotonic() + timeout
    while True:
        try:
            return json.loads(service.ask('{"query":"stats"}', 1))
        except AssertionError:
            assert time.monotonic() < end, "no answer"


def breaker(service):
    return [c["breaker"] for c in stats(service)["channels"]]


def ended(service, n, timeout=30):
    wait(lambda: sum(stats(service)["ended"].values()) >= n, timeout)
    return {k: v for k, v in stats(service)["ended"].items() if v}


def rss_kib(bridge):
    status = pathlib.Path(f"/proc/{bridge.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def give(service, n, **more):
    service.give(*(service.job(f"m{i}", user=f"u{i}", conv=f"c{i}", seq=1, **more) for i in range(n)))


def accepted(standin):
    return sorted(r.json["im"]["msgid"] for r in standin.accepted)


# ---- the connection


@once
def test_a_server_that_accepts_and_says_nothing(bridge, service, standin):  # 1
    """The breaker opens, nothing is lost, and all of it goes when there is an answer again; the other rows of 1 are in test_a_backlog."""
    standin.silent = True
    greet(service)
    give(service, 100)
    wait(lambda: breaker(service) == ["trouble"], 30)
    s = stats(service)
    assert s["open"] == 100 and not any(s["ended"].values())
    assert len(standin.conns) <= 6, "it hammers"
    standin.silent = False
    assert ended(service, 100) == {"accepted": 100}
    assert accepted(standin) == sorted(f"m{i}" for i in range(100))


@pytest.mark.parametrize("wrong", ["authority", "name", "expired"])
def test_a_certificate_that_is_not_the_providers(bridge, service, standin, place, tmp_path, wrong):  # 2
    ca = certs.Authority() if wrong == "authority" else place.ca
    pem = ca.server(names=("elsewhere",), addresses=()) if wrong == "name" else ca.server(until=-0.5) if wrong == "expired" else ca.server()
    standin.context.load_cert_chain(certs.write_secret(tmp_path / "other.pem", pem))
    greet(service)
    give(service, 20)
    wait(lambda: breaker(service) == ["config"])
    assert "someone must act" in bridge.log() and stats(service)["open"] == 20
    assert not standin.requests, "sent to whoever it is"
    standin.context.load_cert_chain(place.dir / "server.pem")
    bridge.process.send_signal(signal.SIGHUP)
    assert ended(service, 20) == {"accepted": 20}


def test_a_wrong_key_costs_no_push_and_no_token(bridge, service, standin, place):  # 20
    standin.keys = {KID: (TEAM, public_of(certs.p256()))}
    greet(service)
    give(service, 60)
    wait(lambda: breaker(service) == ["config"])
    assert "reason=\"InvalidProviderToken\"" in bridge.log() and "someone must act: mend the app's file" in bridge.log()
    s = stats(service)
    assert s["open"] == 60 and not s["suspects"] and not service.verdicts and len(standin.requests) <= 33
    standin.keys = {KID: (TEAM, public_of(place.key))}
    bridge.process.send_signal(signal.SIGHUP)
    assert ended(service, 60) == {"accepted": 60} and not service.verdicts


# ---- the disk and the clock


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_read_only_disk_is_waited_out(make, service, standin, tmp_path):  # 42
    folder = tmp_path / "push"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with make(folder) as bridge:
            greet(service)
            give(service, 10)
            ended(service, 10)
            assert bridge.stop() == 0
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            service.greeted = 0
            bridge.start()
            wait(lambda: "nothing is taken or sent until it can be written" in bridge.log())
            give(service, 10, app="chat", mention=True)
            assert bridge.process.poll() is None and service.greeted == 0 and len(standin.accepted) == 10
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
            greet(service)
            service.give(service.job("after"))
            wait(lambda: "after" in accepted(standin))
            assert len(standin.accepted) == 11, "what was sent before is known"
            assert bridge.stop() == 0
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@once
@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime, which does not go with sanitizers")
def test_a_clock_set_back_holds_nothing_up(make, service, standin, tmp_path):  # 42
    clock = tmp_path / "clock"
    clock.write_text("+0")
    bridge = make(tmp_path / "push")
    bridge.env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1",
                  "FAKETIME_DONT_RESET": "1"}
    with bridge:
        greet(service)
        service.give(service.job("first"))  # the provider token is of the right time
        ended(service, 1)
        now = int(time.time() * 1000)
        service.give(service.job("held", not_before_ms=now + 2500), service.job("late", device="alice:pad", not_before_ms=now + 60000, deadline_ms=now + 3500))
        service.wait(lambda: service.stored == 2)
        clock.write_text("-7200")
        assert ended(service, 3) == {"accepted": 2, "expired": 1}  # by the clock that is not set
        assert int(time.time() * 1000) - now < 15000 and accepted(standin) == ["first", "held"]
        service.give(service.job("new"))
        wait(lambda: accepted(standin) == ["first", "held", "new"])
        assert bridge.process.poll() is None


# ---- many


@once
def test_a_backlog_after_an_outage(bridge, service, standin):  # 1, 43
    """An hour's worth for a provider that is not there. What has expired meanwhile is never sent, the rest is, and the provider is not run over."""
    standin.shut()
    greet(service)
    now, lives = int(time.time() * 1000), {True: 3600000, False: 5000}
    for i in range(0, BACKLOG, 250):
        service.give(*(service.job(f"m{n}", user=f"u{n % 5000}", conv=f"c{n}", seq=n, deadline_ms=now + lives[n < FRESH]) for n in range(i, i + 250)))
    service.wait(lambda: not service.frames, 60)
    full = rss_kib(bridge)
    wait(lambda: breaker(service) == ["trouble"])
    expired = {"expired": BACKLOG - FRESH} if BACKLOG > FRESH else {}
    assert ended(service, BACKLOG - FRESH, 90) == expired
    assert stats(service)["open"] == FRESH
    began = time.monotonic()
    standin.listen()
    assert ended(service, BACKLOG, 60 + FRESH / 200) == {**expired, "accepted": FRESH}
    print(f"\n{BACKLOG} waited, {full} KiB; {FRESH} sent in {time.monotonic() - began:.1f} s, {rss_kib(bridge)} KiB then")
    assert full < 24000 + BACKLOG * 1.5
    times = collections.Counter(accepted(standin))
    again = {key for key, n in times.items() if n > 1}
    late = bridge.log().count("two timeouts in a row")  # the stand-in may be too slow for a hundred thousand
    assert set(times) == {f"m{n}" for n in range(FRESH)} and (late or not again) and len(standin.conns) <= 4 + late, (len(again), late, len(standin.conns))
    bridge.stop()
    assert again <= {r["key"] for r in bridge.rows() if r["flags"] & 1} and len(again) < max(1, FRESH // 20)
    assert collections.Counter(FINAL[r["state"]] for r in bridge.rows()) == {**expired, "accepted": FRESH}


def test_a_large_group_that_talks_fast(make, service, standin, tmp_path):  # 46
    """500 members, all away, 50 messages a second: each device rings at most once in the coalescing time, and the last one stands for all."""
    members, messages, coalesce_ms = 500, 100, 1000
    with make(tmp_path / "push", im_push_coalesce=coalesce_ms) as bridge:
        greet(service)
        began = time.monotonic()
        for seq in range(1, messages + 1):
            service.give(*(service.job(f"m{seq}", user=f"u{i}", conv="g/big", seq=seq) for i in range(members)))
            while time.monotonic() < began + seq / 50:
                time.sleep(0.001)
        talked = time.monotonic() - began
        ends = ended(service, members * messages, 60)
        times = collections.Counter(r.token for r in standin.accepted)
        newest = collections.defaultdict(int)
        for r in standin.accepted:
            newest[r.token] = max(newest[r.token], r.json["im"]["seq"])
        assert len(times) == members and set(newest.values()) == {messages}
        assert max(times.values()) <= (time.monotonic() - began) * 1000 / coalesce_ms + 2 and sum(times.values()) == ends["accepted"]
        assert ends["coalesced"] > members * messages * 0.7, (ends, talked)
        kib = int(next(x for x in open(f"/proc/{bridge.process.pid}/status") if x.startswith("VmRSS")).split()[1])
        assert kib < 120000 or os.environ.get("IM_SANITIZED"), kib
