"""A short run of tests/fuzz/packets.py, of the same seed each time; with sanitizers it counts most."""
import pathlib
import sys

import pytest

from instance import Instance, SANITIZED

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fuzz"))
import packets  # noqa: E402


@pytest.mark.parametrize("seed", [1])
def test_bent_packets_hurt_nobody_else(seed):
    with Instance() as instance:
        packets.prepare(instance)
        packets.run(instance, 20 if SANITIZED else 5, seed)
