"""Mosquitto's own test/broker: every test starts brokers with settings of its own, at ../../src/mosquitto.

There stands a program of ours (stand_in) that starts the installed broker with the same settings, and on the plugin's side with
the plugin behind them. Those settings break promises of ours, hence im_broker_settings warn; there are no services, as no test
opens a listener for them, but a roster, so that the plugin knows its users from others.
"""
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from attempts import attempts
from instance import BUILD, MOSQUITTO, Instance
from ports import free_ports

LIMIT = 90  # seconds of one test
DYNSEC = "mosquitto_dynamic_security.so"
STAND_IN = """#!/usr/bin/python3
import os, shutil, sys, tempfile
args = sys.argv[1:]
text = "\\nuser root\\n" if os.getuid() == 0 else "\\n"
home = tempfile.mkdtemp(dir={homes!r})
if {plugin!r}:
    shutil.copy({roster!r}, home)
    text += "plugin {plugin}\\nplugin_opt_im_dir " + home + "\\nplugin_opt_im_broker_settings warn\\nplugin_opt_im_segment_bytes 8m\\n"
if "-c" in args:
    at = args.index("-c") + 1
    text = open(args[at]).read() + text
else:
    args += ["-c", ""]
    at = len(args) - 1
args[at] = home + "/" + (os.path.basename(args[at]) or "mosquitto.conf")
open(args[at], "w").write(text)
os.execv({mosquitto!r}, [{mosquitto!r}] + args)
"""


def roster(work):
    """A copy of the plugin's own file, of an instance with a user."""
    with Instance() as i:
        i.add_users(["somebody"])
        shutil.copy(i.dir / "roster", work / "roster")
    return work / "roster"


def side(tree, work, name, plugin):
    """A copy of the tree for one side."""
    place = work / name
    shutil.copytree(tree, place)
    homes = work / f"{name}-homes"
    homes.mkdir()
    (place / "src").mkdir()
    stand_in = place / "src/mosquitto"
    stand_in.write_text(STAND_IN.format(homes=str(homes), plugin=str(plugin), roster=str(work / "roster"), mosquitto=MOSQUITTO))
    stand_in.chmod(0o755)
    (place / "plugins/dynamic-security").mkdir(parents=True)
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"):
        if os.path.exists(f"{folder}/{DYNSEC}"):
            (place / "plugins/dynamic-security" / DYNSEC).symlink_to(f"{folder}/{DYNSEC}")
            break
    # The plugins that group 09 loads; a client that needs more than we have is left out.
    subprocess.run(["make", "-k", "-s", "-C", str(place / "test/broker/c"), "CC=cc", "WITH_TLS=yes"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return place / "test/broker"


def certificates(tree):
    """Those in the repository have expired, or will: the suite's own script makes new ones."""
    ssl = tree / "test/ssl"
    subprocess.run(["bash", "./gen.sh"], cwd=ssl, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def names(tree, only):
    """(file, number of ports) as the suite's own test.py lists them, and those that only its Makefile has."""
    found = {}
    for ports, name in re.findall(r"\((\d), '\./([^']+)'", (tree / "test/broker/test.py").read_text()):
        found[name] = int(ports)
    for name in re.findall(r"^\t\./(\d\d-\S+\.py)", (tree / "test/broker/Makefile").read_text(), re.M):
        found.setdefault(name, 3)
    return [(name, ports) for name, ports in sorted(found.items()) if only in name]


def run_one(place, side_name, logs, test):
    name, ports = test
    command = lambda: [sys.executable, f"./{name}", *map(str, free_ports(ports))]  # noqa: E731
    verdict = attempts(command, logs / f"{side_name}-{name}.log", LIMIT, cwd=place)
    print(f"{side_name}: {name}: {verdict}", file=sys.stderr, flush=True)
    return name, verdict


def run(tree, work, only, jobs):
    """({name: verdict} of the bare broker, the same with the plugin)."""
    logs = work / "logs"
    logs.mkdir()
    roster(work)
    certificates(tree)
    plugin = BUILD / "bin/mosquitto_im.so"
    sides = [(side(tree, work, "bare", ""), "bare"), (side(tree, work, "plugin", plugin), "plugin")]
    with ThreadPoolExecutor(jobs) as pool:
        results = [[pool.submit(run_one, place, name, logs, test) for test in names(tree, only)] for place, name in sides]
        return tuple(dict(f.result() for f in r) for r in results)
