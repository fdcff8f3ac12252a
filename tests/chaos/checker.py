"""The rules C1 to C15: plain functions of a history, each giving [(verdict, sentence)]. All must give nothing.

They hold after everything was healed, was left alone until quiet, and every receiver has come to the end. What an
acknowledgement means is docs/protocol.md's: an id that was refused promises nothing, QoS 0 promises nothing, a message
sent without id may be stored twice (counted, not a fault), and what repeats is the first place that counts for order.

Sets: K acknowledged and not refused, F refused with no try left open, S the store's rows.
"""
import bisect
import collections

ROUND_TRIP_S = 15     # T1: healed -> a message goes all the way
RESOLVED_S = 60       # T2: healed -> journal empty, no sender waits for an answer
OWN_RESTARTS = 0      # processes that ended although nobody asked for it
POWER_REACH_NS = 30 * 10**9  # a loss so soon before a power cut is the cut's


class Index:
    """The store by id, place and conversation; stays in groups."""

    def __init__(self, h):
        self.by_id = {}                                    # id -> the first row with it
        self.by_place = {}                                 # (conv, seq) -> row
        self.by_conv = collections.defaultdict(list)
        self.repeats = []                                  # rows whose id stands before
        self.stays = collections.defaultdict(list)         # (conv, user) -> [[from, to]]
        self.acked_events = {a[0] for a in h.acks}
        for r in h.rows:
            self.by_place.setdefault((r.conv, r.seq), r)
            self.by_conv[r.conv].append(r)
            if r.sys:
                self._stay(r)
            elif r.id in self.by_id:
                self.repeats.append(r)
            else:
                self.by_id[r.id] = r

    def _stay(self, r):
        for user in r.sys.get("users", ()):
            stays = self.stays[r.conv, user]
            inside = stays and stays[-1][1] is None
            if r.sys["event"] in ("created", "joined") and not inside:
                stays.append([r.seq, None])
            elif r.sys["event"] in ("removed", "left") and inside:
                stays[-1][1] = r.seq

    def may_see(self, conv, user, seq):
        if conv.startswith("u/"):
            return user in conv[2:].split(":")
        return any(a <= seq and (b is None or seq <= b) for a, b in self.stays.get((conv, user), ()))


def missing(h, x):
    """(Pub, moment of the power cut that may have taken it or None) of what is acknowledged and not stored.

    The line of a cut is written when everything is dead and before anything starts again: an acknowledgement read before it
    was sent before the cut, though it may have been read a little after (`at`)."""
    cuts = sorted((t, line.get("at", t)) for t, kind, _, line in h.faults if kind == "power")
    for p in h.pubs.values():
        if p.acked() and not p.deny and p.id not in x.by_id:
            i = bisect.bisect_left(cuts, (p.done, 0))
            yield p, cuts[i][1] if i < len(cuts) and cuts[i][0] - p.done <= POWER_REACH_NS else None


def c1_loss(h, x):
    found = [("LOST", f"{p.id} was acknowledged at {p.done} and is not stored") for p, cut in missing(h, x) if cut is None]
    done = collections.Counter((kind, conv, user) for kind, conv, user in h.changes)
    seen = collections.Counter()
    for r in h.rows:
        if r.sys:
            kind = {"created": "join", "joined": "join", "removed": "leave"}.get(r.sys["event"])
            seen.update((kind, r.conv, user) for user in r.sys.get("users", ()))
    found += [("LOST", f"{kind} of {user} in {conv} was answered {n} times, stored {seen[kind, conv, user]} times")
              for (kind, conv, user), n in done.items() if seen[kind, conv, user] < n]
    return found


def c2_content(h, x):
    found = []
    for r in h.rows:
        if r.sys:
            continue
        p = h.pubs.get(r.id)
        if p is None:
            found.append(("INVENTED", f"{r.conv} {r.seq}: nobody sent {r.id}"))
        elif (p.conv, p.user, p.h, p.len) != (r.conv, r.user, r.h, r.len):
            found.append(("CORRUPT", f"{r.id}: stored {r.conv} of {r.user}, {r.h}, {r.len} bytes; sent {p.conv} of {p.user}, {p.h}, {p.len} bytes"))
    for device, got in h.deliveries.items():
        for d in got:
            r = x.by_place.get((d.conv, d.seq))
            if r is None:
                found.append(("INVENTED", f"{device} got {d.conv} {d.seq} ({d.id}), which is not stored"))
    return found


def c3_false_ack(h, x):
    found = []
    for p in h.pubs.values():
        if p.certainly_refused() and p.id in x.by_id:
            found.append(("FALSE-ACK", f"{p.id} was refused ({p.code or p.rc}) and is stored"))
        elif p.deny and p.id in x.by_id:
            found.append(("FALSE-ACK", f"{p.id} must be refused ({p.deny}) and is stored"))
        elif p.deny and p.acked():
            found.append(("FALSE-ACK", f"{p.id} must be refused ({p.deny}), was acknowledged, and no in/err ever said so"))
    for mid, conv, seq, msgid, _dup in h.acks:
        r = x.by_place.get((conv, seq))
        if r is None or r.msgid != msgid or mid not in (None, r.id):  # None: a message without id
            found.append(("FALSE-ACK", f"{mid} was answered {conv} {seq} {msgid}; there stands {r}"))
    return found


