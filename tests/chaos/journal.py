"""The journal's records as the plugin wrote them, for rule C12: also those of segments that it has deleted meanwhile.

The format is that of plugin/journal_segment.c (one page of header) and lib/base/record.h.
"""
import os
import pathlib
import struct
import threading
import zlib

HEADER = 4096
MAX_RECORD = 4 << 20
CHUNK = 8 + MAX_RECORD
PREPARED = 1
KINDS = {1: "send", 2: "ack", 3: "request", 4: "refusal"}


class Segment:
    """An open segment file and how far it was read. Its inode serves again under another name with another header."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.head, self.at = None, HEADER

    def read(self):
        """Bodies of the records that came; what stood in it before it serves again comes first."""
        yield from self._rest()
        page = os.pread(self.fd, 64, 0)
        head = struct.unpack_from("<QQQQ", page, 8) if page[:8] == b"IMJRNL01" and len(page) == 64 else None
        if head != self.head:
            self.head, self.at = head, HEADER
            yield from self._rest()

    def _rest(self):
        if self.head is None or self.head[2] == PREPARED:
            return
        epoch, _index, _state, start = self.head
        data, base = os.pread(self.fd, CHUNK, self.at), self.at
        while data:
            at = self.at - base
            if at + 8 > len(data):
                return
            size, crc = struct.unpack_from("<II", data, at)
            body = data[at + 8:at + 8 + size]
            if not 0 < size <= MAX_RECORD:
                return
            if len(body) < size:
                if at == 0:
                    return
                data, base = os.pread(self.fd, CHUNK, self.at), self.at
                continue
            if zlib.crc32(body, zlib.crc32(struct.pack("<QQ", epoch, start + self.at - HEADER))) != crc:
                return
            yield body
            self.at += 8 + size


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
    """Follows every segment while it is written, for the plugin deletes it or lets it serve again."""

    def __init__(self, folder, log, canonical):
        super().__init__(daemon=True)
        self.folder, self.log, self.canonical = pathlib.Path(folder), log, canonical
        self.stopping = threading.Event()
        self.open = {}  # inode -> Segment

    def run(self):
        while not self.stopping.wait(0.1):
            self._look()

    def finish(self):
        """Once the plugin has ended."""
        self.stopping.set()
        self.join()
        self._look()
        self.log.line("info", "journal", whole=True)

    def _look(self):
        for path in self.folder.glob("*.seg"):
            try:
                if path.stat().st_ino not in self.open:
                    segment = Segment(path)
                    self.open[os.fstat(segment.fd).st_ino] = segment
            except FileNotFoundError:
                pass  # gone or renamed since it was listed; one that had records was seen before
        for inode, segment in list(self.open.items()):
            gone = os.fstat(segment.fd).st_nlink == 0
            for body in segment.read():
                self._tell(fields(body))
            if gone:
                os.close(segment.fd)
                del self.open[inode]

    def _tell(self, f):
        kind = KINDS.get(f.get(1, 0), "none")
        if kind != "send":
            return
        user, mid = f.get(3, b"").decode(), f.get(7, b"").decode()
        self.log.line("ok", "rec", kind=kind, id=mid or f.get(11, b"").split(b" ", 1)[0].decode(),
                      conv=self.canonical(user, f.get(8, b"").decode()))
