"""The others: pairs that chat at a steady rate in a process of their own, and how long their messages take."""
import json
import subprocess
import threading
import time

from instance import BUILD

PAIRS = 10
RATE = 200  # messages/s of all pairs


def add(im, count, prefix="other"):
    """Users with tokens, and the file of credentials that the load generators read."""
    names = [f"{prefix}{i}" for i in range(count)]
    tokens = im.add_users(names)
    path = im.dir / f"credentials-{prefix}"
    path.write_text("".join(f"{n} {tokens[n]}\n" for n in names))
    path.chmod(0o600)
    return path


def latency(im, credentials, seconds, rate=RATE, pairs=PAIRS, first=0):
    """{"p50", "p99", "max"} in ms, from publish to delivery; everything that was sent has arrived."""
    p = subprocess.run([str(BUILD / "bin/im-bench"), "rate", "--im", "--port", str(im.port), "--credentials", str(credentials), "--pairs", str(pairs),
                        "--first", str(first), "--rate", str(rate), "--seconds", str(seconds)], capture_output=True, text=True, timeout=seconds + 120)
    result = json.loads(p.stdout.splitlines()[-1])
    assert result.get("sent") and result["sent"] == result["received"], (result, p.stderr[-500:])
    return {k: round(result["latency_us"][k] / 1000, 2) for k in ("p50", "p99", "max")}


class Memory:
    """Resident memory of all parts, looked at five times a second. KiB."""

    def __init__(self, im):
        self.im, self.before, self.most, self.over = im, im.rss_kib(), {}, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(0.2):
            try:
                for name, kib in self.im.rss_kib().items():
                    self.most[name] = max(self.most.get(name, 0), kib)
            except (OSError, ValueError):
                pass

    def stop(self):
        """{part: (before, most, now)} in MiB."""
        self.over.set()
        self.thread.join()
        now = self.im.rss_kib()
        return {n: tuple(round(x.get(n, 0) / 1024, 1) for x in (self.before, self.most, now)) for n in now}


def wait_until(what, seconds, step=0.1):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(step)