def c4_duplicates(h, x):
    """A client that repeats without id sends two messages, and the journal has two records: the server makes no two of one."""
    found = [("DUP-STORE", f"{r.id} stands at {x.by_id[r.id].seq} and {r.seq} of {r.conv}")
             for r in x.repeats if r.id in h.pubs and not h.pubs[r.id].anon]
    found += [("DUP-STORE", f"{r.conv} {r.seq} stands twice") for r in h.rows if x.by_place[r.conv, r.seq] is not r]
    first = {}
    return found + [("DUP-STORE", f"{r.msgid}, one record of a journal, stands at {first[r.msgid].seq} and {r.seq} of {r.conv}")
                    for r in h.rows if first.setdefault(r.msgid, r) is not r]


def c5_sequence(h, x):
    """Strictly rising, `prev` names the one before, and a gap needs a fault that explains it."""
    found = []
    faults = sum(1 for _, kind, target, _ in h.faults if kind != "connections" and target != "mosquitto")
    for conv, rows in x.by_conv.items():
        last, gaps = 0, 0
        for r in rows:
            if r.seq == last:
                continue  # C4
            if r.seq < last:
                found.append(("SEQ", f"{conv}: {r.seq} stands behind {last}"))
            elif r.prev != last:
                found.append(("SEQ", f"{conv} {r.seq}: says that {r.prev} is before it, {last} is"))
            gaps += r.seq > last + 1
            last = max(last, r.seq)
        if gaps > faults:
            found.append(("SEQ", f"{conv}: {gaps} gaps, {faults} faults that might explain one"))
    return found


def firsts(rows):
    """Rows of messages, each id once, where it stands first."""
    seen = set()
    for r in rows:
        if not r.sys and r.id not in seen:
            seen.add(r.id)
            yield r


def c6_sender_order(h, x):
    found = []
    for conv, rows in x.by_conv.items():
        last = {}
        for r in firsts(rows):
            p = h.pubs.get(r.id)
            if p is None:
                continue
            if last.get(p.p, -1) >= p.n:
                found.append(("REORDER-FIFO", f"{conv} {r.seq}: {p.p}'s {p.n} stands behind its {last[p.p]}"))
            last[p.p] = max(p.n, last.get(p.p, -1))
    return found


def c7_real_time(h, x):
    """Nothing that stands before was begun after this one's acknowledgement had been read."""
    found = []
    for conv, rows in x.by_conv.items():
        newest = 0
        for r in firsts(rows):
            p = h.pubs.get(r.id)
            if p is None:
                continue
            if p.done is not None and p.done < newest:
                found.append(("REORDER-RT", f"{conv} {r.seq}: {p.id} was acknowledged before something that stands earlier was sent"))
            newest = max(newest, p.first)
    return found


def receivers(h):
    """name -> (user, the one conversation it asks for or None)"""
    return {name: (a["user"], a.get("only")) for name, a in h.actors.items() if a["kind"] == "receiver"}


def c8_delivered(h, x):
    found = []
    for device, (user, only) in receivers(h).items():
        got = {(d.conv, d.seq) for d in h.deliveries.get(device, ())}
        found += [("UNDELIVERED", f"{device} never got {r.conv} {r.seq} ({r.id})") for r in x.by_place.values()
                  if (r.conv, r.seq) not in got and only in (None, r.conv) and x.may_see(r.conv, user, r.seq)]
    return found


def c9_delivery_order(h, x):
    found = []
    for device, got in h.deliveries.items():
        newest, seen = {}, set()
        for d in got:
            if (d.conv, d.seq) in seen:
                continue
            seen.add((d.conv, d.seq))
            if d.seq < newest.get(d.conv, 0):
                found.append(("REORDER-DELIVERY", f"{device} {d.conv}: {d.seq} came for the first time after {newest[d.conv]}"))
            newest[d.conv] = max(d.seq, newest.get(d.conv, 0))
    return found


def c10_repeats(h, x):
    """A repeat is the same message; so is what the store has at that place."""
    found = []
    for device, got in h.deliveries.items():
        first = {}
        for d in got:
            before = first.setdefault((d.conv, d.seq), d)
            r = x.by_place.get((d.conv, d.seq))
            if before != d:
                found.append(("DUP-DELIVERY", f"{device} got {d.conv} {d.seq} as {before.id} {before.msgid} {before.h} and as {d.id} {d.msgid} {d.h}"))
            elif r is not None and (r.msgid, r.id, r.h) != (d.msgid, d.id, d.h):
                found.append(("CORRUPT", f"{device} got {d.conv} {d.seq} as {d.id} {d.msgid} {d.h}; stored is {r.id} {r.msgid} {r.h}"))
    return found


