"""One instance per test module, with a few users; clients are stock ones only."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from fixtures import im  # noqa: E402,F401


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures time, so scripts/test runs nothing beside it")
