"""One instance per file, with a pair of bystanders who chat through all of its tests (support/bystanders.py)."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from bystanders import PATIENCE, Bystanders  # noqa: E402
from client import Client  # noqa: E402
from fixtures import im  # noqa: E402,F401


def pytest_configure(config):
    config.addinivalue_line("markers", "patience(seconds): how long a bystander's message may take during this test")


@pytest.fixture(scope="module")
def bystanders(im):
    pair = Bystanders(im)
    yield pair
    pair.stop()


@pytest.fixture(autouse=True)
def others_feel_nothing(request):
    """After each test; files whose tests end the broker itself have none."""
    if not getattr(request.module, "BYSTANDERS", True):
        yield
        return
    pair = request.getfixturevalue("bystanders")
    yield
    mark = request.node.get_closest_marker("patience")
    pair.check(mark.args[0] if mark else PATIENCE)


@pytest.fixture
def witness(im):
    """Bob, whom the attacks are about, with an empty inbox."""
    with Client(im, "bob", "witness") as c:
        c.subscribe("im/v1/in/#")
        c.all("im/v1/in/", 0.2)
        yield c
