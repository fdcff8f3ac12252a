"""Drives a bridge's driver through tests/push/drive.c."""
import json
import os
import pathlib
import queue
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("IM_BUILD", ROOT / "build"))
TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
# Everything as fast as a test wants it; what a test is about it sets itself.
FAST = {"connect_ms": 3000, "request_ms": 3000, "backoff_least_ms": 50, "backoff_most_ms": 400, "connect_each_ms": 50, "drain_ms": 1000}

AGAIN = ("unsent", "unreachable", "unknown", "auth", "retry", "rate")


def uuid(i):
    return f"11111111-0000-4000-8000-{i:012x}"


class Drive:
    def __init__(self, folder, provider="apns", **times):
        self.dir, self.provider = pathlib.Path(folder), provider
        self.state = self.dir / "state"
        self.state.mkdir(exist_ok=True, mode=0o700)
        self.log_path = self.dir / "drive.log"
        self.log_file = open(self.log_path, "ab")
        self.process = subprocess.Popen([str(BUILD / "bin/push_drive"), provider], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log_file, text=True)
        self.events = queue.Queue()
        self.results = {}
        self.row = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.op("times", **{**FAST, **times})

    def _read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put({"event": "ended"})

    def op(self, op, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()

    def next(self, event, timeout=10):
        """The next event of that name; results on the way are kept."""
        until = time.monotonic() + timeout
        while True:
            try:
                e = self.events.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event} in {timeout} s; log: {self.log()[-2000:]}") from None
            assert e["event"] not in ("ended", "stray"), (e, self.log()[-3000:])
            if e["event"] == "result":
                assert e["row"] not in self.results, f"told twice: {e}"
                self.results[e["row"]] = e
            if e["event"] == event:
                return e

    def start(self, op="start"):
        self.op(op, dir=str(self.dir), state_dir=str(self.state))
        until = time.monotonic() + 10
        while True:
            e = self.events.get(timeout=max(0.01, until - time.monotonic()))
            if e["event"] == "result":
                self.results[e["row"]] = e
            elif e["event"] in ("started", "reloaded", "refused"):
                return e

    def app(self, name="chat", **keys):
        """Writes an app's file; a value of None leaves the key out."""
        lines = [f"{k} {v}" for k, v in keys.items() if v is not None]
        path = self.dir / f"{self.provider}.{name}.conf"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)

    def send(self, **fields):
        self.row += 1
        self.op("send", row=self.row, **{"app": "chat", "token": TOKEN, "title": "Alice", "body": "hello", **fields})
        return self.row

    def result(self, row, timeout=10):
        until = time.monotonic() + timeout
        while row not in self.results:
            self.next("result", max(0.01, until - time.monotonic()))
        return self.results[row]

    def ask(self, timeout=10, **fields):
        return self.result(self.send(**fields), timeout)

    def sends(self, n, timeout=20, **fields):
        rows = [self.send(**fields) for _ in range(n)]
        return [self.result(r, timeout) for r in rows]

    def deliver(self, n, timeout=30, first=0, **fields):
        """n notifications as the core would: again what was not accepted and may be, under the same id. Row by row the classes met."""
        ids = {self.send(uuid=uuid(first + i), **fields): i for i in range(n)}
        met = {i: [] for i in range(n)}
        end = time.monotonic() + timeout
        while ids:
            for row in [r for r in ids if r in self.results]:
                i = ids.pop(row)
                met[i].append(self.results[row]["class"])
                if met[i][-1] in AGAIN:
                    while self.room(fields.get("app", "chat")) == 0:
                        assert time.monotonic() < end, ("no room in time", met, self.log()[-2000:])
                        time.sleep(0.01)
                    ids[self.send(uuid=uuid(first + i), **fields)] = i
            if ids and not any(r in self.results for r in ids):
                self.next("result", max(0.01, end - time.monotonic()))
        return met

    def room(self, app="chat", env=""):
        self.op("room", app=app, env=env)
        return self.next("room")["n"]

    def metrics(self):
        self.op("metrics")
        return self.next("metrics")

    def gauge(self, name):
        """The sum over its labels."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metrics()["text"].splitlines() if line.split("{")[0] == name)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """Orderly, so that a sanitizer has its say."""
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            code = self.process.wait(20)
        finally:
            self.process.kill()
            self.log_file.close()
        assert code == 0, (code, self.log()[-4000:])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log_file.close()


def until(condition, timeout=10):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
