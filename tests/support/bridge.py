"""The bridge's end of $im/push/{provider}, for tests of the message service: keeps jobs, asks for tickets, says what a token is."""
import pathlib
import queue
import socket
import subprocess
import sys
import tempfile
import time

import paho.mqtt.client as mqtt

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load(name):
    """The Python side of a .proto file, made anew: it is small, and nothing generated lies about."""
    folder = tempfile.mkdtemp(prefix="im-proto-")
    subprocess.run(["protoc", f"--proto_path={PROTO}", f"--python_out={folder}", f"{name}.proto"], check=True)
    sys.path.insert(0, folder)
    return __import__(f"{name}_pb2")


pb = load("push")


class BusClient(mqtt.Client):
    """A stock client over the bus socket: services are let in nowhere else."""

    def __init__(self, path, **options):
        super().__init__(**options)
        self.path = str(path)

    def _create_socket_connection(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return sock


class Bridge:
    """confirms: whether frames are confirmed as they come."""

    def __init__(self, instance, provider, confirms=True):
        self.topic, self.confirms, self.start = f"$im/push/{provider}", confirms, f"{time.monotonic_ns():x}"
        self.jobs, self.tickets, self.heard, self.queries = queue.Queue(), queue.Queue(), queue.Queue(), queue.Queue()
        self.hellos, self.service, self.stored, self.asked = queue.Queue(), None, 0, 0
        self.answers = {}  # query -> JSON
        self.provider = provider
        self.mqtt = BusClient(instance.dir / "run/bus.sock", client_id=f"$im-push-{provider}")
        self.mqtt.username_pw_set("$im", (instance.dir / "run/bus.secret").read_text().strip())
        self.mqtt.on_connect = lambda c, u, flags, rc: c.subscribe(self.topic, 1)
        self.mqtt.on_subscribe = lambda c, u, mid, granted: self.hello()
        self.mqtt.on_message = lambda c, u, m: self.take(pb.Down.FromString(m.payload))
        self.mqtt.connect("bus")
        self.mqtt.loop_start()

    def __enter__(self):
        self.hellos.get(timeout=10)
        return self

    def __exit__(self, *exc):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def say(self, **parts):
        parts.setdefault("of", self.service or "")
        parts.setdefault("stored", self.stored)
        self.mqtt.publish(self.topic + "/up", pb.Up(**parts).SerializeToString(), 1)

    def hello(self, to=""):
        self.say(hello=pb.Hello(protocol=1, provider=self.provider, version="test", start=self.start, to=to))

    def take(self, down):
        if down.HasField("hello"):
            if down.hello.start != self.service:
                self.service, self.stored = down.hello.start, 0
            if not down.hello.to:
                self.hello(to=down.hello.start)
            self.hellos.put(down.hello)
        for job in down.jobs:
            self.jobs.put(job)
        if down.frame:
            self.last = down.frame
            if self.confirms:
                self.confirm()
        for ticket in down.tickets:
            self.tickets.put(ticket)
        if down.heard:
            self.heard.put(down.heard)
        for q in down.queries:
            self.queries.put(q)
            self.say(answers=[pb.Answer(id=q.id, json=self.answers.get("json", "{}"))])

    def confirm(self):
        self.stored = self.last
        self.say()

    def job(self, timeout=10):
        return self.jobs.get(timeout=timeout)

    def no_job(self, seconds=1.0):
        try:
            raise AssertionError(f"a job came: {self.jobs.get(timeout=seconds)}")
        except queue.Empty:
            pass

    def ticket(self, job, timeout=10):
        self.asked += 1
        self.say(asks=[pb.Ask(id=self.asked, job=job)])
        ticket = self.tickets.get(timeout=timeout)
        assert ticket.id == self.asked
        return ticket