def c11_leak(h, x):
    users = {name: a["user"] for name, a in h.actors.items()}
    return [("LEAK", f"{device} got {conv} {seq} and may not see it") for device, got in h.deliveries.items()
            for conv, seq in {(d.conv, d.seq) for d in got}
            if (conv, seq) in x.by_place and not x.may_see(conv, users[device], seq)]


def c12_journal(h, x):
    """What the journal accepted is stored, and with a whole journal nothing else is."""
    sends = {i: conv for kind, i, conv in h.records if kind == "send"}
    found = [("DRIFT", f"{i} is in the journal for {conv} and not stored") for i, conv in sends.items()
             if i not in x.by_id and i in h.pubs and not h.pubs[i].refused()]
    if h.journal_whole:
        found += [("DRIFT", f"{r.id} is stored and never was in the journal") for r in x.by_id.values() if r.id in h.pubs and r.id not in sends]
    return found


def c13_cursors(h, x):
    found, before = [("CURSOR", f"{device}: an ack of what it was given was refused: {code}, {reason}") for device, code, reason in h.cursor_refused], {}
    top = {conv: max(r.seq for r in rows) for conv, rows in x.by_conv.items()}
    for who, user, conv, delivered, read in h.cursors:
        d, r = before.get((who, user, conv), (0, 0))
        if delivered < d or read < r:
            found.append(("CURSOR", f"{user} {conv}: from delivered {d}, read {r} back to {delivered}, {read}"))
        if max(delivered, read) > top.get(conv, 0):
            found.append(("CURSOR", f"{user} {conv}: delivered {delivered}, read {read}; the newest is {top.get(conv, 0)}"))
        before[who, user, conv] = max(d, delivered), max(r, read)
    for (user, conv), delivered in h.cursor_acked.items():
        if (user, conv) in h.cursor_final and h.cursor_final[user, conv][0] < delivered:
            found.append(("CURSOR", f"{user} {conv}: an ack of {delivered} was taken, delivered is {h.cursor_final[user, conv][0]}"))
    return found


def c14_liveness(h, x):
    found = [("STUCK", f"{p.id} never got an answer") for p in h.pubs.values() if p.open()]
    for what, line, limit in (("round trip", h.probe, ROUND_TRIP_S), ("empty journal", h.drain, RESOLVED_S)):
        if line is None or line["s"] > limit:
            found.append(("STUCK", f"{what} after the last fault: {'never' if line is None else line['s']} (limit {limit} s)"))
    if len(h.crashes) > OWN_RESTARTS:
        found.append(("STUCK", f"{len(h.crashes)} processes ended by themselves, the first: {h.crashes[0].get('target')} at {h.crashes[0]['t']}"))
    return found


def c15_power(h, x):
    """`disk`: a power cut takes nothing acknowledged. `process`: only what was acknowledged within the window before it."""
    def excused(p, cut):
        return h.durability == "process" and cut - p.done <= h.power_window_ns and p.id not in x.acked_events
    return [("LOST-POWER", f"{p.id} was acknowledged {(cut - p.done) / 1e6:.1f} ms before a power cut and is not stored")
            for p, cut in missing(h, x) if cut is not None and not excused(p, cut)]


RULES = (c1_loss, c2_content, c3_false_ack, c4_duplicates, c5_sequence, c6_sender_order, c7_real_time, c8_delivered, c9_delivery_order,
         c10_repeats, c11_leak, c12_journal, c13_cursors, c14_liveness, c15_power)


def check(h):
    x = Index(h)
    return [f for rule in RULES for f in rule(h, x)]


def numbers(h, found):
    """The report: what happened, in counts."""
    x = Index(h)
    verdicts = collections.Counter(v for v, _ in found)
    stored = [p for p in h.pubs.values() if p.id in x.by_id]
    total = sum(len(got) for got in h.deliveries.values())
    return {
        "attempted": len(h.pubs),
        "acked": sum(p.acked() for p in h.pubs.values()),
        "stored": sum(not r.sys for r in h.rows),
        "lost": verdicts["LOST"] + verdicts["LOST-POWER"],
        "lost_in_power_window": sum(cut is not None for _, cut in missing(h, x)) - verdicts["LOST-POWER"],
        "duplicated": verdicts["DUP-STORE"],
        "duplicated_without_id": sum(1 for r in x.repeats if r.id in h.pubs and h.pubs[r.id].anon),
        "recovered": sum(p.unknown for p in stored),
        "reordered": verdicts["REORDER-FIFO"] + verdicts["REORDER-RT"] + verdicts["REORDER-DELIVERY"],
        "false_acks": verdicts["FALSE-ACK"],
        "refused": sum(p.refused() for p in h.pubs.values()),
        "unresolved": sum(p.open() for p in h.pubs.values()),
        "deliveries": total,
        "repeated_deliveries": total - sum(len({(d.conv, d.seq) for d in got}) for got in h.deliveries.values()),
        "verdicts": dict(verdicts),
    }
