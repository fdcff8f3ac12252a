"""What all bridges share (lib/push), against a message service played by the test and a provider that does what a ticket's text says."""
import collections
import json
import os
import random
import signal
import sqlite3
import subprocess
import time

import pytest
from bridge import pb
from bridge_process import FINAL
from bridge_process import Process as AnyProcess
from instance import BUILD
from service import Service

POINTS = ("push.before_commit", "push.after_commit", "push.before_send", "push.after_send", "push.before_result")


class Process(AnyProcess):
    """The scripted bridge."""

    def __init__(self, im, folder, apps=("chat",), app="word right\n", **settings):
        super().__init__(im, folder, "scripted", {name: app for name in apps}, **settings)

    def sent(self):
        """What the provider got: [key, user, device, uuid, attempt, env, minimal, seq, row, collapse]"""
        path = self.state / "sent.log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def bridge(im, tmp_path):
    with Process(im, tmp_path / "push", im_push_coalesce=0) as p:
        yield p


@pytest.fixture
def service(im):
    with Service(im, "scripted") as s:
        yield s


def wait(what, timeout=15):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def stats(service, timeout=15):
    """Asked again while the bridge is not there: queries are not kept for it."""
    end = time.monotonic() + timeout
    while True:
        try:
            return json.loads(service.ask('{"query":"stats"}', 1))
        except AssertionError:
            assert time.monotonic() < end, "no answer"


def breaker(service):
    return [c["breaker"] for c in stats(service)["channels"]]


def ended(service, n, timeout=20):
    wait(lambda: sum(stats(service)["ended"].values()) >= n, timeout)
    return stats(service)["ended"]


def greeted(service):
    service.wait(lambda: service.greeted)


# ---- one job


def test_a_job_is_stored_asked_for_and_sent(bridge, service):
    service.give(service.job("m1", conv="u/alice:bob", seq=7))
    service.wait(lambda: service.stored == 1)
    assert ended(service, 1)["accepted"] == 1
    assert service.asks[0].job.seq == 7 and service.asks[0].job.key == "m1"
    sent = bridge.sent()
    assert len(sent) == 1 and sent[0][:3] == ["m1", "alice", "alice:phone"] and sent[0][5] == "one"
    answer = json.loads(service.ask('{"query":"explain","user":"alice","device":"alice:phone","conv":"u/alice:bob","seq":7}'))
    assert answer["state"] == "accepted" and answer["ended"][0]["key"] == "m1" and answer["ended"][0]["attempts"] == 0
    assert bridge.stop() == 0
    assert [r["state"] for r in bridge.rows()] == [4]
    assert 'push_sent_total{provider="scripted",app="chat",result="accepted"} 1\n' in bridge.metrics()
    assert "alice" not in bridge.metrics() and "talice:phone" not in bridge.log()
    assert b"talice:phone" not in b"".join(p.read_bytes() for p in bridge.state.glob("outbox*"))


def test_given_twice_it_is_sent_once(bridge, service):  # 45
    for _ in range(3):
        service.give(service.job("m1"), service.job("m1", device="alice:pad"), service.job("m1"))
    service.wait(lambda: service.stored == 3)
    assert ended(service, 2)["accepted"] == 2
    assert sorted(s[2] for s in bridge.sent()) == ["alice:pad", "alice:phone"]


def test_what_was_read_meanwhile_is_not_sent(bridge, service):  # 44
    service.ticket = lambda job, ask: ({"verdict": pb.VERDICT_CANCEL, "reason": job.key} if job.key in ("got", "read", "recalled", "no_token")
                                       else service.send(job, ask))
    service.give(*(service.job(key, conv="c/" + key) for key in ("got", "read", "recalled", "no_token", "fine")))
    assert ended(service, 5)["cancelled"] == 4
    assert [s[0] for s in bridge.sent()] == ["fine"]
    bridge.stop()
    assert {r["key"]: r["reason"] for r in bridge.rows() if r["state"] == 6} == {k: k for k in ("got", "read", "recalled", "no_token")}


def test_quiet_hours_hold_and_the_deadline_ends(bridge, service):
    now = int(time.time() * 1000)
    holds = {"verdict": pb.VERDICT_HOLD, "reason": "quiet_hours", "hold_until_ms": now + 3600000}
    service.ticket = lambda job, ask: dict(holds) if job.key == "held" else service.send(job, ask)
    late, short = service.job("later", conv="1", not_before_ms=now + 1500), service.job("held", conv="2")
    short.deadline_ms = now + 2500
    service.give(late, short)
    assert ended(service, 2) == {"accepted": 1, "dead": 0, "cancelled": 0, "coalesced": 0, "expired": 1}
    assert time.time() * 1000 >= now + 1500 and [s[0] for s in bridge.sent()] == ["later"]


