"""A part stands still while a silent device goes that has not read: what it was sent comes again (docs/delivery.md, Who was still there).

Three instances side by side, since each needs a settle period of real time: the message service stopped, the broker, both. The broker alone is the case of a service whose
clock goes on: one that settles by it (reader_due without link_proven_ms) loses the message there, which no other case tells apart from its own standstill.
"""
import contextlib
import os
import signal
import socket
import time

import pytest

from client import Client
from instance import SANITIZED, Instance
from raw import Raw

KEEPALIVE = 16   # a settle period of 30 s, the least there is
STILL = 32       # longer than that; shorter than the broker's patience with the service (45 s)
SILENCE = 0.5    # for answers that are under way: the broker shall stand still with nothing to do
USERS = ("alice", "bob")
BODY = b"left behind"


def bob(im, tokens):
    device = Raw(im.port, "bob", "bob:watch", tokens["bob"], keepalive=KEEPALIVE)
    assert device.rc == 0
    device.subscribe("im/v1/in/#")
    return device


def sync_ended(device):
    while True:
        topic, payload = device.message()
        if topic == "im/v1/in/evt/sync" and b'"end"' in payload:
            return


def has_arrived(device, text):
    """In its kernel; it does not read."""
    deadline = time.monotonic() + 10
    while text not in device.buffer + device.socket.recv(1 << 16, socket.MSG_PEEK):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Case:
    def __init__(self, im, parts):
        self.im, self.parts = im, parts
        self.tokens = im.add_users(USERS)
        device = bob(im, self.tokens)
        sync_ended(device)
        with Client(im, "alice", "pc", password=self.tokens["alice"]) as alice:
            alice.publish("im/v1/to/u/bob/m1", BODY)
            has_arrived(device, BODY)
        self.handed = time.monotonic()
        time.sleep(SILENCE)
        pids = im.pids()
        self.stopped = [pids[p] for p in parts]
        for pid in self.stopped:
            os.kill(pid, signal.SIGSTOP)
        device.close()

    def wake(self):
        time.sleep(max(0, self.handed + STILL - time.monotonic()))
        for pid in self.stopped:
            os.kill(pid, signal.SIGCONT)

    def check(self):
        with bob(self.im, self.tokens) as device:
            seen = []
            with contextlib.suppress(TimeoutError):
                while not any(topic == "im/v1/in/msg/u/alice" for topic, _ in seen):
                    seen.append(device.message(5))
        assert any(BODY in payload for _, payload in seen), (self.parts, seen)


@pytest.mark.skipif(SANITIZED, reason="half a minute that is spent in the run without sanitizers")
def test_what_was_left_unread_comes_again():
    with contextlib.ExitStack() as stack:
        cases = [Case(stack.enter_context(Instance()), parts) for parts in (["im-offline"], ["mosquitto"], ["mosquitto", "im-offline"])]
        for case in cases:
            case.wake()
        for case in cases:
            case.check()
