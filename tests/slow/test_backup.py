"""Backups of a large store, one after another, while the others send at a steady rate: what they feel of it."""
import itertools
import json
import re
import subprocess
import threading

import others
from instance import BUILD, Instance


def stored(im):
    return json.loads(im.imctl("status", "--json").stdout)["service"]["store"]["messages"]


def fill(im, messages):
    """As fast as pairs can, until so many are stored. Each round has users of its own: silent ones are owed what came last."""
    for i in itertools.count():
        if stored(im) >= messages:
            return
        credentials = others.add(im, 2 * others.PAIRS, f"fill{i}-")
        subprocess.run([str(BUILD / "bin/im-bench"), "pairs", "--im", "--port", str(im.port), "--credentials", str(credentials), "--pairs",
                        str(others.PAIRS), "--seconds", "10"], capture_output=True, check=True, timeout=120)


class Backups(threading.Thread):
    """One after another, at least one, until told to stop."""

    def __init__(self, im):
        super().__init__(daemon=True)
        self.im, self.over, self.file, self.made = im, threading.Event(), im.dir / "backup", []

    def run(self):
        while not self.made or not self.over.is_set():
            said = self.im.imctl("backup", "--force", str(self.file), timeout=600).stdout
            self.made.append([float(x) for x in re.search(r"(\d+) bytes, (\d+) messages, ([\d.]+) s", said).groups()])

    def stop(self):
        self.over.set()
        self.join(600)
        assert self.made and not self.is_alive()


def test_others_do_not_feel_a_backup(scale, figures):
    with Instance(conf=["plugin_opt_im_log warning"]) as im:
        fill(im, scale.stored)
        credentials = others.add(im, 4 * others.PAIRS)
        rate = 1000 if scale.full else others.RATE
        figures["latency_alone_ms"] = alone = others.latency(im, credentials, scale.seconds, rate)
        backups = Backups(im)
        backups.start()
        figures["latency_beside_ms"] = beside = others.latency(im, credentials, scale.seconds, rate, first=2 * others.PAIRS)
        backups.stop()
        size, messages, _ = backups.made[-1]
        figures.update(backup_mb=round(size / 1e6, 1), messages=int(messages), backup_s=[s for _, _, s in backups.made])
        assert messages >= scale.stored
        assert beside["p50"] < max(2 * alone["p50"], scale.p50_ms) and beside["p99"] < max(2 * alone["p99"], scale.p99_ms), figures
