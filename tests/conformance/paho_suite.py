"""The Paho interoperability suite: each test a process of its own, one side beside the other.

Its clients are anonymous and its topics outside im/, so both sides have allow_anonymous true; for the rest the bare broker
has the settings of our broker.conf.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from attempts import attempts
from instance import MOSQUITTO, Instance
from ports import free_ports

LIMIT = 60  # seconds of one test; one of them never ends on mosquitto
FILES = ("client_test.py", "client_test5.py")  # 3.1.1 and 5
# The suite gives its own options to unittest, which does not know them.
ONE = """import runpy, sys, unittest
name, port, file = sys.argv[1:]
main = unittest.main
unittest.main = lambda: main(argv=[file, name])
sys.argv = [file, "-p", port]
runpy.run_path(file, run_name="__main__")
"""


class Bare:
    """The broker alone, with an instance's broker.conf but for the plugin's lines."""

    def __init__(self, instance):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="im-bare-"))
        self.port, = free_ports(1)
        text = "\n".join(x for x in (instance.dir / "broker.conf").read_text().splitlines() if not re.match(r"plugin(_opt_im_\w+)? |include_dir ", x))
        (self.dir / "broker.conf").write_text(text.replace(str(instance.dir), str(self.dir)) + f"\nlistener {self.port} 127.0.0.1\n")
        self.log = open(self.dir / "log", "w")
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.dir / "broker.conf")], stderr=self.log)

    def remove(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir)


def names(tree, only):
    found = []
    for file in FILES:
        for name in re.findall(r"^    def (test\w+)", (tree / "interoperability" / file).read_text(), re.M):
            if only in name:
                found.append((file, name))
    return found


def run_side(tree, side, port, tests, logs):
    out = {}
    for file, name in tests:
        label = f"{'v311' if file == FILES[0] else 'v5'}.{name}"
        command = [sys.executable, "-c", ONE, f"Test.{name}", str(port), file]
        out[label] = attempts(lambda: command, logs / f"{side}-{label}.log", LIMIT, cwd=tree / "interoperability")
        print(f"{side}: {label}: {out[label]}", file=sys.stderr, flush=True)
    return out


def run(tree, work, only, jobs):
    """({name: verdict} of the bare broker, the same with the plugin)."""
    del jobs  # all tests use the same two client ids
    logs = work / "logs"
    logs.mkdir()
    ours = Instance(conf=["allow_anonymous true"])
    ours.start()
    try:
        bare = Bare(ours)
        try:
            with ThreadPoolExecutor(2) as pool:
                return tuple(pool.map(lambda side: run_side(tree, *side, names(tree, only), logs), (("bare", bare.port), ("plugin", ours.port))))
        finally:
            bare.remove()
    finally:
        ours.remove()
