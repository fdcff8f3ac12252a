"""Two users who have nothing to do with a test and go on chatting while it runs: what others feel of an attack.

They talk in both directions, 1:1 and in a group of theirs, one message after the other. Each must arrive within a deadline,
and nothing else may: whatever reaches them and is not theirs is a leak.
"""
import json
import threading
import time
import uuid

from instance import SANITIZED
from raw import Raw

PATIENCE = 10 if SANITIZED else 3  # seconds a message may take; usually it is milliseconds, but tests share a machine
PAUSE = 0.005


class Bystanders:
    def __init__(self, im, names=("nina", "otto")):
        self.im, self.names = im, names
        im.users.update(im.add_users(names))
        im.imctl("group", "create", "couple", "--owner", names[0])
        im.imctl("group", "add", "couple", names[1])
        self.ends = [self._connect(name) for name in names]
        self.done, self.worst, self.trouble = 0, 0.0, []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._chat, daemon=True)
        self.thread.start()

    def _connect(self, name):
        end = Raw(self.im.port, name, f"{name}:home", self.im.users[name], v5=name == self.names[0])
        assert end.rc == 0 and end.subscribe("im/v1/in/#") == 1
        return end

    def stop(self):
        self.stopping.set()
        self.thread.join()
        for end in self.ends:
            end.close()

    def _chat(self):
        try:
            while not self.stopping.wait(PAUSE):
                for way, to in ((0, f"u/{self.names[1]}"), (1, "g/couple"), (1, f"u/{self.names[0]}"), (0, "g/couple")):
                    began = time.monotonic()
                    self._say(self.ends[way], to, self.ends[1 - way])
                    self.worst = max(self.worst, time.monotonic() - began)
                self.done += 1
        except (OSError, AssertionError, ValueError) as e:
            self.trouble.append(f"the bystanders' chat ended: {type(e).__name__} {e}")

    def _say(self, sender, to, receiver):
        body = uuid.uuid4().hex
        code = sender.publish(f"im/v1/to/{to}", body)
        assert code < 0x80, f"PUBACK {code:#x}"
        while True:
            topic, payload = receiver.message(4 * PATIENCE)
            m = self._mine(topic, payload)
            if m and m["body"] == body:
                return

    def _mine(self, topic, payload):
        """The message, if it is one. Whatever is none of their business is noted."""
        m = json.loads(payload)
        if topic.startswith(("im/v1/in/msg/", "im/v1/in/sent/")):
            if m["from"] not in (*self.names, None) or m["conv"] not in ("u/nina", "u/otto", "g/couple"):
                self.trouble.append(f"leaked to a bystander: {topic} {payload[:200]}")
            return m
        if not topic.startswith(("im/v1/in/ack", "im/v1/in/evt/", "im/v1/in/state/")):
            self.trouble.append(f"sent to a bystander: {topic} {payload[:200]}")
        return None

    def check(self, patience=PATIENCE):
        """Once more around, and then: nothing strange, nothing late since the last check."""
        target, deadline = self.done + 1, time.monotonic() + patience + 5
        while self.done < target and not self.trouble and time.monotonic() < deadline:
            time.sleep(0.005)
        worst, self.worst = self.worst, 0.0
        assert not self.trouble, self.trouble
        assert self.done >= target, "the bystanders are stuck"
        assert worst < patience, f"a bystander's message took {worst:.2f} s"
