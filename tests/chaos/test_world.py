"""Which ends of processes count: those that nobody asked for, outside the time of a fault under which processes may end."""
import types

from world import World

EXIT = 'evt=exit part=im-offline pid=%d how="exit status 1" log=x: started again in 100 ms'


def test_what_fails_to_start_during_a_fault_is_excused():
    world = World.__new__(World)
    world.killed, world.excused = {5: "im-offline"}, set()
    world.instance = types.SimpleNamespace(lines=[EXIT % 5], pids=lambda: {"im-offline": 6})
    since = world.excuse()
    world.instance.lines += [EXIT % 6, EXIT % 7]  # 7 came and went
    world.instance.pids = lambda: {"im-offline": 8}
    world.excuse(since)
    assert world.crashes() == []
    world.instance.lines += [EXIT % 8, EXIT % 9]
    assert [pid for _, pid, _ in world.crashes()] == [9]
