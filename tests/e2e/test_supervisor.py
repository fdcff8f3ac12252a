"""The supervisor with stand-ins for its parts: order, restart, reload, stop, locks, giving up."""
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("IM_BUILD", Path(__file__).resolve().parents[2] / "build"))
DEADLINE = 15

# Writes what happens to it to {dir}/events, and is ready at once - or never, if {dir}/NAME.broken or NAME.misconfigured exists.
PART = """#!/usr/bin/python3
import os, signal, socket, sys, time
name = os.path.basename(sys.argv[0])
here = os.environ["TEST_DIR"]
def event(what):
    with open(here + "/events", "a") as f:
        f.write(name + " " + what + "\\n")
def on_term(*_):
    event("term")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGHUP, lambda *_: event("hup"))
if os.path.exists(here + "/" + name + ".broken"):
    print("the stand-in is broken", flush=True)
    sys.exit(3)
if os.path.exists(here + "/" + name + ".misconfigured"):
    event("refused")
    sys.exit(78)
event("start")
time.sleep(0.05)
event("ready")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1\\n", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""

CONF = """set_tcp_nodelay true
max_queued_messages 1000000
allow_duplicate_messages true
listener 0 {dir}/run/bus.sock
plugin /nowhere/mosquitto_im.so
plugin_opt_im_dir {dir}
"""


def wait_for(what):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.01)
    pytest.fail("not in time")


class Instance:
    def __init__(self, root):
        self.bin, self.dir = root / "bin", root / "d"
        self.bin.mkdir()
        self.dir.mkdir()
        shutil.copy(BUILD / "bin" / "im-supervisor", self.bin)
        for name in ("mosquitto", "im-seqgen", "im-offline", "im-fcm-bridge", "im-vendor-bridge"):
            (self.bin / name).write_text(PART)
            (self.bin / name).chmod(0o755)
        self.conf = root / "broker.conf"
        self.conf.write_text(CONF.format(dir=self.dir))
        self.ready = root / "ready"
        self.env = dict(os.environ, TEST_DIR=str(self.dir), PATH=f"{self.bin}:{os.environ['PATH']}")
        self.running = []

    def start(self):
        p = subprocess.Popen(
            [self.bin / "im-supervisor", "--config", self.conf, "--ready-file", self.ready, "--backoff-max", "200"],
            env=self.env, stderr=subprocess.PIPE, text=True)
        self.running.append(p)
        return p

    def up(self):
        p = self.start()
        wait_for(self.ready.exists)
        return p

    def events(self):
        return (self.dir / "events").read_text().splitlines()

    def pids(self):
        lines = (self.dir / "run" / "pids").read_text().split("\n")[:-1]
        return {name: int(pid) for name, pid in (line.split(" ") for line in lines)}

    def finish(self):
        for p in self.running:
            if p.poll() is None:
                p.terminate()
                p.wait(DEADLINE)


@pytest.fixture
def instance(tmp_path):
    i = Instance(tmp_path)
    yield i
    i.finish()


def test_parts_start_in_order_and_stop_in_reverse(instance):
    p = instance.up()
    assert instance.events() == [f"{n} {w}" for n in ("mosquitto", "im-seqgen", "im-offline") for w in ("start", "ready")]
    assert list(instance.pids()) == ["mosquitto", "im-seqgen", "im-offline"]
    p.send_signal(signal.SIGINT)
    assert p.wait(DEADLINE) == 0
    assert instance.events()[-3:] == ["im-offline term", "im-seqgen term", "mosquitto term"]
    assert instance.pids() == {}
    assert not instance.ready.exists()


def test_a_killed_part_comes_back_and_the_list_tells_its_new_pid(instance):
    instance.up()
    before = instance.pids()
    os.kill(before["im-seqgen"], signal.SIGKILL)
    after = wait_for(lambda: instance.pids().get("im-seqgen") not in (None, before["im-seqgen"]) and instance.pids())
    assert after["mosquitto"] == before["mosquitto"] and after["im-offline"] == before["im-offline"]


def test_all_killed_at_once_come_back(instance):
    instance.up()
    before = instance.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(instance.pids()) == 3 and not set(instance.pids().values()) & set(before.values()))


def test_hup_reaches_every_part(instance):
    p = instance.up()
    p.send_signal(signal.SIGHUP)
    wait_for(lambda: {"mosquitto hup", "im-seqgen hup", "im-offline hup"} <= set(instance.events()))


def test_a_second_supervisor_is_refused(instance):
    instance.up()
    q = instance.start()
    assert q.wait(DEADLINE) == 1
    assert "another supervisor runs there" in q.stderr.read()
    assert len(instance.pids()) == 3


def test_a_killed_supervisor_takes_its_parts_along_and_the_next_one_starts(instance):
    p = instance.up()
    before = instance.pids()
    p.kill()
    p.wait(DEADLINE)
    instance.ready.unlink()
    instance.up()
    for pid in before.values():
        wait_for(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    assert not set(instance.pids().values()) & set(before.values())


def test_a_part_that_never_gets_ready_ends_the_start_with_its_log(instance):
    (instance.dir / "im-seqgen.broken").touch()
    p = instance.start()
    assert p.wait(DEADLINE) == 1
    said = p.stderr.read()
    assert "evt=giveup part=im-seqgen" in said and "the stand-in is broken" in said
    assert "im-offline start" not in instance.events()
    assert instance.events()[-1] == "mosquitto term"


def test_a_wrong_configuration_starts_nothing(instance):
    instance.conf.write_text(instance.conf.read_text() + "plugin_opt_im_nod 1\nper_listener_settings true\n")
    p = instance.start()
    assert p.wait(DEADLINE) == 2
    said = p.stderr.read()
    assert f"{instance.conf}:7: unknown setting plugin_opt_im_nod: did you mean plugin_opt_im_node?" in said
    assert f"{instance.conf}:8: leave per_listener_settings out" in said
    assert not (instance.dir / "events").exists()


def test_bridges_of_im_push_run_behind_the_others(instance):
    instance.conf.write_text(instance.conf.read_text() + "plugin_opt_im_push fcm, honor\n")
    instance.up()
    wait_for(lambda: {"im-push-fcm", "im-push-honor"} <= set(instance.pids()))
    of_honor = Path(f"/proc/{instance.pids()['im-push-honor']}/cmdline")
    wait_for(lambda: b"im-vendor-bridge\0honor\0--config" in of_honor.read_bytes())  # empty for a moment while it is started


@pytest.mark.parametrize("how", ["broken", "misconfigured"])
def test_a_bridge_that_cannot_start_holds_up_nobody(instance, how):
    """Broken it is tried again and again; misconfigured it rests until somebody says that it is mended."""
    instance.conf.write_text(instance.conf.read_text() + "plugin_opt_im_push fcm,honor\n")
    trouble = instance.dir / f"im-fcm-bridge.{how}"
    trouble.touch()
    p = instance.up()
    wait_for(lambda: "im-push-honor" in instance.pids())
    if how == "misconfigured":
        time.sleep(0.5)  # more than the longest wait between two starts
        assert instance.events().count("im-fcm-bridge refused") == 1
    trouble.unlink()
    p.send_signal(signal.SIGHUP)
    wait_for(lambda: "im-fcm-bridge ready" in instance.events())
    assert p.poll() is None
