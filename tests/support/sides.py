"""The same broker twice: with the plugin and all its services, and bare. One broker.conf; the bare one lacks our lines only.

Each has a hub beside it, a bare broker of another house: the side bridges to it, and it bridges to the side.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

from instance import MOSQUITTO, Instance
from ports import free_ports

USERS = {"tele": "secret-t", "reader": "secret-r", "hub": "secret-h"}
ACL = """topic readwrite open/#
topic read $SYS/#

user tele
topic readwrite tele/#
topic write drop/tele/#
topic readwrite $share/#
topic readwrite open/#

user reader
topic read tele/#
topic deny tele/secret/#
topic readwrite reader/#

user hub
topic readwrite bridge/#

pattern readwrite own/%u/#
pattern readwrite client/%c/#
"""
SETTINGS = """allow_anonymous true
password_file {dir}/passwd
acl_file {dir}/acl
sys_interval 1

connection to-hub
address 127.0.0.1:{hub}
topic out/# out 1 bridge/ from-side/
topic in/# in 1 bridge/ to-side/
start_type automatic
restart_timeout 1 1
cleansession false
"""
HUB = """listener {hub} 127.0.0.1
allow_anonymous true
log_dest file {dir}/hub.log

connection to-side
address 127.0.0.1:{port}
remote_username hub
remote_password {password}
topic pull/# in 1 pulled/ bridge/
topic push/# out 1 pushed/ bridge/
restart_timeout 1 1
"""


def write_users(folder):
    path = folder / "passwd"
    path.touch(0o600)
    for name, password in USERS.items():
        subprocess.run(["mosquitto_passwd", "-b", str(path), name, password], check=True, capture_output=True)
    (folder / "acl").write_text(ACL)
    (folder / "acl").chmod(0o600)


def settings(folder, hub):
    return SETTINGS.format(dir=folder, hub=hub).splitlines()


class Hub:
    def __init__(self, folder, port, side_port):
        self.port, self.users, self.process = port, {}, None
        self.conf = folder / "hub.conf"
        self.conf.write_text(HUB.format(dir=folder, hub=port, port=side_port, password=USERS["hub"]))

    def start(self):
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)


class Plugged:
    """With the plugin: a whole instance with users and a group of its own."""
    name = "with the plugin"

    def __init__(self):
        self.instance = Instance()
        self.dir, self.port, self.ws_port = self.instance.dir, self.instance.port, self.instance.ws_port
        self.users = dict(USERS)
        self.hub = Hub(self.dir, free_ports(1)[0], self.port)
        write_users(self.dir)
        self.instance.conf = settings(self.dir, self.hub.port)

    def start(self):
        self.instance.start()
        if not self.hub.process:
            self.hub.start()
            self.instance.add_users(["alice", "bob"])

    def broker_pid(self):
        return self.instance.pids()["mosquitto"]

    def restart(self):
        assert self.instance.stop() == 0
        self.instance.start()

    def remove(self):
        self.hub.stop()
        self.instance.remove()

    def logs(self):
        return self.instance.logs()


class Bare:
    name = "bare"

    def __init__(self, plugged):
        self.plugged = plugged
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="im-bare-"))
        self.dir.chmod(0o755)
        self.port, self.ws_port, hub = free_ports(3)
        self.users, self.process = dict(USERS), None
        self.hub = Hub(self.dir, hub, self.port)
        write_users(self.dir)

    def _conf(self):
        text = (self.plugged.dir / "broker.conf").read_text()
        lines = [x for x in text.splitlines() if not re.match(r"plugin(_opt_im_\w+)? ", x)]
        text = "\n".join(lines).replace(str(self.plugged.dir), str(self.dir)).replace(f":{self.plugged.hub.port}", f":{self.hub.port}")
        (self.dir / "conf.d").mkdir(exist_ok=True)
        (self.dir / "conf.d/listeners.conf").write_text(f"listener {self.port}\n\nlistener {self.ws_port}\nprotocol websockets\n")
        (self.dir / "broker.conf").write_text(text + "\n")

    def start(self):
        self._conf()
        log = open(self.dir / "bare.log", "a")
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.dir / "broker.conf")], stdout=log, stderr=log)
        log.close()
        if not self.hub.process:
            self.hub.start()

    def broker_pid(self):
        return self.process.pid

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def remove(self):
        self.hub.stop()
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        return (self.dir / "bare.log").read_text()[-4000:]


class Sides:
    def __init__(self):
        self.plugged = Plugged()
        self.bare = Bare(self.plugged)

    def __iter__(self):
        return iter((self.plugged, self.bare))

    def __enter__(self):
        for side in self:
            side.start()
        return self

    def __exit__(self, *exc):
        for side in (self.bare, self.plugged):
            side.remove()

    def reload(self):
        for side in self:
            os.kill(side.broker_pid(), signal.SIGHUP)
