"""What actors saw: JSON lines, one file per actor, and the same as objects for the checker.

A line is written before a packet is sent and after an acknowledgement was read, so that its time brackets what it
tells of. `t` is CLOCK_MONOTONIC in ns, `p` the actor, `inc` its connection, `e` invoke|ok|fail|info, `f` what it is:

  actor   who this is: kind, user, device, v, lib, session                        first line of a file
  pub     invoke: id conv n h len qos mid dup anon deny    one line per try        (anon: sent without message id)
          ok: PUBACK or PUBREC below 0x80; fail: `rc` from 0x80 on, or `code` of an in/err naming it; info: connection lost
  ack     the server's in/ack: id conv seq msgid dup
  recv    a delivery: via push|sync, conv seq msgid id from h
  row     a message of the store at the end: conv seq prev msgid id from h len, `sys` for the system's
  rec     a journal record at the end: kind id conv;    journal: whether rec lines tell of all of it
  cursor  ok, fail: an im/v1/ack of a device was taken, refused; info: what the server says (`read`, `delivered`); final: the last word
  join    leave: an admin's change that was answered;   fault: kill, stop, cut ... of the nemesis;   crash: nobody asked for it
  probe   first round trip after everything was healed; drain: the journal is empty and all is resolved

`id` is the harness's own name of a message. It is the message id on the wire unless `anon`; the body begins with it, so
that a message without id is known again. `conv` is u/{lower}:{higher} or g/{group}, `h` the CRC-32 of the body.
"""
import collections
import json
import pathlib
import sys
import time

TEMPORARY = ("journal_full", "journal_failed", "unavailable")  # not taken now; the same id may be taken later

Row = collections.namedtuple("Row", "conv seq prev msgid id user h len sys")
Delivery = collections.namedtuple("Delivery", "conv seq msgid id h")


def canonical(user, address):
    if address.startswith("g/"):
        return address
    a, b = sorted((user, address[2:]))
    return f"u/{a}:{b}"


class Writer:
    """Lines of one actor; flush() before what they announce is sent."""

    def __init__(self, folder, name):
        self.name = name
        self.file = open(pathlib.Path(folder) / f"{name.replace(':', '_')}.jsonl", "ab", buffering=1 << 16)

    def line(self, e, f, inc=0, **fields):
        more = json.dumps(fields, separators=(",", ":"))[1:]
        self.file.write(f'{{"t":{time.monotonic_ns()},"p":"{self.name}","inc":{inc},"e":"{e}","f":"{f}"{"," if fields else ""}{more}\n'.encode())

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


class Pub:
    """One message that somebody wanted to send, over all its tries."""
    __slots__ = ("id", "p", "user", "conv", "n", "h", "len", "qos", "anon", "deny", "first", "tries", "unknown", "done", "rc", "code")

    def __init__(self, user, line):
        self.id, self.p, self.user, self.conv, self.n = line["id"], line["p"], user, line["conv"], line["n"]
        self.h, self.len, self.qos, self.anon, self.deny = line["h"], line["len"], line["qos"], line.get("anon", 0), line.get("deny")
        self.first, self.tries, self.unknown = line["t"], 0, False
        self.done = None  # when the first good PUBACK or PUBREC was read
        self.rc = 0       # the first that was none
        self.code = None  # of in/err

    def refused(self):
        """The server said no, and did not take it back by acknowledging a repeat."""
        if self.code and self.code not in TEMPORARY:
            return True
        return self.done is None and (self.rc >= 0x80 or self.code is not None)

    def certainly_refused(self):
        """No earlier try can have been taken: neither was one left open, nor could the answer mean another."""
        return self.refused() and self.tries == 1

    def acked(self):
        return self.done is not None and not self.refused()

    def open(self):
        return self.qos > 0 and self.done is None and not self.refused()


