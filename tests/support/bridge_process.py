"""A bridge as a process of its own, for tests that start it, kill it and look into its outbox."""
import signal
import sqlite3
import subprocess

from instance import BUILD

FINAL = {4: "accepted", 5: "dead", 6: "cancelled", 7: "coalesced", 8: "expired"}


class Process:
    """The bridge of `provider` beside an instance. Its settings are the instance's, with those of `settings` in place of them. apps: name -> its file."""

    def __init__(self, im, folder, provider, apps, **settings):
        self.im, self.dir, self.provider = im, folder, provider
        self.state = folder / provider
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, text in apps.items():
            path = folder / f"{provider}.{name}.conf"
            path.write_text(text)
            path.chmod(0o600)
        settings = {"im_push_dir": folder, **settings}
        lines = [x for x in (im.dir / "broker.conf").read_text().splitlines() if x.split(" ")[0].removeprefix("plugin_opt_") not in settings]
        (folder / "bridge.conf").write_text("\n".join([*lines, *(f"plugin_opt_{k} {v}" for k, v in settings.items())]) + "\n")
        self.log_path = folder.parent / "log"
        self.process, self.env, self.command, self.cwd = None, {}, [f"im-{provider}-bridge"], None

    prepare = None  # runs in the new process

    def start(self, killpoint=None):
        env = {**self.im.environment(), **self.env, **({"IM_KILLPOINT": killpoint} if killpoint else {})}
        with open(self.log_path, "a") as log:
            program, *more = self.command
            self.process = subprocess.Popen([BUILD / "bin" / program, *more, "--config", self.dir / "bridge.conf"], env=env, stderr=log, cwd=self.cwd,
                                            preexec_fn=self.prepare)
        return self

    def stop(self, sig=signal.SIGTERM, timeout=15):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert "Sanitizer" not in self.log() and "runtime error" not in self.log(), self.log()[-4000:]

    def log(self):
        return self.log_path.read_text()

    def rows(self):
        """The outbox's, once the process has let go of it."""
        db = sqlite3.connect(self.state / "outbox.db")
        db.row_factory = sqlite3.Row
        try:
            return [dict(r) for r in db.execute("SELECT * FROM job ORDER BY row")]
        finally:
            db.close()

    def metrics(self):
        return (self.im.dir / f"run/metrics/{self.provider}.prom").read_text()
