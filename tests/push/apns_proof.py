#!/usr/bin/python3
"""tests/push/apns_proof.py [--jobs N] [--kills N] [--seed S] [--long-freezes N] [--keep]

The proof of the APNs bridge: jobs through the real im-apns-bridge while the stand-in (apns_trouble.py) is killed, frozen, throttles, refuses our
key, calls all tokens dead and answers every error of Apple's table, and the bridge is killed (kill -9) at random moments. Then

  - every job is in the outbox and has ended in exactly one final state, once (a trigger in the file counts);
  - what the stand-in accepted twice is marked maybe_dup and has the same apns-id and collapse-id; the answer before was swallowed by something that
    is found at this very connection and moment; and the bridge knows of each that it sent it once more after not hearing, or found it INFLIGHT;
  - accepted is what the stand-in accepted; what it accepted is accepted, unless that was in doubt;
  - no token is dropped or suspected without Apple's word for it, and none dropped that was not dead, but for the few that the guard believes before it
    sees a pattern.

Exit status 0: all of it holds. The last line is the report in numbers, JSON.
"""
import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import certs  # noqa: E402
from apns_trouble import is_dead  # noqa: E402
from bridge import pb  # noqa: E402
from bridge_process import FINAL, Process  # noqa: E402
from instance import Instance  # noqa: E402
from ports import free_ports  # noqa: E402
from service import Service  # noqa: E402

TROUBLES = ("kill", "freeze", "throttle", "config", "mass", "goaway", "limits")
WORDS = {"Unregistered", "ExpiredToken", "BadDeviceToken", "DeviceTokenNotForTopic"}  # what Apple says of a token
SOON = int(5e9)  # ns: an answer that was not swallowed by then has been heard
LONG = 10  # s: a freeze in which requests time out
APPS = ("chat", "news", "odd")  # the last has a key of its own, which is what is wrong with it
BELIEVED = 4  # lib/push/guard.h: PUSH_GUARD_IN_ROW - 1
MASS = 4 * BELIEVED * len(APPS)  # verdicts that a wave of dead tokens goes on for
OPEN = 6000  # jobs under way
ENDED_ONCE = """CREATE TABLE IF NOT EXISTS proof(row INTEGER, state INTEGER);
CREATE TRIGGER IF NOT EXISTS proof_ends AFTER UPDATE OF state ON job WHEN new.state >= 4 OR old.state >= 4
BEGIN INSERT INTO proof VALUES(new.row, new.state); END;"""


Answer = collections.namedtuple("Answer", "ns conn stream uuid collapse status word spoiled")


def token_of(device):
    return hashlib.sha256(device.encode()).hexdigest()


class Log:
    """What the stand-in wrote down, by job and connection."""

    def __init__(self, path):
        self.answers, self.cut, self.reset, self.broken = collections.defaultdict(list), collections.defaultdict(list), set(), []
        for line in path.read_text().splitlines():
            what, ns, rest = line.split(" ", 2)
            if what == "X":
                self.broken.append(rest)
                continue
            conn, *rest = rest.split(" ")
            if what == "C":
                self.cut[conn].append(int(ns))
            elif what == "R":
                self.reset.add((conn, rest[0]))
            else:
                stream, job, uuid, collapse, status, word, spoiled = rest
                self.answers[job].append(Answer(int(ns), conn, stream, uuid, collapse, int(status), word, spoiled))


