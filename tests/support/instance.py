"""A private instance for a test: scripts/run on a folder and ports of its own, stopped and removed afterwards.

With IM_BUILD naming a sanitizer build (and IM_SANITIZED=1, or "thread" for ThreadSanitizer) the broker is started with
the sanitizers' libraries preloaded, as the stock mosquitto lacks them, and every report makes the process end, which the
tests see. With "valgrind" the broker runs under it, and IM_BUILD has the services so (scripts/analyze).
"""
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time

from ports import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("IM_BUILD", ROOT / "build")).resolve()
SANITIZER = os.environ.get("IM_SANITIZED", "")
SANITIZED = SANITIZER != ""  # all of them are slow
PRELOAD = {"1": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
MOSQUITTO = os.environ.get("IM_MOSQUITTO") or shutil.which("mosquitto") or "/usr/sbin/mosquitto"  # IM_MOSQUITTO: try another broker


class Failed(Exception):
    pass


class Instance:
    def __init__(self, conf=(), demo=False, keep_dir=None, options=(), env=None):
        self.dir = pathlib.Path(keep_dir or tempfile.mkdtemp(prefix="im-test-"))
        self.port, self.ws_port, self.http_port = free_ports(3)
        self.demo, self.options = demo, list(options)
        self.conf = list(conf)
        self.extra = dict(env or {})  # of the broker and the services, not of imctl
        self.process = None
        self.lines = []

    # ---- life

    def environment(self):
        env = dict(os.environ, IM_BUILD=str(BUILD), IM_SKIP_INSTALL="1")
        if SANITIZED or "IM_MOSQUITTO" in os.environ:
            env["PATH"] = str(self._mosquitto()) + ":" + env["PATH"]
        if SANITIZED:
            report = str(self.dir / "report")
            env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0:exitcode=99:log_path=" + report)
            env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
            env["TSAN_OPTIONS"] = env.get("TSAN_OPTIONS", "") + " exitcode=99 log_path=" + report
            env["IM_VALGRIND"] = "valgrind " + env.get("IM_VALGRIND_OPTIONS", "") + " --log-file=" + report + ".%p"
        return env

    def _mosquitto(self):
        """A folder for PATH with the broker that the supervisor shall start."""
        folder = self.dir / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        wrapper = folder / "mosquitto"
        if wrapper.exists():
            return folder
        preload = ""
        if SANITIZER in PRELOAD:
            libs = [subprocess.check_output(["gcc", f"-print-file-name={x}"], text=True).strip() for x in PRELOAD[SANITIZER]]
            preload = f'LD_PRELOAD="{":".join(libs)}:$LD_PRELOAD" '
        under = "$IM_VALGRIND " if SANITIZER == "valgrind" else ""
        wrapper.write_text(f'#!/bin/sh\n{preload}exec {under}{MOSQUITTO} "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        return folder

    def start(self, timeout=60):
        command = [str(ROOT / "scripts/run"), "--dir", str(self.dir), "--port", str(self.port),
                   "--ws-port", str(self.ws_port), "--http-port", str(self.http_port), *self.options]
        if self.demo:
            command.append("--demo")
        self._write_conf()
        self.process = subprocess.Popen(command, env={**self.environment(), **self.extra}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, start_new_session=True)
        ready = threading.Event()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        deadline = time.monotonic() + timeout
        while not ready.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failed("the instance does not get ready:\n" + "\n".join(self.lines[-40:]) + self.logs())
        return self

    def _read(self, ready):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready"):
                ready.set()

    def _write_conf(self):
        """The instance's own broker.conf as scripts/run makes it at the first start, and the settings of this test behind it."""
        path = self.dir / "broker.conf"
        if not path.exists():
            text = (ROOT / "broker.conf").read_text()
            for name, value in (("@DIR@", str(self.dir)), ("@PLUGIN@", str(BUILD / "bin/mosquitto_im.so")),
                                ("@USER@", "user root" if os.getuid() == 0 else "#user mosquitto")):
                text = text.replace(name, value)
            path.write_text(text + "\n".join(self.conf) + "\n")
            path.chmod(0o600)  # as scripts/run has it

    def stop(self, timeout=20):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode if self.process else None

    def remove(self):
        self.stop()
        reports = self.sanitizer_reports()
        shutil.rmtree(self.dir, ignore_errors=True)
        if reports:
            raise Failed("sanitizer reports:\n" + reports)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.logs())
        self.remove()

    # ---- what can be seen of it

    def sanitizer_reports(self):
        texts = (p.read_text(errors="replace")[:4000] for p in self.dir.glob("report.*"))
        return "\n".join(t for t in texts if t)  # valgrind's are there and empty when it found nothing

    def logs(self, tail=40):
        text = ""
        for p in sorted((self.dir / "log").glob("*")) if (self.dir / "log").exists() else []:
            text += f"\n--- {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-tail:])
        return text

    def pids(self):
        """{"mosquitto": 123, ...} as the supervisor keeps it."""
        pairs = (line.split() for line in (self.dir / "run/pids").read_text().splitlines())
        return {p[0]: int(p[1]) for p in pairs if len(p) == 2}

    def kill(self, name, sig=signal.SIGKILL):
        try:
            os.kill(self.pids()[name], sig)
            return True
        except (KeyError, ProcessLookupError, FileNotFoundError):
            return False

    def rss_kib(self):
        """{"mosquitto": KiB, ...} resident."""
        out = {}
        for name, pid in self.pids().items():
            try:
                for line in open(f"/proc/{pid}/status"):
                    if line.startswith("VmRSS:"):
                        out[name] = int(line.split()[1])
            except FileNotFoundError:
                pass
        return out

    # ---- administration

    def imctl(self, *args, stdin=None, check=True, timeout=60):
        p = subprocess.run([str(ROOT / "scripts/imctl"), "--dir", str(self.dir), *args], env=self.environment(), input=stdin,
                           capture_output=True, text=True, timeout=timeout)
        if check and p.returncode != 0:
            raise Failed(f"imctl {' '.join(args)}: exit {p.returncode}\n{p.stdout}{p.stderr}")
        return p

    def add_users(self, names):
        """Adds users with random passwords and returns {name: token}: tokens are what fleets log in with."""
        lines = "".join(f"{n},{os.urandom(9).hex()}\n" for n in names)
        path = self.dir / "import.csv"
        path.write_text(lines)
        self.imctl("user", "import", str(path), timeout=600)
        path.unlink()
        return self.tokens(names)

    def tokens(self, names):
        out = {}
        names = list(names)
        for i in range(0, len(names), 500):
            for line in self.imctl("token", "issue", *names[i:i + 500], timeout=300).stdout.splitlines():
                name, token = line.split()
                out[name] = token
        return out

    def history(self, user, conv):
        text = self.imctl("history", user, conv, "--json", timeout=300).stdout
        return [json.loads(line) for line in text.splitlines() if line.strip()]
