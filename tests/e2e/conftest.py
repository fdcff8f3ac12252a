"""One instance per test module, with a few users; clients are stock ones only."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from instance import Instance  # noqa: E402


@pytest.fixture(scope="module")
def im(request):
    """A running instance with users alice, bob, carol, dave and the group friends (not dave)."""
    conf = getattr(request.module, "CONF", ())
    with Instance(conf=conf) as instance:
        instance.users = instance.add_users(["alice", "bob", "carol", "dave"])
        instance.imctl("group", "create", "friends", "--owner", "alice")
        instance.imctl("group", "add", "friends", "bob", "carol")
        yield instance
