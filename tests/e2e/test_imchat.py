"""Two people with terminals: imchat driven through pipes, and once through a pseudo terminal."""
import os
import pty
import select
import subprocess
import threading
import time
import uuid

import pytest

from instance import BUILD, SANITIZED

IMCHAT = BUILD / "bin/imchat"
WAIT_S = 40 if SANITIZED else 20


class Person:
    def __init__(self, im, user, *args, device="imchat"):
        self.lines, self.at, self.news = [], 0, threading.Condition()
        self.process = subprocess.Popen([str(IMCHAT), "-u", user, "-d", device, "-p", str(im.port), *args],
                                        env=dict(os.environ, IM_PASSWORD=im.users[user]), text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.rstrip("\n"))
                self.news.notify_all()

    def types(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def sees(self, *words):
        """A line with all these words, behind the last one seen."""
        deadline = time.monotonic() + WAIT_S
        i = self.at
        with self.news:
            while True:
                while i < len(self.lines):
                    i += 1
                    if all(w in self.lines[i - 1] for w in words):
                        self.at = i
                        return self.lines[i - 1]
                if not self.news.wait(max(0, deadline - time.monotonic())):
                    raise AssertionError(f"never seen: {words} behind line {self.at} of\n" + "\n".join(self.lines))

    def leaves(self):
        self.process.stdin.close()
        rc = self.process.wait(WAIT_S)
        self.reader.join(WAIT_S)
        print("\n".join(self.lines) + "\n")
        return rc


def test_two_people_talk_and_see_how_far_their_words_got(im):
    alice, bob = Person(im, "alice"), Person(im, "bob")
    alice.sees("* connected as alice, device imchat")
    alice.sees("* up to date")
    bob.sees("* up to date")
    alice.types("/open u/bob", "hello bob")
    alice.sees("--- u/bob:")
    alice.sees("·  sent", '"hello bob"')
    alice.sees("✓  stored", '#1 "hello bob"')
    bob.sees("u/alice #1 alice: hello bob")
    alice.sees("✓✓ delivered", '"hello bob" to bob')
    bob.types("/open u/alice")
    bob.sees("--- u/alice: 1 message")
    alice.sees("✓✓ read", '"hello bob" by bob')
    bob.types("hi alice")
    alice.sees("u/bob #2 bob: hi alice")
    bob.sees("✓✓ read", '"hi alice" by alice')
    assert alice.leaves() == 0 and bob.leaves() == 0


def test_group_unread_and_older_messages(im):
    alice = Person(im, "alice", "-t", "g/friends")
    alice.sees("--- g/friends:")
    alice.types(*[f"line {i}" for i in range(30)])
    alice.sees("✓  stored", '"line 29"')
    assert alice.leaves() == 0
    carol = Person(im, "carol")
    carol.sees("* catching up")
    began = carol.at
    for i in range(30):
        carol.sees(f"alice: line {i}")
    carol.sees("* up to date")
    carol.at = began  # the list is an answer of its own, and may come in between
    carol.sees("g/friends", "30 unread")
    carol.types("/open g/friends")
    carol.sees("--- g/friends: 20 messages, older ones with /more")
    carol.sees("alice: line 29")
    carol.types("/more")
    carol.sees("alice: line 9")
    carol.types("/list")
    carol.sees("g/friends", "nothing new")
    assert carol.leaves() == 0


def test_refusals_are_sentences_and_nothing_else_is_affected(im):
    alice = Person(im, "alice", device="refused")
    alice.types("nobody listens", "/open u/no.such.user", "hello?")
    alice.sees("! to whom?")
    alice.sees('! not sent "hello?": there is no user no.such.user.', "(unknown_user)")
    alice.types("/open what", "/open u/bob", "still there")
    alice.sees("! /open u/NAME or /open g/GROUP")
    alice.sees("✓  stored", '"still there"')
    assert alice.leaves() == 0


def test_wrong_password_ends_with_a_sentence(im):
    p = subprocess.run([str(IMCHAT), "-u", "alice", "-p", str(im.port)], env=dict(os.environ, IM_PASSWORD="wrong"), text=True,
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_S)
    assert p.returncode == 1
    assert "the server refuses this login" in p.stdout


def test_broker_killed_while_talking_loses_and_repeats_nothing(im):
    run = uuid.uuid4().hex[:8]
    alice, bob = Person(im, "alice", "-t", "u/bob", device="kill"), Person(im, "bob", "-t", "u/alice", device="kill")
    alice.sees("--- u/bob")
    bob.sees("--- u/alice")
    texts = [f"{run} {i}" for i in range(40)]
    alice.types(*texts[:20])
    bob.sees(f"alice: {texts[3]}")
    im.kill("mosquitto")
    alice.sees("* connection lost; trying again in")
    alice.types(*texts[20:])
    alice.sees("* connected as alice")
    alice.sees("✓  stored", f'"{texts[39]}"')
    bob.sees(f"alice: {texts[39]}")
    assert alice.leaves() == 0 and bob.leaves() == 0
    seen = [line.split("alice: ")[1] for line in bob.lines if f"alice: {run}" in line]
    assert seen == texts
    stored = [m["body"] for m in im.history("bob", "u/alice") if m["body"].startswith(run)]
    assert stored == texts


def test_services_down_shows_sent_until_they_are_back(im):
    alice = Person(im, "alice", "-t", "u/dave", device="down")
    alice.sees("--- u/dave")
    im.kill("im-offline")
    alice.types("in the journal")
    alice.sees("·  sent", "in the journal")
    alice.sees("✓  stored", "in the journal")
    assert alice.leaves() == 0


def read_until(fd, *words):
    """What the terminal shows until all the words were there."""
    got, deadline = b"", time.monotonic() + WAIT_S
    while not all(w in got for w in words):
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{words} not in {got.decode(errors='replace')}"
        got += os.read(fd, 65536)
    return got


def test_terminal_asks_for_the_password_unseen_and_shows_a_prompt(im):
    env = {k: v for k, v in os.environ.items() if k != "IM_PASSWORD"}
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(str(IMCHAT), [str(IMCHAT), "-u", "alice", "-d", "pty", "-p", str(im.port), "-t", "u/bob"], env)
    try:
        read_until(fd, b"password: ")
        time.sleep(0.2)  # echo is switched off right behind the prompt
        os.write(fd, im.users["alice"].encode() + b"\n")
        text = read_until(fd, b"--- u/bob", b"u/bob> ")
        assert im.users["alice"].encode() not in text
        assert b"\033[36m* connected as alice" in text
        os.write(fd, b"typed by hand\n")
        read_until(fd, b'stored     u/bob #')
        os.write(fd, b"/quit\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(fd)


@pytest.fixture(autouse=True, scope="module")
def built():
    assert IMCHAT.exists(), "imchat is not built"
