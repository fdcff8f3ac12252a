"""What actors saw, and the rules that must hold of it (docs/delivery.md, invariants).

An event is a plain tuple in a list; `check` is a pure function of the lists, so that the checker itself is
tested with made-up histories (test_history.py).
"""
import collections

Row = collections.namedtuple("Row", "conv seq msgid id sender body")  # of the store


class History:
    def __init__(self):
        self.attempts = {}     # (sender, id) -> (conv, body, n, time of the first try)
        self.acked = {}        # (sender, id) -> time of PUBACK or PUBCOMP
        self.refused = {}      # (sender, id) -> code
        self.ack_events = []   # (sender, id, conv, seq, msgid, dup)
        self.deliveries = {}   # device -> [(conv, seq, msgid, body)] in the order of arrival
        self.rows = []         # Row, by conversation and sequence as the store lists them

    def members(self, conv):
        raise NotImplementedError


def check(h, receivers_of):
    """receivers_of(conv) -> devices that must have every message of it. Returns [(verdict, sentence)]."""
    found = []
    by_id, by_place, by_conv = {}, {}, collections.defaultdict(list)

    for r in h.rows:
        if (r.sender, r.id) in by_id:
            found.append(("DUP-STORE", f"{r.sender} {r.id} stands at {by_id[r.sender, r.id].seq} and {r.seq} of {r.conv}"))
        if (r.conv, r.seq) in by_place:
            found.append(("DUP-STORE", f"{r.conv} {r.seq} stands twice"))
        by_id[r.sender, r.id] = r
        by_place[r.conv, r.seq] = r
        if by_conv[r.conv] and by_conv[r.conv][-1].seq >= r.seq:
            found.append(("SEQ", f"{r.conv}: {r.seq} behind {by_conv[r.conv][-1].seq}"))
        by_conv[r.conv].append(r)
        a = h.attempts.get((r.sender, r.id))
        if a is None:
            found.append(("INVENTED", f"{r.sender} never sent {r.id}"))
        elif a[0] != r.conv or a[1] != r.body:
            found.append(("CORRUPT", f"{r.sender} {r.id}: stored {r.conv} {r.body!r}, sent {a[0]} {a[1]!r}"))

    for key in h.acked:
        if key not in by_id and key not in h.refused:
            found.append(("LOST", f"{key[0]} {key[1]} was acknowledged at {h.acked[key]:.3f} and is not stored"))
    for key in h.refused:
        if key in by_id:
            found.append(("FALSE-REFUSAL", f"{key[0]} {key[1]} was refused ({h.refused[key]}) and is stored"))
    for sender, mid, conv, seq, msgid, _dup in h.ack_events:
        r = by_id.get((sender, mid))
        if r is None or (r.conv, r.seq, r.msgid) != (conv, seq, msgid):
            found.append(("FALSE-ACK", f"{sender} {mid} was answered {conv} {seq} {msgid}, stored is {r}"))

    found += check_order(h, by_conv)
    for conv, rows in by_conv.items():
        for device in receivers_of(conv):
            found += check_receiver(h, device, conv, rows)
    return found


def check_order(h, by_conv):
    found = []
    for conv, rows in by_conv.items():
        last_n = {}
        newest_invoke = 0.0  # of what stands before: none of it may have begun after a later one's PUBACK
        for r in rows:
            a = h.attempts.get((r.sender, r.id))
            if a is None:
                continue
            if last_n.get(r.sender, -1) >= a[2]:
                found.append(("REORDER-FIFO", f"{conv} {r.seq}: {r.sender}'s {a[2]} behind its {last_n[r.sender]}"))
            last_n[r.sender] = a[2]
            done = h.acked.get((r.sender, r.id))
            if done is not None and done < newest_invoke:
                found.append(("REORDER-RT", f"{conv} {r.seq}: acknowledged before something earlier in order was sent"))
            newest_invoke = max(newest_invoke, a[3])
    return found


def check_receiver(h, device, conv, rows):
    found, first, newest = [], {}, 0
    for c, seq, msgid, body in h.deliveries.get(device, []):
        if c != conv:
            continue
        if seq in first:
            if first[seq] != (msgid, body):
                found.append(("DUP-DELIVERY", f"{device} {conv} {seq}: a repeat with another content"))
            continue
        if seq < newest:
            found.append(("REORDER-DELIVERY", f"{device} {conv}: {seq} first seen after {newest}"))
        newest = max(newest, seq)
        first[seq] = (msgid, body)
    stored = {r.seq: (r.msgid, r.body) for r in rows}
    for seq in stored.keys() - first.keys():
        found.append(("UNDELIVERED", f"{device} never got {conv} {seq}"))
    for seq, what in first.items():
        if stored.get(seq) != what:
            found.append(("INVENTED", f"{device} got {conv} {seq} as {what}, stored is {stored.get(seq)}"))
    return found