class History:
    def __init__(self):
        self.actors = {}      # name -> its first line
        self.pubs = {}        # id -> Pub
        self.acks = []        # (id, conv, seq, msgid, dup)
        self.rows = []        # Row, as the store lists them
        self.deliveries = collections.defaultdict(list)  # device -> [Delivery] in the order of arrival
        self.records = []     # (kind, id, conv) of the journal
        self.journal_whole = False
        self.cursors = []     # (who told, user, conv, delivered, read) in time
        self.cursor_acked = {}   # (user, conv) -> highest delivered whose im/v1/ack was acknowledged
        self.cursor_final = {}   # (user, conv) -> (delivered, read)
        self.cursor_refused = []  # (device, code, reason): devices acknowledge only what they got
        self.changes = []     # (join|leave, conv, user) answered by the server
        self.faults = []      # (t, kind, target, line)
        self.crashes = []     # lines
        self.probe = self.drain = None   # lines
        self.durability, self.power_window_ns = "process", 0

    # ---- reading

    def read(self, folder):
        files = sorted(pathlib.Path(folder).glob("*.jsonl"))
        for path in sorted(files, key=lambda p: p.name != "store.jsonl"):  # its strings are shared by all others
            with open(path, "rb") as f:
                for raw in f:
                    try:
                        self.add(json.loads(raw))
                    except ValueError:
                        if raw.endswith(b"\n"):  # only the last line may be cut off, by the end of the run
                            raise
        return self

    def add(self, line):
        getattr(self, "_" + line["f"], self._other)(line)

    def _actor(self, line):
        self.actors[line["p"]] = line

    def _pub(self, line):
        kind, pub = line["e"], self.pubs.get(line["id"])
        if kind == "invoke":
            if pub is None:
                line["id"], line["conv"] = sys.intern(line["id"]), sys.intern(line["conv"])
                pub = self.pubs[line["id"]] = Pub(self.actors[line["p"]]["user"], line)
            pub.tries += 1
        elif pub is None:
            return  # an in/err about something that was not a message of a sender
        elif kind == "ok":
            pub.done = pub.done or line["t"]
        elif kind == "fail":
            pub.rc = pub.rc or line.get("rc", 0)
            pub.code = line.get("code", pub.code)
        else:
            pub.unknown = True

    def _ack(self, line):
        self.acks.append((line["id"], line["conv"], line["seq"], line["msgid"], line.get("dup", False)))

    def _recv(self, line):
        self.deliveries[line["p"]].append(Delivery(sys.intern(line["conv"]), line["seq"], sys.intern(line["msgid"]),
                                                   line["id"] and sys.intern(line["id"]), sys.intern(line["h"])))

    def _row(self, line):
        self.rows.append(Row(sys.intern(line["conv"]), line["seq"], line["prev"], sys.intern(line["msgid"]),
                             line["id"] and sys.intern(line["id"]), line["from"], sys.intern(line["h"]), line["len"], line.get("sys")))

    def _rec(self, line):
        self.records.append((line["kind"], line["id"], line["conv"]))

    def _journal(self, line):
        self.journal_whole = line["whole"]

    def _cursor(self, line):
        if line["e"] == "fail":
            if line["code"] not in TEMPORARY:
                self.cursor_refused.append((line["p"], line["code"], line["reason"]))
            return
        key = (line["user"], line["conv"])
        if line["e"] == "info":
            self.cursors.append((line["p"], *key, line["delivered"], line["read"]))
            if line.get("final"):
                self.cursor_final[key] = (line["delivered"], line["read"])
        elif line["e"] == "ok":
            self.cursor_acked[key] = max(self.cursor_acked.get(key, 0), line["delivered"])

    def _join(self, line):
        if line["e"] == "ok":
            self.changes.append((line["f"], line["conv"], line["user"]))

    _leave = _join

    def _fault(self, line):
        self.faults.append((line["t"], line["kind"], line.get("target"), line))

    def _crash(self, line):
        self.crashes.append(line)

    def _probe(self, line):
        self.probe = line

    def _drain(self, line):
        self.drain = line

    def _run(self, line):
        self.durability, self.power_window_ns = line["durability"], line["power_window_ns"]

    def _recovered(self, line):
        pass

    def _other(self, line):
        raise ValueError(f"history: no such line: {line}")