def test_retries_keep_their_ids_and_say_that_they_may_be_doubles(bridge, service):
    """Unknown outcomes are tried again with the same ids; what is surely unsent, too large or of the other environment at once."""
    scripts = {"unknown": ["unknown", "accepted"], "retry": ["retry", "accepted"], "unsent": ["unsent", "unsent", "accepted"],
               "large": ["too_large", "accepted"], "bug": ["bug"], "content": ["content"], "huge": ["too_large", "too_large"]}
    asked = collections.Counter()

    def ticket(job, ask):
        asked[job.key] += 1
        return service.send(job, ask, scripts[job.key][asked[job.key] - 1])

    service.ticket = ticket
    service.give(*(service.job(key, conv=key) for key in scripts))
    assert ended(service, len(scripts), 30) == {"accepted": 4, "dead": 3, "cancelled": 0, "coalesced": 0, "expired": 0}
    by_key = collections.defaultdict(list)
    for s in bridge.sent():
        by_key[s[0]].append(s)
    assert len(by_key["unknown"]) == 2 and len({(s[3], s[9]) for s in by_key["unknown"]}) == 1
    assert [s[4] for s in by_key["retry"]] == ["1", "2"] and [s[6] for s in by_key["large"]] == ["0", "1"]
    bridge.stop()
    rows = {r["key"]: r for r in bridge.rows()}
    assert rows["unknown"]["flags"] & 1 and not rows["retry"]["flags"] & 1
    assert (rows["bug"]["state"], rows["content"]["state"], rows["huge"]["state"]) == (5, 5, 5)


# ---- many


def test_a_conversation_is_coalesced_and_the_last_stands_for_all(im, tmp_path, service):
    with Process(im, tmp_path / "push", im_push_coalesce=1000) as bridge:
        greeted(service)
        service.give(service.job("m1", conv="g/x", seq=1))
        wait(bridge.sent)
        for seq in range(2, 21):
            service.give(service.job(f"m{seq}", conv="g/x", seq=seq))
        assert ended(service, 20)["coalesced"] == 18
        assert [s[7] for s in bridge.sent()] == ["1", "20"]
        assert service.asks[-1].since_seq == 2 and service.asks[-1].job.seq == 20
        service.give(service.job("m21", conv="g/x", seq=21), service.job("m22", conv="g/x", seq=22, mention=True))
        began = time.monotonic()
        wait(lambda: any(s[0] == "m22" for s in bridge.sent()))
        assert time.monotonic() - began < 0.9
        bridge.stop()
        assert all(r["into_row"] > r["row"] for r in bridge.rows() if FINAL.get(r["state"]) == "coalesced")


def test_one_users_heap_does_not_stop_the_others(bridge, service):  # 43
    greeted(service)
    service.ticket = lambda job, ask: service.send(job, ask, "accepted after=3")
    for i in range(20):
        service.give(*(service.job(f"h{i}-{n}", user="heavy", conv=f"{i}-{n}") for n in range(250)))
    service.wait(lambda: service.stored == 20, 30)
    service.give(*(service.job(f"x{n}", user=f"user{n}") for n in range(20)))
    wait(lambda: sum(s[1] != "heavy" for s in bridge.sent()) == 20, 30)
    assert len(bridge.sent()) < 5000, "the others came last"
    assert ended(service, 5020, 60)["accepted"] == 5020


def test_a_full_outbox_says_so_and_nothing_is_lost(im, tmp_path, service):  # 43
    with Process(im, tmp_path / "push", im_push_coalesce=0, im_push_outbox=1000) as bridge:
        greeted(service)
        service.ticket = lambda job, ask: {"verdict": pb.VERDICT_HOLD, "hold_until_ms": int(time.time() * 1000) + 1000}
        for i in range(12):
            service.give(*(service.job(f"{i}-{n}", conv=f"{i}-{n}") for n in range(100)))
        service.wait(lambda: service.fulls == 1 and service.stored == 10)
        service.ticket = service.send
        wait(lambda: service.stored == 12, 40)
        assert ended(service, 1200, 40)["accepted"] == 1200
        assert len({s[0] for s in bridge.sent()}) == 1200
        assert "evt=outbox_full" in bridge.log() and "evt=outbox_room" in bridge.log()


# ---- the provider's troubles


