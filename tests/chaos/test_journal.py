"""The journal is followed while it is written, and what stood in a segment is read before it serves again."""
import struct
import zlib

from journal import HEADER, Segment, fields


def head(epoch, index, state, start):
    return b"IMJRNL01" + struct.pack("<QQQQ", epoch, index, state, start) + bytes(24)


def record(epoch, offset, body):
    return struct.pack("<II", len(body), zlib.crc32(body, zlib.crc32(struct.pack("<QQ", epoch, offset)))) + body


def test_a_segment_is_followed_through_two_lives(tmp_path):
    path = tmp_path / "7-000000.seg"
    first, second, third = (record(7, offset, body) for offset, body in ((1000, b"one"), (1011, b"two"), (1022, b"three")))
    path.write_bytes((head(7, 0, 2, 1000).ljust(HEADER, b"\0") + first).ljust(9000, b"\0"))
    s = Segment(path)
    assert list(s.read()) == [b"one"]
    assert list(s.read()) == []
    with open(path, "r+b") as f:
        f.seek(HEADER + len(first))
        f.write(second + third[:-1])  # the last one is not whole yet
        f.flush()
        assert list(s.read()) == [b"two"]
        f.seek(HEADER + len(first) + len(second))
        f.write(third)
        f.seek(0)
        f.write(head(7, 3, 1, 0))     # done with, and prepared to serve again
        f.flush()
        path.rename(tmp_path / "7-000003.seg")
        assert list(s.read()) == [b"three"]
        f.seek(0)
        f.write(head(7, 3, 3, 5000))
        f.seek(HEADER)
        f.write(record(7, 5000, b"four"))
        f.flush()
        assert list(s.read()) == [b"four"]  # and nothing of what is left behind it


def test_fields_of_a_record():
    assert fields(b"\x08\x01\x1a\x03bob\x3a\x02m1") == {1: 1, 3: b"bob", 7: b"m1"}
