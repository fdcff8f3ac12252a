import json
import os
import pathlib
import sys
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/slow")]
os.environ.setdefault("IM_SKIP_INSTALL", "1")


@dataclass(frozen=True)
class Scale:
    full: bool
    backlog: int      # messages to each receiver that is away
    messages: int     # ... to each that misbehaves while connected
    body: int         # bytes
    rate: int         # messages/s to all of them together
    seconds: int      # of each measurement of the others' latency
    stored: int       # messages in the store that is backed up
    clients: int      # of the storm with tokens
    cold: int         # of the storm with passwords
    cold_seconds: int
    served_s: int     # within which all are served
    p50_ms: float     # below this the others' latency is as good as any: the least that is compared with
    p99_ms: float


SMALL = Scale(False, backlog=4000, messages=1500, body=700, rate=4000, seconds=3, stored=20000, clients=1000, cold=60, cold_seconds=8, served_s=30, p50_ms=10, p99_ms=250)
FULL = Scale(True, backlog=100000, messages=20000, body=100, rate=6000, seconds=20, stored=1000000, clients=10000, cold=10000, cold_seconds=60, served_s=15, p50_ms=1, p99_ms=10)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="the sizes and times that are promised, for the record: a quarter of an hour")
    parser.addoption("--record", help="file for the figures, one JSON object per line")


@pytest.fixture(scope="session")
def scale(request):
    return FULL if request.config.getoption("--full") else SMALL


@pytest.fixture
def figures(request):
    """A dict that is printed (and written) at the end, whatever happened."""
    out = {"test": request.node.name}
    yield out
    print("\n" + "\n".join(f"  {k}: {v}" for k, v in out.items()))
    if request.config.getoption("--record"):
        with open(request.config.getoption("--record"), "a") as f:
            f.write(json.dumps(out) + "\n")