def test_breaker_opens_and_one_probe_closes_it(bridge, service):
    greeted(service)
    broken = [True]
    service.ticket = lambda job, ask: service.send(job, ask, "unreachable" if broken[0] else "accepted")
    service.give(*(service.job(f"m{n}", conv=str(n)) for n in range(50)))
    wait(lambda: breaker(service) == ["trouble"])
    asked = len(service.asks)
    broken[0] = False
    time.sleep(1)
    assert len(service.asks) == asked, "asked although nothing may be sent"
    assert ended(service, 50, 30)["accepted"] == 50


def test_config_trouble_loses_nothing_and_costs_no_token(bridge, service):
    greeted(service)
    service.body = "config reason=InvalidProviderToken"
    service.give(*(service.job(f"m{n}", user=f"u{n}") for n in range(30)))
    wait(lambda: breaker(service) == ["config"])
    assert "InvalidProviderToken" in bridge.log() and "someone must act" in bridge.log()
    service.body = "accepted"
    (bridge.dir / "scripted.chat.conf").write_text("word wrong\n")
    bridge.process.send_signal(signal.SIGHUP)
    wait(lambda: "the apps' old files stay in force" in bridge.log())
    assert "scripted.chat.conf:1: word: is the wrong one" in bridge.log()
    assert breaker(service) == ["config"]
    (bridge.dir / "scripted.chat.conf").write_text("word right\nroom 10\n")
    bridge.process.send_signal(signal.SIGHUP)
    assert ended(service, 30)["accepted"] == 30
    assert not service.verdicts


def test_a_refused_access_token_is_renewed_once(bridge, service):
    greeted(service)
    seen = collections.Counter()

    def ticket(job, ask):
        seen[job.key] += 1
        return service.send(job, ask, "auth" if job.key == "bad" or seen[job.key] == 1 else "accepted")

    service.ticket = ticket
    service.give(service.job("once"))
    assert ended(service, 1)["accepted"] == 1
    service.give(service.job("bad"))
    wait(lambda: breaker(service) == ["config"])
    assert seen["bad"] == 2


def test_wrong_environment_is_found_out_once(bridge, service):
    greeted(service)
    service.ticket = lambda job, ask: {**service.send(job, ask), "token": service.token(job, env=""),
                                       "body": "token_env" if not any(s[0] == job.key for s in bridge.sent()) else "accepted"}
    service.give(service.job("m1"))
    assert ended(service, 1)["accepted"] == 1
    assert [s[5] for s in bridge.sent()] == ["one", "two"]
    service.wait(lambda: service.verdicts)
    assert [(v.state, v.env) for v in service.verdicts.values()] == [(pb.TOKEN_STATE_OK, "two")]


def test_a_dead_token_is_believed_if_it_is_one_of_few(bridge, service):
    greeted(service)
    service.give(*(service.job(f"m{n}", user=f"u{n}") for n in range(40)))
    ended(service, 40)
    service.body = "token_invalid reason=Unregistered"
    service.hears = False
    service.give(service.job("dead", user="gone"))
    assert ended(service, 41)["dead"] == 1
    service.wait(lambda: service.verdicts)
    v = next(iter(service.verdicts.values()))
    assert (v.user, v.registered_ms, v.state, v.reason) == ("gone", 1000, pb.TOKEN_STATE_INVALID, "Unregistered")
    bridge.stop(signal.SIGKILL)  # not heard: said again, by the next process too
    service.verdicts.clear()
    service.hears = True
    bridge.start()
    service.wait(lambda: service.verdicts, 20)
    wait(lambda: stats(service)["verdicts"] == 0)
    bridge.stop()
    db = sqlite3.connect(bridge.state / "outbox.db")
    assert db.execute("SELECT count(*) FROM verdict").fetchone() == (0,)


def test_mass_invalidation_costs_no_token(bridge, service):  # 21
    greeted(service)
    service.body = "token_invalid reason=BadDeviceToken"
    service.give(*(service.job(f"m{n}", user=f"u{n}") for n in range(100)))
    service.wait(lambda: len(service.verdicts) == 100)
    assert {v.state for v in service.verdicts.values()} == {pb.TOKEN_STATE_SUSPECT}
    assert stats(service)["suspects"] == 100 and "evt=token_suspect" in bridge.log()
    service.body = "accepted"
    service.give(service.job("more", user="u1", conv="other"))  # a suspect's pushes wait
    time.sleep(0.5)
    assert len(bridge.sent()) == 100
    bridge.stop(signal.SIGKILL)
    bridge.start()
    wait(lambda: stats(service)["suspects"] == 100 and stats(service)["open"] == 101)
    bridge.process.send_signal(signal.SIGHUP)  # the topic is mended; so says it to a process that has only read of the suspects
    assert ended(service, 101)["accepted"] == 101
    assert stats(service)["suspects"] == 0


