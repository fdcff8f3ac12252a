import json
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/slow")]
os.environ.setdefault("IM_SKIP_INSTALL", "1")

from scale import FULL, SMALL  # noqa: E402, the path comes first


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
