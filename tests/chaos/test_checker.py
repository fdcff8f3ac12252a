"""The checker catches what it must: each mutation of a good history gives exactly its verdict, and what is allowed gives none."""
import pytest

import checker
from history import Delivery, History

MS = 10**6
S = 1000 * MS


def body(n):
    return {"h": f"h{n}", "len": 100 + n}


def good():
    """Ann and bob write to each other and into a group; cid was in the group from 4 on and up to 6."""
    h = History()
    h.add({"f": "run", "e": "info", "durability": "process", "power_window_ns": 1000 * MS})
    for user in ("ann", "bob"):
        h.add({"f": "actor", "e": "info", "p": f"{user}:s", "kind": "sender", "user": user})
    for user in ("ann", "bob", "cid"):
        h.add({"f": "actor", "e": "info", "p": f"{user}:r", "kind": "receiver", "user": user})
    n, at, last = 0, 0, {}

    def place(conv):
        last[conv] = last.get(conv, 0) + 1
        return last[conv], last[conv] - 1

    def row(conv, mid, user, n, sys=None):
        seq, prev = place(conv)
        msgid = f"m-{conv}-{seq}"
        h.add({"f": "row", "e": "ok", "conv": conv, "seq": seq, "prev": prev, "msgid": msgid, "id": mid, "from": user, "sys": sys, **body(n)})
        for reader in ("ann", "bob", "cid"):
            if conv == "g/x" and (reader != "cid" or 4 <= seq <= 6) or reader in conv[2:].split(":"):
                h.add({"f": "recv", "e": "ok", "p": f"{reader}:r", "conv": conv, "seq": seq, "msgid": msgid, "id": mid, "h": body(n)["h"]})
        return seq, msgid

    row("g/x", None, None, 0, {"event": "created", "users": ["ann", "bob"]})
    for step in range(8):
        if step == 2:
            row("g/x", None, None, 0, {"event": "joined", "users": ["cid"]})
            h.add({"f": "join", "e": "ok", "conv": "g/x", "user": "cid"})
        if step == 4:
            row("g/x", None, None, 0, {"event": "removed", "users": ["cid"]})
            h.add({"f": "leave", "e": "ok", "conv": "g/x", "user": "cid"})
        user = ("ann", "bob")[step // 2 % 2]
        for conv in ("g/x", "u/ann:bob") if step % 2 else ("g/x",):
            if conv == "g/x" and step in (3, 5):
                continue
            n, at = n + 1, at + 100 * MS
            mid = f"{user}-{n}"
            h.add({"t": at, "f": "pub", "e": "invoke", "p": f"{user}:s", "id": mid, "conv": conv, "n": n, "qos": 1, "mid": n, "dup": 0, **body(n)})
            h.add({"t": at + 50 * MS, "f": "pub", "e": "ok", "p": f"{user}:s", "id": mid, "rc": 0})
            seq, msgid = row(conv, mid, user, n)
            h.add({"f": "ack", "e": "ok", "p": f"{user}:s", "id": mid, "conv": conv, "seq": seq, "msgid": msgid, "dup": False})
            h.add({"f": "rec", "e": "ok", "kind": "send", "id": mid, "conv": conv})
    for delivered in (1, 3):
        h.add({"f": "cursor", "e": "info", "p": "obs", "user": "bob", "conv": "u/ann:bob", "delivered": delivered, "read": 1})
    h.add({"f": "cursor", "e": "ok", "p": "bob:r", "user": "bob", "conv": "u/ann:bob", "delivered": 3})
    h.add({"f": "cursor", "e": "info", "p": "end", "user": "bob", "conv": "u/ann:bob", "delivered": 4, "read": 2, "final": 1})
    h.add({"f": "fault", "e": "info", "t": 1, "kind": "kill", "target": "im-offline"})
    h.add({"f": "journal", "e": "info", "whole": True})
    h.add({"f": "probe", "e": "ok", "s": 0.2})
    h.add({"f": "drain", "e": "ok", "s": 0.5})
    return h


def verdicts(mutate):
    h = good()
    mutate(h)
    return {v for v, _ in checker.check(h)}


def find(h, mid):
    return next(i for i, r in enumerate(h.rows) if r.id == mid)


def forget(h, mid):
    """As if the store and everybody else never had it."""
    gone = h.rows.pop(find(h, mid))
    for i, r in enumerate(h.rows):
        if r.conv == gone.conv and r.prev == gone.seq:
            h.rows[i] = r._replace(prev=gone.prev)
    h.acks = [a for a in h.acks if a[0] != mid]
    h.records = [r for r in h.records if r[1] != mid]
    for device in h.deliveries:
        h.deliveries[device] = [d for d in h.deliveries[device] if d.id != mid]


def append(h, conv, mid, user, n, to=("ann:r", "bob:r")):
    last = max((r for r in h.rows if r.conv == conv), key=lambda r: r.seq)
    h.rows.append(last._replace(seq=last.seq + 1, prev=last.seq, msgid=f"m-{conv}-{last.seq + 1}", id=mid, user=user, **body(n)))
    for device in to:
        h.deliveries[device].append(Delivery(conv, last.seq + 1, f"m-{conv}-{last.seq + 1}", mid, body(n)["h"]))


def repeated_by_the_server(h):
    """A message without id: the client sent it once."""
    once = h.rows[-1]
    deny(h, once.id, anon=1)
    append(h, "u/ann:bob", once.id, once.user, int(once.id.split("-")[1]))
    h.rows[-1] = h.rows[-1]._replace(msgid=once.msgid)
    for device in ("ann:r", "bob:r"):
        h.deliveries[device][-1] = h.deliveries[device][-1]._replace(msgid=once.msgid)


def swap_places(h, a, b):
    """Two messages of a conversation change places, and everybody agrees."""
    i, j = find(h, a), find(h, b)
    ra, rb = h.rows[i], h.rows[j]
    place = {a: rb, b: ra}
    h.rows[i] = rb._replace(seq=ra.seq, prev=ra.prev, msgid=ra.msgid)
    h.rows[j] = ra._replace(seq=rb.seq, prev=rb.prev, msgid=rb.msgid)
    h.acks = [(m, c, place[m].seq, place[m].msgid, d) if m in place else (m, c, s, g, d) for m, c, s, g, d in h.acks]
    for device, got in h.deliveries.items():
        other = {ra.seq: rb, rb.seq: ra}
        h.deliveries[device] = [Delivery(d.conv, d.seq, d.msgid, other[d.seq].id, other[d.seq].h)
                                if d.conv == ra.conv and d.seq in other else d for d in got]


def gaps_without_a_fault(h):
    h.faults.clear()
    i = find(h, "ann-1")
    old = h.rows[-1]
    assert old.conv == "u/ann:bob" and h.rows[i].conv == "g/x"
    h.rows[-1] = old._replace(seq=old.seq + 10000)
    h.acks = [(m, c, s + 10000 if m == old.id else s, g, d) for m, c, s, g, d in h.acks]
    for device in h.deliveries:
        h.deliveries[device] = [d._replace(seq=d.seq + 10000) if d.id == old.id else d for d in h.deliveries[device]]


def turn_rows(h):
    i, j = find(h, "ann-1"), find(h, "ann-2")
    h.rows[i], h.rows[j] = h.rows[j], h.rows[i]
    h.pubs["ann-1"].n, h.pubs["ann-2"].n = 2, 1  # so that the listing alone is wrong
    h.pubs["ann-2"].first = h.pubs["ann-1"].first


def real_time(h):
    """bob's stands before ann's, and was begun after ann's was acknowledged."""
    first, second = (r.id for r in h.rows if r.conv == "g/x" and r.id and h.pubs[r.id].user != "ann"), "ann-2"
    swap_places(h, next(first), second)


def deny(h, mid, **fields):
    for k, v in fields.items():
        setattr(h.pubs[mid], k, v)


def lost_in_power(h, before_ms):
    h.faults.append((h.pubs["ann-1"].done + before_ms * MS, "power", "all", {}))
    forget(h, "ann-1")


MUTATIONS = {
    "a row is gone": ("LOST", lambda h: forget(h, "ann-1")),
    "an answered join is not stored": ("LOST", lambda h: h.add({"f": "join", "e": "ok", "conv": "g/x", "user": "cid"})),
    "an id stands twice": ("DUP-STORE", lambda h: append(h, "u/ann:bob", h.rows[-1].id, h.rows[-1].user, int(h.rows[-1].id.split("-")[1]))),
    "a place is taken twice": ("DUP-STORE", lambda h: h.rows.append(h.rows[-1]._replace(id=None, sys={"event": "renamed"}))),
    "a record of the journal became two messages": ("DUP-STORE", lambda h: repeated_by_the_server(h)),
    "a row that nobody sent": ("INVENTED", lambda h: append(h, "u/ann:bob", "zoe-1", "ann", 77)),
    "a delivery of what is not stored": ("INVENTED", lambda h: h.deliveries["bob:r"].append(Delivery("u/ann:bob", 99, "m", "ann-1", "h1"))),
    "another body": ("CORRUPT", lambda h: setattr(h.pubs["ann-1"], "h", "other")),
    "another sender": ("CORRUPT", lambda h: setattr(h.pubs["ann-1"], "user", "bob")),
    "another body on the way": ("CORRUPT", lambda h: h.deliveries["bob:r"].__setitem__(-1, h.deliveries["bob:r"][-1]._replace(h="other"))),
    "refused and stored": ("FALSE-ACK", lambda h: deny(h, "ann-1", done=None, rc=0x87)),
    "must be refused and is stored": ("FALSE-ACK", lambda h: deny(h, "ann-1", deny="not_member")),
    "must be refused, acknowledged, never explained": ("FALSE-ACK", lambda h: (forget(h, "ann-1"), deny(h, "ann-1", deny="not_member"))),
    "answered with another place": ("FALSE-ACK", lambda h: h.acks.append(("ann-1", "g/x", 3, "m-g/x-3", True))),
    "the listing goes back": ("SEQ", turn_rows),
    "prev names another": ("SEQ", lambda h: h.rows.__setitem__(-1, h.rows[-1]._replace(prev=1))),
    "a gap without a fault": ("SEQ", gaps_without_a_fault),
    "a sender's messages changed places": ("REORDER-FIFO", lambda h: (swap_places(h, "ann-1", "ann-2"), setattr(h.pubs["ann-2"], "first", 0))),
    "acknowledged before the other was begun": ("REORDER-RT", real_time),
    "a delivery is missing": ("UNDELIVERED", lambda h: h.deliveries["bob:r"].pop(2)),
    "first deliveries changed places": ("REORDER-DELIVERY", lambda h: h.deliveries["bob:r"].insert(0, h.deliveries["bob:r"].pop(1))),
    "a repeat has another content": ("DUP-DELIVERY", lambda h: h.deliveries["bob:r"].append(h.deliveries["bob:r"][1]._replace(h="other"))),
    "delivered after the stay": ("LEAK", lambda h: h.deliveries["cid:r"].append(h.deliveries["bob:r"][-2] if h.deliveries["bob:r"][-2].conv == "g/x" else
                                                                              next(d for d in reversed(h.deliveries["bob:r"]) if d.conv == "g/x"))),
    "delivered to a stranger": ("LEAK", lambda h: h.deliveries["cid:r"].append(h.deliveries["bob:r"][-1])),
    "in the journal and not stored": ("DRIFT", lambda h: (deny(h, "ann-1", done=None, qos=0), forget(h, "ann-1"), h.records.append(("send", "ann-1", "g/x")))),
    "stored and not in a whole journal": ("DRIFT", lambda h: h.records.pop()),
    "a cursor goes back": ("CURSOR", lambda h: h.cursors.append(("obs", "bob", "u/ann:bob", 2, 1))),
    "a cursor beyond the newest": ("CURSOR", lambda h: h.cursors.append(("obs", "bob", "u/ann:bob", 3, 50))),
    "an ack is refused": ("CURSOR", lambda h: h.add({"f": "cursor", "e": "fail", "p": "bob:r", "code": "bad_cursor", "reason": "?"})),
    "an acknowledged cursor is lost": ("CURSOR", lambda h: h.cursor_acked.update({("bob", "u/ann:bob"): 5})),
    "a sender without an answer": ("STUCK", lambda h: (forget(h, "ann-1"), deny(h, "ann-1", done=None))),
    "no round trip": ("STUCK", lambda h: setattr(h, "probe", None)),
    "the journal does not empty": ("STUCK", lambda h: h.add({"f": "drain", "e": "fail", "s": 61.0})),
    "a process ended by itself": ("STUCK", lambda h: h.add({"f": "crash", "e": "info", "target": "mosquitto", "t": 5})),
    "process: acknowledged long before the power cut": ("LOST-POWER", lambda h: lost_in_power(h, 1500)),
    "disk: acknowledged just before the power cut": ("LOST-POWER", lambda h: (setattr(h, "durability", "disk"), lost_in_power(h, 5))),
}

ALLOWED = {
    "nothing": lambda h: None,
    "a refused id is not lost": lambda h: (forget(h, "ann-1"), deny(h, "ann-1", code="too_fast")),
    "a repeat was refused, the first try taken": lambda h: deny(h, "ann-1", done=None, rc=0x87, tries=2),
    "no answer to QoS 0": lambda h: (forget(h, "ann-1"), deny(h, "ann-1", qos=0, done=None)),
    "refused for the moment, then taken": lambda h: deny(h, "ann-1", code="journal_full", tries=2),
    "twice without id": lambda h: (append(h, "u/ann:bob", h.rows[-1].id, h.rows[-1].user, int(h.rows[-1].id.split("-")[1])),
                                   deny(h, h.rows[-1].id, anon=1)),
    "a true repeat": lambda h: h.deliveries["bob:r"].append(h.deliveries["bob:r"][0]),
    "an ack of a message without id": lambda h: h.acks.append((None, "g/x", 2, "m-g/x-2", False)),
    "process: acknowledged within the window": lambda h: lost_in_power(h, 5),
    "process: acknowledged, and read a moment after the cut": lambda h: (lost_in_power(h, -5), h.faults.append((h.pubs["ann-1"].done + 9 * MS, "power", "all",
                                                                                                               {"at": h.pubs["ann-1"].done - 5 * MS}))),
    "a journal of which a part is left": lambda h: (h.records.pop(), setattr(h, "journal_whole", False)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_gives_its_verdict(name):
    verdict, mutate = MUTATIONS[name]
    assert verdicts(mutate) == {verdict}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    assert verdicts(ALLOWED[name]) == set()


def test_every_rule_is_tried():
    assert {v for v, _ in MUTATIONS.values()} == {"LOST", "INVENTED", "CORRUPT", "FALSE-ACK", "DUP-STORE", "SEQ", "REORDER-FIFO", "REORDER-RT", "UNDELIVERED",
                                                  "REORDER-DELIVERY", "DUP-DELIVERY", "LEAK", "DRIFT", "CURSOR", "STUCK", "LOST-POWER"}


def test_numbers():
    h = good()
    n = checker.numbers(h, checker.check(h))
    assert (n["attempted"], n["acked"], n["stored"], n["lost"], n["duplicated"], n["refused"]) == (10, 10, 10, 0, 0, 0)
