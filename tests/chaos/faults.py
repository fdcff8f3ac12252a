"""Faults inside the processes of an instance: a disk that fails, kill points, power loss (inject.h, undo.h).

    faults = Faults(folder)                          # folder: of the instance
    Instance(keep_dir=folder, env=faults.environment())
    rule = faults.fail("im-offline", "/log/", SYNC, errno.EIO, count=1)
    rule.hits, rule.clear()
    faults.kill_at("journal.after_write", 3); faults.kill_hits()
    faults.stop_all(instance); faults.power_loss(rng)   # then start the instance again

What a process sees changes at once, while it runs. Nothing here knows what the instance does.
"""
import collections
import mmap
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

OPEN, WRITE, SYNC, RENAME, UNLINK, SEND = 1, 2, 4, 8, 16, 32
KILL = -1               # as an error: the process ends right there
FOR_EVER = -1
RULES = 16
PAGE = 4096

RULE = struct.Struct("=iIiiiiiI32s128s")
KILL_TABLE = struct.Struct("=56siI")
RECORD = struct.Struct("=IIQQQ")
HEAD = struct.Struct("=QQ")
UNDO_WRITE, UNDO_TRUNCATE, UNDO_SYNCED, UNDO_SYNC_FAILED = 1, 2, 3, 4


def shared_file(path, size):
    with open(path, "wb") as f:
        f.write(bytes(size))
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), size)


class Rule:
    def __init__(self, table, place):
        self.table, self.at = table, place * RULE.size

    def set(self, program, path, calls, error, short_to, delay_ms, after, count):
        RULE.pack_into(self.table, self.at, 0, calls, after, count, error, short_to, delay_ms, 0, program.encode(), path.encode())
        struct.pack_into("=i", self.table, self.at, 1)  # last: from here on it acts

    @property
    def hits(self):
        return RULE.unpack_from(self.table, self.at)[7]

    def clear(self):
        struct.pack_into("=i", self.table, self.at, 0)