def test_registered_again_after_the_provider_saw_it_die(bridge, service):
    greeted(service)
    seen = collections.Counter()

    def ticket(job, ask):
        seen[job.key] += 1
        return {**service.send(job, ask, "token_invalid since=5000" if seen[job.key] == 1 else "accepted"), "token": service.token(job, registered_ms=6000)}

    service.ticket = ticket
    service.give(service.job("m1"))
    assert ended(service, 1)["accepted"] == 1 and not service.verdicts


def test_a_hot_token_is_left_alone_and_the_app_goes_on(bridge, service):
    greeted(service)
    service.ticket = lambda job, ask: service.send(job, ask, "token_rate" if job.user == "hot" else "accepted")
    service.give(service.job("m1", user="hot"))
    wait(lambda: "token_rate" in service.ask('{"query":"explain","user":"hot"}'))
    service.give(service.job("m2", user="hot", conv="2"), service.job("m3", user="cool"))
    assert ended(service, 1)["accepted"] == 1
    assert [s[0] for s in bridge.sent()] == ["m1", "m3"]


# ---- ends and beginnings


def test_a_check_reads_the_apps_files_and_holds_nothing_up(bridge, service):
    def check():
        r = subprocess.run([BUILD / "bin/im-scripted-bridge", "--check", "--config", bridge.dir / "bridge.conf"], capture_output=True, text=True, timeout=15)
        return r.returncode, r.stderr
    greeted(service)  # it has read its own
    assert check() == (0, "")
    (bridge.dir / "scripted.chat.conf").write_text("word right\nrooom 3\n")
    code, says = check()
    assert code == 78 and "scripted.chat.conf:2: unknown key 'rooom'; did you mean room?" in says
    (bridge.dir / "scripted.chat.conf").write_text("word wrong\n")
    assert check()[0] == 78
    service.give(service.job("m1"))  # the one that runs has not noticed
    assert ended(service, 1)["accepted"] == 1


def test_figures_are_for_a_group(im, tmp_path, service):
    (tmp_path / "figures").mkdir(mode=0o750)
    with Process(im, tmp_path / "push", im_push_metrics=tmp_path / "figures") as bridge:
        wait(lambda: "evt=ready" in bridge.log())
        assert bridge.stop() == 0
    figures = tmp_path / "figures/scripted.prom"
    assert figures.stat().st_mode & 0o777 == 0o640
    assert "push_outbox_rows" in figures.read_text()


def test_sigterm_ends_in_order(bridge, service):  # 49
    greeted(service)
    service.ticket = lambda job, ask: service.send(job, ask, "never" if int(job.key) < 20 else "accepted after=1000")
    service.give(*(service.job(str(n), conv=str(n)) for n in range(200)))
    wait(lambda: len(bridge.sent()) == 200)
    began = time.monotonic()
    assert bridge.stop() == 0 and time.monotonic() - began < 10
    rows = bridge.rows()
    assert collections.Counter(r["state"] for r in rows) == {4: 180, 2: 20}
    assert all(r["state"] == 2 and r["flags"] & 1 for r in rows if int(r["key"]) < 20)
    service.ticket = service.send
    bridge.start()
    wait(lambda: len(bridge.sent()) == 220, 30)


def test_wrong_files_stop_it_with_a_sentence(im, tmp_path):
    for app, says in (("wort right\n", "scripted.chat.conf:1: unknown key 'wort'; did you mean word?"), ("room 5\n", "word is missing"),
                      ("word wrong\n", "scripted.chat.conf:1: word: is the wrong one")):
        p = Process(im, tmp_path / "push", app=app)
        assert p.start().process.wait(15) == 78 and says in p.log(), p.log()


def test_a_damaged_outbox_is_set_aside(bridge, service):  # 42
    service.give(service.job("m1"))
    ended(service, 1)
    bridge.stop()
    (bridge.state / "outbox.db").write_bytes(b"SQLite format 3\0" + random.Random(1).randbytes(50000))
    bridge.start()
    service.give(service.job("m2"))
    wait(lambda: any(s[0] == "m2" for s in bridge.sent()))
    assert "evt=outbox_damaged" in bridge.log() and (bridge.state / "outbox.db.damaged").exists()


