"""Each program of the cookbook, built and started with the very commands of its README, chats with the demo's echo bot."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from instance import BUILD, ROOT, SANITIZED, Instance  # noqa: E402

COOKBOOK = ROOT / "clients/cookbook"
USER, PEER = "alice", "echo"
STEPS = ("welcome:", "send:", "acked:", "received:", "refused:", "repeat answered alike:", "away", "caught up:", "done")
LONGER = (*STEPS[:-1], "reconnected:", "received:", "done")  # of those whose library reconnects by itself
# What tells that a toolchain is there: a program, or a header with a slash in its path. Without it the test is skipped.
NEEDS = {
    "mosquitto-cli": ["mosquitto_rr"],
    "paho-python": ["/usr/lib/python3/dist-packages/paho"],
    "mqttjs": ["node", "npm"],
    "web": ["node", "npm", "/usr/bin/chromium"],
    "paho-c": ["cc", "/usr/include/MQTTClient.h"],
    "paho-cpp": ["c++", "/usr/include/mqtt/client.h"],
    "paho-go": ["go", "/usr/share/gocode/src/github.com/eclipse/paho.mqtt.golang"],
    "libmosquitto": ["cc", "/usr/include/mosquitto.h"],
    "tiny": ["cc"],
}


def recipes():
    """{folder: (build command or "", run command)} of the README's table."""
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (?:`([^|]+)`|-) \| `([^|]+)` \|$", (COOKBOOK / "README.md").read_text(), re.M)
    return {folder: (build, run) for folder, build, run in rows}


RECIPES = recipes()


@pytest.fixture(scope="module")
def demo():
    with Instance(demo=True) as instance:
        lines = (instance.dir / "demo-credentials").read_text().splitlines()
        instance.users = dict(line.split() for line in lines)
        yield instance


def test_every_program_is_in_the_readme_and_has_its_test():
    folders = {p.name for p in COOKBOOK.iterdir() if p.is_dir()}
    assert folders == set(RECIPES) == set(NEEDS)


def need(folder):
    for n in NEEDS[folder]:
        if not (pathlib.Path(n).exists() if n.startswith("/") else shutil.which(n)):
            pytest.skip(f"{n} is not installed ({'apt-get install chromium' if folder == 'web' else 'scripts/install-packages.sh test'})")


def build(folder):
    """Beside the build, so that the checkout stays clean and npm's packages are fetched once."""
    there = BUILD / "cookbook" / folder
    shutil.copytree(COOKBOOK / folder, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    command = RECIPES[folder][0]
    lock, done = there / "package-lock.json", there / "node_modules/.package-lock.json"
    if command.startswith("npm") and done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return there
    if command:
        p = subprocess.run(command, shell=True, cwd=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        assert p.returncode == 0, f"{folder}: {command}\n{p.stdout}"
    return there


def chat(instance, folder):
    """Runs the program, prints what it prints, returns the lines."""
    words = dict(HOST="127.0.0.1", PORT=str(instance.port), USER=USER, PEER=PEER, WS_PORT=str(instance.ws_port))
    command = [words.get(w, w) for w in RECIPES[folder][1].split()]
    p = subprocess.run(command, cwd=build(folder), env=dict(os.environ, IM_PASSWORD=instance.users[USER]), text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240 if SANITIZED else 120)
    print(f"$ {' '.join(command)}\n{p.stdout}")
    assert p.returncode == 0, p.stdout
    return p.stdout.splitlines()


def in_order(lines, steps):
    """Every step begins a line, in this order; says which one is missing."""
    rest = iter(lines)
    for step in steps:
        assert any(line.startswith(step) for line in rest), f"no '{step}' (in its place) in:\n" + "\n".join(lines)


@pytest.mark.parametrize("folder", [f for f in RECIPES if f not in ("mqttjs", "web", "tiny")])
def test_program_chats(demo, folder):
    need(folder)
    lines = chat(demo, folder)
    in_order(lines, LONGER if folder == "paho-python" else STEPS)
    text = {step: next(line for line in lines if line.startswith(step)) for step in STEPS}
    assert '"seq":' in text["acked:"].replace(" ", "")
    assert '"code":"unknown_user"' in text["refused:"].replace(" ", "")
    assert '"dup":true' in text["repeat answered alike:"].replace(" ", "")


def test_mqttjs_chats_four_ways(demo):
    need("mqttjs")
    lines = chat(demo, "mqttjs")
    for way in ("tcp-311", "tcp-5", "ws-311", "ws-5"):
        in_order([line[len(way) + 1:] for line in lines if line.startswith(way + " ")], LONGER)


def test_web_page_chats(demo):
    need("web")
    in_order(chat(demo, "web"), ("welcome:", "send:", "acked:", "received:", "refused:", "away", "acked:", "caught up:", "own, from", "done"))


def test_tiny_client_chats_with_qos_0_and_small_packets(demo):
    need("tiny")
    lines = chat(demo, "tiny")
    in_order(lines, ("connected", *STEPS[1:]))
    assert any(line.startswith("received: im/v1/raw/msg/u/echo/echo/") for line in lines)


def test_what_the_programs_repeated_is_stored_once(demo):
    """The last word of the store on all exchanges above: no id twice, and no answer of the bot twice."""
    rows = [m for m in demo.history(USER, f"u/{PEER}") if m["id"]]
    assert rows, "no program has chatted"
    assert len({(m["from"], m["id"]) for m in rows}) == len(rows)
    assert len([m for m in rows if m["from"] == USER]) == len([m for m in rows if m["from"] == PEER])