class Faults:
    def __init__(self, folder, build, sanitized=False):
        self.root = pathlib.Path(folder).resolve()
        self.undo = pathlib.Path(str(self.root) + ".undo")
        libraries = [str(pathlib.Path(build) / "bin/im_inject.so")]
        if sanitized:  # their runtimes must come first
            libraries[:0] = [subprocess.check_output(["gcc", f"-print-file-name={x}"], text=True).strip() for x in ("libasan.so", "libubsan.so")]
        self.preload = ":".join(libraries)
        self.control = pathlib.Path(str(self.root) + ".faults")
        self.control.mkdir(exist_ok=True)
        self.rules = shared_file(self.control / "rules", RULES * RULE.size)
        self.kills = shared_file(self.control / "kill", KILL_TABLE.size)
        self.next = 0

    def environment(self):
        return {"LD_PRELOAD": self.preload, "IM_INJECT": str(self.control / "rules"), "IM_INJECT_ROOT": str(self.root),
                "IM_KILLPOINT": str(self.control / "kill")}

    def remove(self):
        shutil.rmtree(self.undo, ignore_errors=True)
        shutil.rmtree(self.control, ignore_errors=True)

    # ---- a disk that fails

    def fail(self, program, path, calls, error=0, *, short_to=0, delay_ms=0, after=0, count=FOR_EVER):
        """program: mosquitto, im-offline, im-seqgen, or "" for all; path: a part of it; with a $ behind it: its end."""
        rule = Rule(self.rules, self.next % RULES)
        rule.clear()
        self.next += 1
        rule.set(program, path, calls, error, short_to, delay_ms, after, count)
        return rule

    def heal(self):
        for i in range(RULES):
            Rule(self.rules, i).clear()

    # ---- kill points

    def kill_at(self, name, passes=1):
        """The process that comes by for the n-th time ends there; once."""
        hits = self.kill_hits()
        KILL_TABLE.pack_into(self.kills, 0, b"", 0, hits)
        KILL_TABLE.pack_into(self.kills, 0, name.encode(), 0, hits)
        struct.pack_into("=i", self.kills, 56, passes)

    def kill_hits(self):
        return KILL_TABLE.unpack_from(self.kills, 0)[2]

    def kill_off(self):
        struct.pack_into("=i", self.kills, 56, 0)

    # ---- power loss

    @staticmethod
    def stop_all(instance):
        """The whole machine at once, as nearly as signals can: the supervisor first, lest it starts anything again."""
        pids = instance.pids()
        try:
            os.kill(instance.process.pid, signal.SIGSTOP)
        except ProcessLookupError:
            pass
        when = time.monotonic()
        for pid in [*pids.values(), instance.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        instance.process.wait()
        for pid in pids.values():  # not our children: gone once their entry is
            while pathlib.Path(f"/proc/{pid}/stat").exists() and pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
                time.sleep(0.001)
        return when

    def power_loss(self, rng):
        """Puts back what was on the disk. Any page and any entry that no sync covers may be there or not: rng says."""
        lost = collections.Counter()
        entries_back(self.root, self.undo, rng, lost)
        by_inode = {p.stat().st_ino: p for p in self.root.rglob("*") if p.is_file()}
        for record in self.undo.glob("*.undo"):
            path = by_inode.get(int(record.stem))
            if path:
                bytes_back(path, record.read_bytes(), rng, lost)
        for p in self.root.rglob("*-shm"):
            p.unlink()
        shutil.rmtree(self.undo)
        return lost


def entries_back(root, undo, rng, lost):
    """A folder's changes reach the disk in their order: some first ones may be there, the rest is undone from the last back."""
    folders = {p.stat().st_ino: p for p in [root, *root.rglob("*")] if p.is_dir()}
    for record in undo.glob("*.dir"):
        folder = folders.get(int(record.stem))
        lines = record.read_text().splitlines()
        for line in reversed(lines[rng.randint(0, len(lines)):] if folder else []):
            entry_back(folder, undo, line[0], line[2:].split("\t"))
            lost["entries"] += 1


def entry_back(folder, undo, kind, names):
    path = folder / names[0]
    if kind == "C":
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    if kind == "R" and (folder / names[1]).exists():
        os.rename(folder / names[1], path)
        path = folder / names[1]
    kept = undo / names[-1]
    if names[-1] != "-" and kept.exists():
        os.rename(kept, path)


def read_records(data):
    """[(position in the record, kind, at, span, size, old bytes)], the position before which all is on the disk."""
    synced, _ = HEAD.unpack_from(data)
    at, out = HEAD.size, []
    while at + RECORD.size <= len(data):
        kind, have, place, span, size = RECORD.unpack_from(data, at)
        if kind == 0 or at + RECORD.size + have > len(data):
            break  # killed while it was written: the real call did not come any more
        if at >= synced or kind in (UNDO_SYNCED, UNDO_SYNC_FAILED):
            out.append((at, kind, place, span, size, data[at + RECORD.size:at + RECORD.size + have]))
        at += RECORD.size + have
    return out


def pages(at, span):
    return range(at // PAGE, (at + max(span, 1) - 1) // PAGE + 1)


def durable_pages(records):
    """page -> up to which record its content reached the disk; and up to which the length did.

    A sync writes the pages that are dirty when it begins, and whether it works or fails they are clean afterwards."""
    marks = sorted((r[2], r[1]) for r in records if r[1] in (UNDO_SYNCED, UNDO_SYNC_FAILED))
    writes = [r for r in records if r[1] in (UNDO_WRITE, UNDO_TRUNCATE)]
    durable, length, dirty, i = {}, 0, set(), 0
    for upto, kind in marks:
        while i < len(writes) and writes[i][0] < upto:
            dirty.update(pages(writes[i][2], writes[i][3]))
            i += 1
        if kind == UNDO_SYNCED:
            durable.update((p, upto) for p in dirty)
            length = upto
        dirty.clear()
    return writes, durable, length


def bytes_back(path, data, rng, lost):
    writes, durable, length = durable_pages(read_records(data))
    size = next((w[4] for w in writes if w[0] >= length), None)
    there = {}  # pages that reached the disk by themselves
    likely = rng.choice((0, 0, 0.5, 0.9))
    fd = os.open(path, os.O_RDWR)
    for position, _, at, span, old_size, old in reversed(writes):
        for p in pages(at, span):
            if durable.get(p, -1) > position or there.setdefault(p, rng.random() < likely):
                continue
            begin, end = max(at, p * PAGE), min(at + span, (p + 1) * PAGE)
            piece = old[begin - at:end - at]
            os.pwrite(fd, piece + bytes(max(0, end - begin - len(piece))), begin)
            lost["bytes"] += end - begin
    if size is not None:
        os.ftruncate(fd, size)
    os.close(fd)
