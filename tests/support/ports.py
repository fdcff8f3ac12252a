"""Ports for the servers of a test.

A port that is merely free now may be somebody else's a moment later: a test's beside us, or the near end of any connection, since the
system takes those from 32768 upwards. So they come from below, and from a block that no other test process has while this one
lives: whose it is says a Unix socket without a file.
"""
import itertools
import random
import socket

FIRST, END, BLOCK = 10000, 32000, 200
_ours = None  # (the socket that says so, our ports in turn)


def _claim():
    blocks = list(range(FIRST, END, BLOCK))
    random.shuffle(blocks)
    for first in blocks:
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0im-test-ports-{first}")
            return mark, itertools.cycle(range(first, first + BLOCK))
        except OSError:
            mark.close()
    raise OSError("all blocks of ports are taken by other tests")


def _is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def free_ports(n):
    global _ours
    _ours = _ours or _claim()
    found = (p for p in itertools.islice(_ours[1], BLOCK) if _is_free(p))
    ports = list(itertools.islice(found, n))
    assert len(ports) == n, "no port left of ours"
    return ports