def test_an_outbox_of_a_newer_release_is_left_alone(bridge, service):
    service.give(service.job("m1"))
    ended(service, 1)
    bridge.stop()
    with sqlite3.connect(bridge.state / "outbox.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert bridge.start().process.wait(15) == 78
    assert "made by a newer release" in bridge.log() and [r["key"] for r in bridge.rows()] == ["m1"]


def test_a_locked_outbox_is_waited_for(bridge, service):  # 42
    greeted(service)
    second = Process(bridge.im, bridge.dir)
    second.start()
    wait(lambda: "database is locked" in second.log(), 20)
    assert second.process.poll() is None, "it keeps trying"
    second.process.kill()
    second.process.wait()
    service.give(service.job("m1"))
    wait(lambda: bridge.sent())


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_waited_out(im, tmp_path, service):  # 42
    """Nothing is confirmed or sent while it cannot be written, and everything when it can."""
    folder = tmp_path / "push"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with Process(im, folder, im_push_coalesce=0) as bridge:
            greeted(service)
            service.give(service.job("before"))
            ended(service, 1)
            ballast = folder / "ballast"
            with open(ballast, "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(bytes(4096))
                except OSError:
                    pass
            service.give(*(service.job(f"m{n}", conv=f"{n}") for n in range(500)))
            wait(lambda: not stats(service)["outbox_writable"])
            assert service.stored == 1 and len(bridge.sent()) == 1 and "is full" in bridge.log()
            ballast.unlink()
            service.wait(lambda: service.stored == 2, 20)
            assert ended(service, 501, 30)["accepted"] == 501
            bridge.stop()
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def test_killed_at_every_step_each_job_ends_once(im, tmp_path):  # 41
    """kill -9, at the places between durable things and at any moment, again and again: one final state for each job, none lost, and
    what the provider got twice is marked as that which may have come twice, and has the same ids."""
    seed = int(os.environ.get("IM_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    kills = int(os.environ.get("IM_PUSH_KILLS", "25"))
    bridge = Process(im, tmp_path / "push", im_push_coalesce=200)
    answers = ["accepted"] * 12 + ["accepted after=5"] * 4 + ["retry", "unknown", "unsent", "too_large", "content", "never"]

    def ticket(job, ask):
        what = rng.random()
        if what < 0.04:
            return {"verdict": pb.VERDICT_CANCEL, "reason": "read"}
        if what < 0.06:
            return None
        return service.send(job, ask, rng.choice(answers) if rng.random() < 0.5 else "accepted")

    with Service(im, "scripted", ticket) as service:
        given, killed = 0, collections.Counter()
        while sum(killed.values()) < kills:
            point = rng.choice(POINTS + ("any",))
            bridge.start(None if point == "any" else f"{point}:{rng.randrange(1, 12 if 'commit' in point else 40)}")
            until = time.monotonic() + (rng.random() * 0.3 if point == "any" else 3)
            while bridge.process.poll() is None and time.monotonic() < until:
                if len(service.frames) < 20:
                    service.give(*(service.job(f"m{given + n}", user=f"u{rng.randrange(30)}", conv=f"c{rng.randrange(5)}", seq=given + n,
                                               mention=rng.random() < 0.1) for n in range(10)))
                    given += 10
                time.sleep(0.01)
            if bridge.process.poll() is None:
                bridge.process.kill()
            bridge.process.wait()
            killed[point] += 1
        service.ticket = service.send
        bridge.start()
        service.wait(lambda: not service.frames, 60)
        wait(lambda: stats(service)["open"] == 0, 120)
        bridge.stop()
    try:
        check_ends(bridge, given)
    except AssertionError:
        print(f"IM_SEED={seed} given={given} killed={dict(killed)}")
        raise
    print(f"seed {seed}: {given} jobs, killed {dict(killed)}, sent {len(bridge.sent())}")


def check_ends(bridge, given):
    rows = {r["key"]: r for r in bridge.rows()}
    assert set(rows) == {f"m{n}" for n in range(given)}, "lost"
    assert not {k: r["state"] for k, r in rows.items() if r["state"] not in FINAL or not r["done_ms"]}, "not ended"
    sent = collections.defaultdict(list)
    for s in bridge.sent():
        sent[s[0]].append(s)
    for key, r in rows.items():
        times = sent.get(key, [])
        assert len({(s[3], s[9]) for s in times}) <= 1, (key, times)
        if FINAL[r["state"]] == "accepted":
            assert times, f"{key} accepted and never sent"
        if len({s[4] for s in times}) < len(times) and not r["flags"] & 2:  # the same attempt more than once
            assert r["flags"] & 1, (key, r, times)
        if FINAL[r["state"]] == "coalesced":
            assert r["into_row"] in {x["row"] for x in rows.values()}, (key, r)
