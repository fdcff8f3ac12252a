"""The topic tree as a table, adversarial filters and topics of all shapes over it, and a matcher of its own to judge by.

Kept apart from lib/wire/topic.c on purpose: it says by brute force what that decides by grammar.
"""
import itertools

CODECS = ("in", "raw", "pb")
SEND = ["im/v1/to/u/bob", "im/v1/to/u/bob/m1", "im/v1/to/g/friends", "im/v1/to/g/friends/m1", "im/v1/send", "im/v1/send/pb", "im/v1/ack",
        "im/v1/sig/u/bob", "im/v1/sig/g/friends", "im/v1/req/history/r1", "im/v1/req/device.set/r1", "im/v1/svc/pay/now/1"]
ROOMS = ["im/v1/room/friends/json", "im/v1/room/friends/pb"]
BOXES = ["msg/u/bob", "msg/g/friends", "sent/u/bob", "sent/g/friends", "ack", "err", "evt/welcome", "evt/sync", "evt/typing", "evt/receipt", "state/badge",
         "state/conversations", "res/r1"]
RAW = ["msg/u/bob/bob/1", "msg/g/friends/bob/1", "old/u/bob/bob/1", "sent/u/bob/alice/1", "sys/g/friends/bob/1", "ack/m1/1", "err/too_fast", "evt/welcome",
       "cut/u/bob/bob/1", "res/r1"]
INBOX = [f"im/v1/{c}/{b}" for c in ("in", "pb") for b in BOXES] + [f"im/v1/raw/{b}" for b in RAW]
BUS = ["$im/in", "$im/out", "$im/sink", "$im/seq", "$im/seq/res/$im-offline"]
CONTROL = ["$CONTROL/im/v1", "$CONTROL/im/v1/response", "$CONTROL/dynamic-security/v1", "$CONTROL/dynamic-security/v1/response"]
SYS = ["$SYS/broker/uptime", "$SYS/broker/clients/total", "$SYS/broker/log/N"]
PLAIN = ["plain/x", "im", "im/v1", "im2/v1/in/msg"]
TREE = SEND + ROOMS + INBOX + BUS + CONTROL + SYS + PLAIN


def matches(filter, topic):
    """MQTT 3.1.1, 4.7: level by level."""
    f, t = filter.split("/"), topic.split("/")
    if t[0].startswith("$") and f[0] in ("#", "+"):
        return False
    for i, level in enumerate(f):
        if level == "#":
            return True
        if i >= len(t) or level not in ("+", t[i]):
            return False
    return len(f) == len(t)


def plain_shapes():
    """Every topic of the tree with every choice of its levels as +, and cut with # behind every level."""
    out = {"#", "+", "/", "+/+", "/#", "/+", "+/"}
    for topic in TREE:
        levels = topic.split("/")
        for chosen in itertools.product((False, True), repeat=len(levels)):
            f = ["+" if c else level for c, level in zip(chosen, levels)]
            out.add("/".join(f))
            out.update("/".join(f[:n] + ["#"]) for n in range(len(f) + 1))
    return sorted(out)


def odd_shapes():
    """What is no level more or less: empty levels, other case, other versions, dots, encodings, spaces."""
    out = set()
    for topic in TREE:
        levels = topic.split("/")
        for i, level in enumerate(levels):
            for other in ("", level.upper(), level + " ", " " + level, level + "\u200b", ".", "..", "%69m", level.replace("u", "U"), level + level):
                changed = "/".join(levels[:i] + [other] + levels[i + 1:])
                if changed != topic and changed:
                    out.add(changed)
                    out.add(changed + "/#")
        out.update(("/" + topic, "//" + topic, topic + "/", topic + "//", topic + "/#", topic + "/+", topic + "/#"))
    return sorted(out)


def shared(filters):
    """Each behind $share, with groups that look like something else."""
    groups = itertools.cycle(("g", "$share", "im", "$im", "alice"))
    return [f"$share/{group}/{f}" for group, f in zip(groups, filters)]


def own(topic):
    """In the asker's own inbox."""
    return topic.startswith(tuple(f"im/v1/{c}/" for c in CODECS))