class Standin:
    """apns_trouble.py under our hand."""

    def __init__(self, folder, seed):
        self.folder, self.seed, self.starts = folder, seed, 0
        self.killed, self.frozen = {}, []  # pid -> ns; (began, ended) of the long ones
        self.port = free_ports(1)[0]
        self.mode_now = "calm"
        self.lock = threading.Lock()
        self.start()

    def start(self):
        self.starts += 1
        with open(self.folder / "standin.err", "ab") as err:
            self.process = subprocess.Popen([sys.executable, HERE / "apns_trouble.py", str(self.port), f"{self.seed}.{self.starts}", self.folder],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True)
        assert self.process.stdout.readline() == "listening\n", (self.folder / "standin.err").read_text()[-2000:]
        self.mode(self.mode_now)

    def mode(self, text):
        self.mode_now = text
        with self.lock:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()

    def kill(self, down_s):
        self.process.kill()
        self.process.wait()
        self.killed[str(self.process.pid)] = time.monotonic_ns()
        time.sleep(down_s)
        self.start()

    def freeze(self, seconds):
        began = time.monotonic_ns()
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)
        if seconds >= LONG:
            self.frozen.append((began, time.monotonic_ns()))

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0, (self.folder / "standin.err").read_text()[-2000:]


class Proof:
    def __init__(self, jobs, kills, seed, long_freezes=0, life_s=None):
        self.jobs, self.kills, self.seed, self.long_freezes = jobs, kills, seed, long_freezes
        self.life_s = life_s or (90 if jobs >= 20000 else 18)
        self.rng = random.Random(seed)
        self.tickets = random.Random(f"{seed} tickets")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="im-apns-proof-"))
        self.given, self.open, self.killed, self.hups, self.greeted = 0, 0, 0, 0, 0
        self.done, self.ending, self.tail, self.began = False, False, max(50, jobs // 20), time.monotonic()
        self.memory, self.kills_ns = [], []
        self.troubles = collections.Counter()
        self.failed = []

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", file=sys.stderr, flush=True)

    # ---- the parts

    def write_files(self):
        ca = certs.Authority()
        (self.folder / "ca.pem").write_bytes(ca.pem())
        certs.write_secret(self.folder / "server.pem", ca.server())
        certs.write_secret(self.folder / "key.p8", certs.key_pem(certs.p256()))

    def app_file(self, app):
        kid = "ODD123DEFG" if app == "odd" else "ABC123DEFG"
        keys = {"key_file": self.folder / "key.p8", "key_id": kid, "team_id": "TEAM123456", "topic": f"com.example.{app}", "ca_file": self.folder / "ca.pem",
                "endpoint": f"https://localhost:{self.standin.port}"}
        return "".join(f"{k} {v}\n" for k, v in keys.items())

    def ticket(self, job, ask):
        what = self.tickets.random()
        if what < 0.02:
            return {"verdict": pb.VERDICT_CANCEL, "reason": "read"}
        if what < 0.03:
            return {"verdict": pb.VERDICT_HOLD, "reason": "quiet_hours", "hold_until_ms": int(time.time() * 1000) + self.tickets.randrange(200, 2000)}
        if what < 0.032:
            return None
        token = pb.Token(app=job.app, env="production", token=token_of(job.device), registered_ms=1000)
        return {"verdict": pb.VERDICT_SEND, "token": token, "title": "Alice", "body": "hello", "msgid": job.key, "seq": job.seq, "conv": job.conv}

    def next_job(self):
        n = self.given
        user = f"u{self.rng.randrange(max(300, self.jobs // 30))}"
        conv = f"busy{self.rng.randrange(3)}" if self.rng.random() < 0.1 else f"c{n}"
        self.given += 1
        now = int(time.time() * 1000)
        return self.service.job(f"j{n}", user=user, app=self.rng.choices(APPS, (8, 8, 1))[0], conv=conv, seq=n + 1, mention=self.rng.random() < 0.05,
                                deadline_ms=now + int(self.life_s * 1000))

    # ---- the threads

    def run_thread(self, fn):
        def run():
            try:
                fn()
            except Exception as e:  # noqa: BLE001: whatever it is, the proof has failed
                self.failed.append(f"{fn.__name__}: {e!r}")
                self.done = True
        t = threading.Thread(target=run, daemon=True)
        t.start()
        return t

    def may_give(self):
        """As fast as they go, but no faster than the kills come, and each trouble once. The last come after the last death, among GOAWAYs: what is
        forgotten then no start finds again."""
        share = min((self.killed + 1) / max(1, self.kills), sum(self.troubles.values()) / len(TROUBLES), 1)
        most = self.jobs if self.ending else (self.jobs - self.tail) * share
        return self.given - self.at_open + self.open < OPEN and self.given < most and len(self.service.frames) < 30

    def give(self):
        while not self.done and self.given < self.jobs:
            if self.may_give():
                self.service.give(*(self.next_job() for _ in range(min(50, self.jobs - self.given))))
            else:
                time.sleep(0.01)

    def stats(self, timeout=0.7):
        before = self.given
        try:
            s = json.loads(self.service.ask('{"query":"stats"}', timeout))
        except AssertionError:
            return None  # it is down
        self.open, self.at_open = s["open"] + len(self.service.frames) * 50, before
        return s

    def operate(self):
        """Somebody who looks at the gauges and mends the files: SIGHUP."""
        told = time.monotonic()
        while not self.done:
            s = self.stats()
            trouble = s and (any(c["breaker"] == "config" for c in s["channels"]) or s["suspects"] > 20)
            if trouble and self.standin.mode_now not in ("config", "mass"):
                self.hup()
            if s and time.monotonic() - told > 10:
                told = time.monotonic()
                self.say(f"given {self.given}, open {s['open']}, killed {self.killed}, {self.standin.mode_now}, suspects {s['suspects']}, {self.rss()} KiB")
            time.sleep(0.3)

    def hup(self):
        if self.service.greeted > self.greeted and self.bridge.process.poll() is None:  # its handlers are there
            self.hups += 1
            self.bridge.process.send_signal(signal.SIGHUP)

    def rss(self):
        try:
            lines = open(f"/proc/{self.bridge.process.pid}/status").read().splitlines()
        except OSError:
            return 0
        kib = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
        if kib:
            self.memory.append((self.given, kib))
        return kib

    def last(self, kind, unit):
        """As long as the trouble lasts: a second for those that close a breaker; dead tokens until enough was heard of them to judge the guard."""
        time.sleep(1 if kind in ("config", "mass") else unit)
        heard, until = len(self.service.verdicts), time.monotonic() + 5
        while kind == "mass" and len(self.service.verdicts) < heard + MASS and time.monotonic() < until and not self.done:
            time.sleep(0.05)

    def trouble(self):
        """One trouble after another, all of them in each round."""
        rng, unit = random.Random(f"{self.seed} trouble"), 3 if self.jobs >= 20000 else 0.5
        long_freezes = self.long_freezes
        while not self.done and not (self.killed == self.kills and self.given >= self.jobs - self.tail):
            for kind in rng.sample(TROUBLES, len(TROUBLES)):
                if self.done:
                    break
                self.troubles[kind] += 1
                if kind == "kill":
                    self.standin.kill(rng.random())
                elif kind == "freeze":
                    self.standin.freeze(16 if long_freezes > 0 else unit * rng.random())
                    long_freezes -= 1
                else:
                    self.standin.mode(kind)
                    self.last(kind, unit)
                self.standin.mode("calm")
                time.sleep(unit * (0.5 + rng.random()))
        self.standin.mode("goaway")
        self.ending, until = True, time.monotonic() + 20
        while not self.done and time.monotonic() < until and (self.given < self.jobs or self.service.frames):
            time.sleep(0.05)
        time.sleep(2.5)  # so that some are sent in it
        self.standin.mode("fine")

    def kill_bridge(self):
        self.greeted = self.service.greeted
        self.bridge.process.kill()
        self.bridge.process.wait()
        self.kills_ns.append(time.monotonic_ns())
        self.killed += 1
        self.bridge.start()

    def kill_again_and_again(self):
        for i in range(self.kills):
            until = time.monotonic() + 40
            moment = int((self.jobs - self.tail) * (i + self.rng.random()) / self.kills)
            while self.given < moment and not self.done and time.monotonic() < until:
                if self.bridge.process.poll() is not None:
                    raise AssertionError(f"the bridge ended by itself: {self.bridge.process.returncode}: {self.bridge.log()[-1000:]}")
                time.sleep(0.005)
            if self.done:
                return
            self.wait_a_moment(self.rng.choice([None, 0.02, 0.2, 0.6]))
            self.kill_bridge()

    def wait_a_moment(self, most_s):
        """None: until something was just confirmed, which is when it must be durable."""
        if most_s is not None:
            time.sleep(self.rng.random() * most_s)
            return
        with self.service.changed:
            before = self.service.stored
            self.service.changed.wait_for(lambda: self.service.stored > before, 1)

    # ---- all of it

    def prepare_outbox(self):
        """Lets the bridge make the file, and puts the trigger into it."""
        self.bridge.start()
        self.service.wait(lambda: self.service.greeted, 30)
        assert self.bridge.stop() == 0, self.bridge.log()
        db = sqlite3.connect(self.bridge.state / "outbox.db")
        db.executescript(ENDED_ONCE)
        db.close()
        self.greeted = self.service.greeted

    def drain(self):
        """Trouble is over: all ends by itself, or by its deadline."""
        until = time.monotonic() + self.life_s + 60
        while not self.failed:
            s = self.stats(5)
            if s and not s["open"] and not self.service.frames:
                return
            if s and (s["suspects"] or any(c["breaker"] == "config" for c in s["channels"])):
                self.hup()
            if time.monotonic() > until:
                self.failed.append(f"not drained: {s}, frames {len(self.service.frames)}")
                return
            self.rss()
            time.sleep(0.5)

    def run(self):
        self.write_files()
        self.standin = Standin(self.folder, self.seed)
        with Instance() as im:
            self.bridge = Process(im, self.folder / "push", "apns", {app: self.app_file(app) for app in APPS}, im_push_coalesce=300)
            with Service(im, "apns", self.ticket) as self.service:
                self.service.asks = collections.deque(maxlen=1)
                self.at_open = 0
                self.prepare_outbox()
                self.bridge.start()
                threads = [self.run_thread(fn) for fn in (self.give, self.operate, self.trouble)]
                self.run_thread(self.kill_again_and_again).join()
                threads[0].join()
                threads[2].join()
                self.done = True
                threads[1].join()
                self.say(f"all given, killed {self.killed}: draining")
                self.drain()
                self.verdicts = list(self.service.verdicts.values())
                if self.bridge.stop() != 0:
                    self.failed.append(f"exit status {self.bridge.process.returncode} after SIGTERM")
        self.standin.stop()
        return self.check()

    # ---- what came of it

    def swallowed(self, log, first):
        """What kept the bridge from hearing this answer, None: nothing."""
        def soon(ns):
            return first.ns <= ns <= first.ns + SOON
        if first.spoiled != "-":
            return first.spoiled
        if any(map(soon, log.cut.get(first.conn, []))):
            return "connection ended"
        if (first.conn, first.stream) in log.reset:
            return "given up"
        if soon(self.standin.killed.get(first.conn.split(".")[0], 0)):
            return "stand-in killed"
        if any(map(soon, self.kills_ns)):
            return "bridge killed"
        return "frozen" if any(began <= first.ns <= ended + SOON for began, ended in self.standin.frozen) else None

    def check(self):
        rows = self.bridge.rows()
        by_key = {r["key"]: r for r in rows}
        db = sqlite3.connect(self.bridge.state / "outbox.db")
        ends = collections.Counter(row for row, in db.execute("SELECT row FROM proof"))
        log = Log(self.folder / "standin.log")
        yes = {job: [a for a in list_ if a.status == 200] for job, list_ in log.answers.items()}
        wrong = collections.defaultdict(list, {"rule broken at the stand-in": log.broken})
        why = collections.Counter()  # what swallowed the answers
        for n in range(self.given):
            if f"j{n}" not in by_key:
                wrong["lost"].append(f"j{n}")
        for r in rows:
            key, state, got = r["key"], FINAL.get(r["state"]), yes.get(r["key"], [])
            if not state or not r["done_ms"]:
                wrong["not ended"].append(key)
            if ends[r["row"]] != 1:
                wrong["not ended once"].append((key, ends[r["row"]]))
            if len({(a.uuid, a.collapse) for a in log.answers.get(key, [])}) > 1:
                wrong["other ids"].append(key)
            if state == "accepted" and not got:
                wrong["accepted by nobody"].append(key)
            if got and (state != "accepted" or len(got) > 1) and not r["flags"] & 1:
                wrong["not marked maybe_dup"].append((key, state, len(got)))
            if len(got) - (state == "accepted") > r["recovered"] + r["attempts"]:
                wrong["repeated without knowing"].append((key, len(got), r["recovered"], r["attempts"]))
            causes = [self.swallowed(log, a) for a in got[:-1]]
            why.update(causes)
            if None in causes:
                wrong["repeated without doubt"].append((key, causes, got))
        dropped, suspected = self.judged(pb.TOKEN_STATE_INVALID), self.judged(pb.TOKEN_STATE_SUSPECT)
        told = {(r["user"], r["device"]) for r in rows if any(a.word in WORDS or a.status == 410 for a in log.answers.get(r["key"], []))}
        wrong["token judged without a word of it"] = sorted((dropped | suspected) - told)
        alive = [d for d in dropped if not is_dead(token_of(d[1]))]
        if len(alive) > BELIEVED * len(APPS) * self.troubles["mass"]:
            wrong["tokens lost"] = alive
        wrong = {k: v for k, v in wrong.items() if v}
        report = self.report(rows, log.answers, yes)
        report.update(swallowed_by=dict(why.most_common()), tokens_suspected=len(suspected), tokens_dropped=len(dropped), of_them_alive=len(alive),
                      wrong={what: [len(list_), *list_[:5]] for what, list_ in wrong.items()}, failed=self.failed,
                      verdict="BROKEN" if wrong or self.failed else "holds")
        return not wrong and not self.failed, report

    def judged(self, state):
        return {(v.user, v.device) for v in self.verdicts if v.state == state}

    def report(self, rows, answers, yes):
        kinds = collections.Counter(f"{a.status} {a.word}" + (f" ({a.spoiled})" if a.spoiled != "-" else "") for list_ in answers.values() for a in list_)
        quarter = max(1, len(self.memory) // 4)
        return {
            "seed": self.seed, "seconds": round(time.monotonic() - self.began), "jobs": self.given, "bridge_kills": self.killed, "hups": self.hups,
            "standin_starts": self.standin.starts, "troubles": dict(self.troubles),
            "states": dict(collections.Counter(FINAL.get(r["state"], "open") for r in rows)),
            "why": dict(collections.Counter(f"{FINAL.get(r['state'])} {r['reason'] or '-'}" for r in rows if r["state"] in (5, 8)).most_common(24)),
            "requests": sum(map(len, answers.values())), "answers": dict(kinds.most_common()),
            "accepted_twice_or_more": sum(len(list_) > 1 for list_ in yes.values()), "maybe_dup": sum(r["flags"] & 1 for r in rows),
            "recovered_most": max((r["recovered"] for r in rows), default=0), "attempts_most": max((r["attempts"] for r in rows), default=0),
            "rss_kib_by_quarter": [max(kib for _, kib in self.memory[i:i + quarter]) for i in range(0, len(self.memory), quarter)][:5],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", default=str(int.from_bytes(os.urandom(4), "big")))
    parser.add_argument("--long-freezes", type=int, default=3, help="of 16 s each, so that requests time out")
    parser.add_argument("--keep", action="store_true", help="keep the outbox and the logs")
    a = parser.parse_args()
    proof = Proof(a.jobs, a.kills, a.seed, a.long_freezes)
    proof.say(f"seed {a.seed}, in {proof.folder}")
    good, report = proof.run()
    if good and not a.keep:
        shutil.rmtree(proof.folder)
    print(json.dumps(report))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
