"""What several test folders start with; a conftest.py imports what it wants."""
import pytest
from instance import Instance


@pytest.fixture(scope="module")
def im(request):
    """A running instance with users alice, bob, carol, dave and the group friends (not dave)."""
    conf = getattr(request.module, "CONF", ())
    with Instance(conf=conf, options=getattr(request.module, "OPTIONS", ())) as instance:
        instance.users = instance.add_users(["alice", "bob", "carol", "dave"])
        instance.imctl("group", "create", "friends", "--owner", "alice")
        instance.imctl("group", "add", "friends", "bob", "carol")
        yield instance
