"""The journal's records as the plugin wrote them, for rule C12: also those of segments that it has deleted meanwhile.

A hard link to each segment keeps what the plugin deletes until it was read here. The format is that of
plugin/journal_segment.c (one page of header) and lib/base/record.h.
"""
import os
import pathlib
import struct
import threading
import zlib

HEADER = 4096
MAX_RECORD = 4 << 20
KINDS = {1: "send", 2: "ack", 3: "request", 4: "refusal"}


def records(data):
    """Bodies of the valid prefix of a segment file."""
    if data[:8] != b"IMJRNL01":
        return
    epoch, _index, _state, start = struct.unpack_from("<QQQQ", data, 8)
    at = HEADER
    while at + 8 <= len(data):
        size, crc = struct.unpack_from("<II", data, at)
        body = data[at + 8:at + 8 + size]
        if not 0 < size <= MAX_RECORD or zlib.crc32(body, zlib.crc32(struct.pack("<QQ", epoch, start + at - HEADER))) != crc:
            return
        yield body
        at += 8 + size


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(body):
    """{number: last value} of a Protocol Buffers message."""
    out, at = {}, 0
    while at < len(body):
        tag, at = varint(body, at)
        if tag & 7 == 0:
            out[tag >> 3], at = varint(body, at)
        elif tag & 7 == 2:
            size, at = varint(body, at)
            out[tag >> 3], at = body[at:at + size], at + size
        else:
            raise ValueError(f"wire type {tag & 7}")
    return out


class Keeper(threading.Thread):
    """Reads every segment once: when the plugin has deleted it, or at the end."""

    def __init__(self, folder, keep, log, canonical):
        super().__init__(daemon=True)
        self.folder, self.keep, self.log, self.canonical = pathlib.Path(folder), pathlib.Path(keep), log, canonical
        self.stopping = threading.Event()
        self.keep.mkdir(exist_ok=True)
        self.done = set()

    def run(self):
        while not self.stopping.wait(0.1):
            self._look(False)

    def finish(self):
        """Once the plugin has ended."""
        self.stopping.set()
        self.join()
        self._look(True)
        self.log.line("info", "journal", whole=True)

    def _look(self, all_of_it):
        for path in self.folder.glob("*.seg"):
            if path.name not in self.done and not (self.keep / path.name).exists():
                try:
                    os.link(path, self.keep / path.name)
                except FileNotFoundError:
                    pass  # a prepared one that was not needed, or one that had nothing
        for path in self.keep.glob("*.seg"):
            if all_of_it or path.stat().st_nlink == 1:
                self._read(path)
                self.done.add(path.name)
                path.unlink()

    def _read(self, path):
        for body in records(path.read_bytes()):
            f = fields(body)
            kind = KINDS.get(f.get(1, 0), "none")
            if kind != "send":
                continue
            user, mid = f.get(3, b"").decode(), f.get(7, b"").decode()
            self.log.line("ok", "rec", kind=kind, id=mid or f.get(11, b"").split(b" ", 1)[0].decode(),
                          conv=self.canonical(user, f.get(8, b"").decode()))
