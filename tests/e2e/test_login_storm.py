"""Thousands with passwords that nobody has hashed yet: they are let in one by one, and others chat on meanwhile.

IM_STORM=10000 IM_STORM_SECONDS=60 runs it at full size; the figures are printed (pytest -s).
"""
import asyncio
import json
import multiprocessing
import os
import random
import time

import pytest

from client import Client
from instance import SANITIZED
from raw import packet, text

pytestmark = pytest.mark.alone

CLIENTS = int(os.environ.get("IM_STORM", 1000))
SECONDS = int(os.environ.get("IM_STORM_SECONDS", 8))
RIGHT = 20  # users whose right password is cold; the others' are wrong, which costs the same
CONF = ("plugin_opt_im_login_wait 0",)  # all come from one address here; and slowed ones would cost nothing


class Storm:
    """Clients as libraries are: closed without an answer, they come again after 1 s, 2 s, 3 s."""

    def __init__(self, port, logins, seconds):
        self.port, self.logins, self.until = port, logins, time.monotonic() + seconds
        self.accepted, self.refused, self.closed = [], 0, 0

    async def attempt(self, user, client_id, password):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(packet(1, 0, text("MQTT"), bytes([4, 0xc2, 0, 60]), text(client_id), text(user), text(password)))
            answer = await reader.read(4)
        except OSError:
            answer = b""
        if answer[3:] == b"\0":
            self.accepted.append(writer)
            return True
        writer.close()
        return len(answer) == 4 and self.refuse()

    def refuse(self):
        self.refused += 1
        return True

    async def client(self, login):
        await asyncio.sleep(random.random())
        wait = 1
        while time.monotonic() < self.until and not await self.attempt(*login):
            self.closed += 1
            await asyncio.sleep(wait + random.random())
            wait = min(wait + 1, 3)

    async def run(self):
        await asyncio.gather(*(self.client(x) for x in self.logins))


def storm(port, logins, seconds, result):
    os.nice(19)  # these clients would be elsewhere
    s = Storm(port, logins, seconds)
    asyncio.run(s.run())
    result.put((len(s.accepted), s.refused, s.closed))


def test_cold_passwords_are_let_in_one_by_one_and_others_chat_on(im):
    names = [f"cold{i}" for i in range(RIGHT)]
    path = im.dir / "cold.csv"
    path.write_text("".join(f"{n},right-{n}\n" for n in names))
    im.imctl("user", "import", str(path), timeout=600)
    logins = [(names[i % RIGHT], f"{names[i % RIGHT]}:d{i}", f"right-{names[i]}" if i < RIGHT else f"wrong-{i}") for i in range(CLIENTS)]
    random.shuffle(logins)
    result, took = multiprocessing.Queue(), []
    with Client(im, "alice", "talks") as alice, Client(im, "bob", "listens") as bob:
        bob.subscribe("im/v1/in/#")
        crowd = multiprocessing.Process(target=storm, args=(im.port, logins, SECONDS, result))
        crowd.start()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            began, body = time.monotonic(), f"n{len(took)}"
            alice.publish("im/v1/to/u/bob", body)
            while bob.json("im/v1/in/msg/u/alice")["body"] != body:
                pass
            took.append((time.monotonic() - began) * 1000)
            time.sleep(0.005)
        accepted, refused, closed = result.get(timeout=60)
        crowd.join(20)
    auth = json.loads(im.imctl("status", "--json").stdout)["plugin"]["auth"]
    took.sort()
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{CLIENTS} clients, {SECONDS} s: hashed {auth['hashed']}, let in {accepted}, refused {refused}, closed to come again {closed}; "
          f"others' messages end to end: {len(took)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {took[-1]:.1f} ms")
    assert auth["hashed"] <= 8 + 4 * (SECONDS + 8)  # im_login_burst, then one per im_login_interval
    assert auth["hashed"] >= 8 + SECONDS
    assert refused + accepted >= 8 + SECONDS
    assert SANITIZED or p99 < 100
