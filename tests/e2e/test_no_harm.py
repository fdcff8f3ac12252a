"""Old clients see no difference: the same script against a broker with the plugin and a bare one, the same observations.

A script is a function of a side (support/sides.py) that returns what clients saw. It also asserts what must have
happened at all, so that two empty observations are no success.
"""
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from client import Client, Timeout
from raw import Raw
from sides import ACL, Sides

QUIET = 0.4  # seconds without a packet after which nothing more is expected


@pytest.fixture(scope="module")
def sides():
    with Sides() as s:
        for side in s:
            wait_for_port(side)
        yield s


def wait_for_port(side, seconds=10):
    deadline = time.monotonic() + seconds
    while True:
        try:
            Raw(side.port, client_id="knock").close()
            return
        except (OSError, AssertionError):
            assert time.monotonic() < deadline, f"{side.name} does not answer\n{side.logs()}"
            time.sleep(0.05)


def same(sides, script):
    """Both at the same time, as most of a script is waiting."""
    with ThreadPoolExecutor(2) as pool:
        with_plugin, bare = pool.map(script, sides)
    assert with_plugin == bare
    return bare


def view(m):
    """What a client can tell of a message."""
    props = m.properties.json() if getattr(m, "properties", None) else {}
    return m.topic, m.payload, m.qos, m.retain, repr(sorted(props.items()))


def views(client, prefix="", quiet=QUIET):
    return [view(m) for m in client.all(prefix, quiet)]


def user(side, name, id, **more):
    return Client(side, name, raw_id=id, **more).connect()


def props(kind, **values):
    p = Properties(kind)
    for name, value in values.items():
        setattr(p, name, value)
    return p


# ---- who gets in

LOGINS = [("tele", "secret-t"), ("tele", "wrong"), ("tele", ""), ("tele", None), ("nobody", "x"), ("nobody", None), (None, None), ("", ""),
          ("TELE", "secret-t"), ("tele ", "secret-t")]
CLIENT_IDS = ["", "plain", "sensor:1", "with/slash", "a+b#c", "ä€", "x" * 300, "{braces}", "mosq-12345", "tele:phone", "$dollar"]


@pytest.mark.parametrize("v5", [False, True])
def test_logins_of_the_password_file_and_of_nobody(sides, v5):
    def script(side):
        seen = []
        for name, password in LOGINS:
            with Raw(side.port, name, "login", password, v5) as c:
                seen.append((name, password, c.rc))
        return seen

    assert {0} < {rc for _, _, rc in same(sides, script)}


@pytest.mark.parametrize("name", ["tele", None])
def test_client_ids_of_old_clients(sides, name):
    def script(side):
        seen = []
        for id in CLIENT_IDS:
            with Raw(side.port, name, id, side.users.get(name)) as c:
                seen.append((id, c.rc, c.subscribe("open/ids") if c.rc == 0 else None))
        return seen

    assert (CLIENT_IDS[1], 0, 1) in same(sides, script)


def test_taking_over_a_client_id(sides):
    def script(side):
        first = user(side, "tele", "take")
        with user(side, None, "take") as second:
            first.mqtt.loop_stop()
            gone = first.disconnects.get(timeout=5)
            second.subscribe("open/take")
            second.publish("open/take", "mine")
            return bool(gone), views(second)

    assert same(sides, script)[1][0][1] == b"mine"


# ---- rights

TOPICS = ["tele/1", "tele/secret/1", "drop/tele/x", "open/x", "reader/x", "own/tele/x", "own/reader/x", "client/acl/x", "client/other/x", "none/x"]


@pytest.mark.parametrize("name", ["tele", "reader", None])
def test_rights_to_publish(sides, name):
    def script(side):
        with Raw(side.port, name, "acl", side.users.get(name), v5=True) as c:
            codes = [(t, qos, c.publish(t, "x", qos)) for t in TOPICS for qos in (1, 2)]
        with Raw(side.port, name, "acl", side.users.get(name)) as c:  # 3.1.1 has one answer
            return codes, [c.publish(t, "x", 1) for t in TOPICS]

    codes, _ = same(sides, script)
    assert {code for _, _, code in codes} > {0x87}


FILTERS = ["tele/#", "tele/secret/#", "#", "+/#", "open/+", "reader/#", "own/+/x", "$SYS/#", "$share/s/tele/#", "$share/s/open/#", "none", "/#", "client/acl/#"]


@pytest.mark.parametrize("name,v5", [("tele", False), ("tele", True), ("reader", False), (None, False)])
def test_rights_to_subscribe_and_what_then_arrives(sides, name, v5):
    def script(side):
        with user(side, "tele", "acl-pub") as tele, user(side, "reader", "acl-pub2") as reader:
            seen = []
            for f in FILTERS:
                with user(side, name, "acl", v5=v5) as c:
                    granted = c.subscribe(f)
                    for t in ("tele/1", "tele/secret/1", "open/x", "own/tele/x"):
                        tele.publish(t, f)
                    reader.publish("reader/x", f)
                    got = [x for x in views(c, quiet=0.15) if not x[0].startswith("$SYS/")]
                    seen.append((f, granted, got))
            return seen

    assert any(got for _, _, got in same(sides, script))


def test_wildcard_does_not_see_the_new_trees_and_old_topics_named_alike_work(sides):
    def script(side):
        with user(side, None, "im-like") as c:
            c.subscribe("open/#")
            for t in ("open/im/v1/in/x", "open/$im/x", "open/im"):
                c.publish(t, "x")
            return views(c)

    assert len(same(sides, script)) == 3


# ---- messages

@pytest.mark.parametrize("v5", [False, True])
def test_each_qos_to_each_qos(sides, v5):
    def script(side):
        seen = []
        for granted in (0, 1, 2):
            with user(side, None, f"q{granted}", v5=v5) as c, user(side, "tele", "qp", v5=v5) as p:
                assert c.subscribe("open/q", granted) == granted
                for qos in (0, 1, 2):
                    p.publish("open/q", bytes([qos]) * (10 ** (qos * 2)), qos)
                seen.append(views(c))
        return seen

    assert [len(s) for s in same(sides, script)] == [3, 3, 3]


def test_retained_is_set_replaced_cleared_and_given_to_new_subscribers(sides):
    def fresh(side, filter, n):
        with user(side, "reader", f"ret{n}") as c:
            c.subscribe(filter)
            return sorted(views(c))

    def script(side):
        seen = []
        with user(side, "tele", "ret-pub") as p, user(side, "reader", "ret-live") as live:
            live.subscribe("tele/r/#")
            for i, (topic, payload) in enumerate([("tele/r/1", "a"), ("tele/r/2", "b"), ("tele/r/1", "c"), ("tele/r/2", "")]):
                p.publish(topic, payload, 1, retain=True)
                seen.append(fresh(side, "tele/r/#", i))
            p.publish("tele/r/1", "not kept", 1, retain=False)
            seen.append(fresh(side, "tele/r/+", 9))
            p.publish("tele/secret/r", "x", 1, retain=True)
            seen.append(fresh(side, "tele/#", 10))
            seen.append(views(live))
        return seen

    seen = same(sides, script)
    assert [x[1] for x in seen[2]] == [b"c", b"b"] and [x[1] for x in seen[4]] == [b"c"] and len(seen[-1]) == 5


@pytest.mark.parametrize("v5", [False, True])
def test_wills(sides, v5):
    def script(side):
        seen = []
        with user(side, "tele", "will-watch", v5=v5) as watch:
            watch.subscribe("open/#")
            for n, (topic, retain, polite) in enumerate([("open/w", False, False), ("open/w", True, False), ("open/w", False, True),
                                                         ("none/w", False, False)]):
                c = user(side, None, f"will{n}", v5=v5, will=(topic, "gone", 1, retain))
                c.close() if polite else c.drop()
                seen.append(views(watch))
            with user(side, None, "will-late", v5=v5) as late:
                late.subscribe("open/w")
                seen.append(views(late))
                late.publish("open/w", "", retain=True)
        return seen

    seen = same(sides, script)
    assert [len(s) for s in seen] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("v5", [False, True])
def test_persistent_session_queues_while_away(sides, v5):
    def script(side):
        def away():
            return user(side, "tele", "sleeper", clean=False, v5=v5)

        c = away()
        first = c.flags
        c.subscribe("tele/s/#", 1)
        c.close()
        with user(side, "tele", "waker") as p:
            for i in range(50):
                p.publish("tele/s/x", f"{i}", i % 3)
            c = away()
            again = c.flags
            got = views(c)
            p.publish("tele/s/x", "live", 1)
            got += views(c)
            c.mqtt.unsubscribe("tele/s/#")
            time.sleep(0.1)
            p.publish("tele/s/x", "unheard", 1)
            got += views(c)
            c.close()
        user(side, "tele", "sleeper", clean=True).close()
        return first, again, got

    _, _, got = same(sides, script)
    assert len(got) == 34 and got[-1][1] == b"live"  # QoS 0 is not queued


def test_shared_subscriptions_share(sides):
    def script(side):
        members = [user(side, "tele", f"share{i}") for i in range(3)]
        for c in members:
            c.subscribe("$share/g/tele/job")
        with user(side, "tele", "boss") as boss:
            for i in range(30):
                boss.publish("tele/job", f"{i}")
        got = [[m.payload for m in c.all("")] for c in members]
        for c in members:
            c.close()
        return sorted(len(g) for g in got), sorted(x for g in got for x in g)

    assert same(sides, script)[0] == [10, 10, 10]


@pytest.mark.parametrize("v5", [False, True])
def test_overlapping_subscriptions(sides, v5):
    def script(side):
        with user(side, None, "overlap", v5=v5) as c:
            for f, qos in (("open/#", 0), ("open/o", 1), ("open/+", 2)):
                c.subscribe(f, qos)
            for qos in (0, 1, 2):
                c.publish("open/o", "x", qos)
            return sorted(views(c))

    assert len(same(sides, script)) >= 3


def test_sys_topics(sides):
    def script(side):
        with user(side, None, "sys") as c:
            c.subscribe("$SYS/broker/#")
            seen = {}
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline and "$SYS/broker/uptime" not in seen:
                seen.update({m.topic: re.sub(rb"-?[0-9.]+", b"N", m.payload) for m in c.all("$SYS", 0.3)})
            return {t: p for t, p in seen.items() if "/load/" not in t}

    seen = same(sides, script)
    assert b"mosquitto version" in seen["$SYS/broker/version"] and "$SYS/broker/clients/connected" in seen


# ---- MQTT 5

def test_v5_properties_travel(sides):
    def script(side):
        with user(side, "tele", "p5", v5=True) as p, user(side, None, "s5", v5=True) as s, user(side, None, "s3") as old:
            s.mqtt.subscribe("open/p", options=SubscribeOptions(qos=1), properties=props(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7))
            s.subacks.get(timeout=5)
            old.subscribe("open/p")
            sent = props(PacketTypes.PUBLISH, ResponseTopic="open/answer", CorrelationData=b"\0\1", ContentType="text/x", PayloadFormatIndicator=1,
                         MessageExpiryInterval=60)
            sent.UserProperty = [("a", "1"), ("a", "2"), ("im-id", "not ours")]
            p.publish("open/p", "x", 1, properties=sent)
            return views(s), views(old)

    new, old = same(sides, script)
    assert "not ours" in new[0][4] and "open/answer" in new[0][4] and len(old) == 1


def test_v5_request_and_response(sides):
    def script(side):
        with user(side, "tele", "asker", v5=True) as asker, user(side, None, "answerer", v5=True) as answerer:
            answerer.subscribe("open/ask")
            asker.subscribe("open/reply")
            asker.publish("open/ask", "?", 1, properties=props(PacketTypes.PUBLISH, ResponseTopic="open/reply", CorrelationData=b"c"))
            m = answerer.next("open/ask")
            answerer.publish(m.properties.ResponseTopic, "!", 1, properties=props(PacketTypes.PUBLISH, CorrelationData=m.properties.CorrelationData))
            return views(asker)

    assert same(sides, script)[0][1] == b"!"


def test_v5_expired_message_is_not_delivered(sides):
    def script(side):
        c = user(side, "tele", "expiry", clean=False, v5=True)
        c.subscribe("tele/e", 1)
        c.close()
        with user(side, "tele", "expiry-pub", v5=True) as p:
            p.publish("tele/e", "short", 1, properties=props(PacketTypes.PUBLISH, MessageExpiryInterval=1))
            p.publish("tele/e", "long", 1)
        time.sleep(2.1)
        c = user(side, "tele", "expiry", clean=False, v5=True)
        got = views(c)
        c.close()
        user(side, "tele", "expiry", clean=True).close()
        return got

    assert [x[1] for x in same(sides, script)] == [b"long"]


def test_v5_topic_alias(sides):
    def script(side):
        with user(side, "tele", "alias", v5=True) as p, user(side, None, "alias-sub", v5=True) as s:
            s.subscribe("open/#")
            for topic in ("open/alias", "", ""):
                p.mqtt.publish(topic, "x", 1, properties=props(PacketTypes.PUBLISH, TopicAlias=3))
            return views(s, quiet=0.8)

    assert [x[0] for x in same(sides, script)] == ["open/alias"] * 3


@pytest.mark.parametrize("option", [dict(noLocal=True), dict(retainAsPublished=True), dict(retainHandling=2), dict(retainHandling=1)])
def test_v5_subscription_options(sides, option):
    def script(side):
        with user(side, "tele", "opt-pub", v5=True) as p, user(side, None, "opt", v5=True) as c:
            p.publish("open/opt", "kept", 1, retain=True)
            for _ in range(2):
                c.mqtt.subscribe("open/opt", options=SubscribeOptions(qos=1, **option))
                c.subacks.get(timeout=5)
            c.publish("open/opt", "own", 1)
            p.publish("open/opt", "other", 1, retain=True)
            got = views(c)
            p.publish("open/opt", "", 1, retain=True)
            return got

    assert b"other" in [x[1] for x in same(sides, script)]


def test_v5_will_delay_and_session_expiry(sides):
    def script(side):
        with user(side, "tele", "delay-watch", v5=True) as watch:
            watch.subscribe("open/delay")
            c = Client(side, None, raw_id="delayed", v5=True, clean=False)
            c.mqtt.will_set("open/delay", "late", 1, properties=props(PacketTypes.WILLMESSAGE, WillDelayInterval=1))
            c.connect()
            c.drop()
            early = views(watch, quiet=0.3)
            late = watch.next("open/delay", 5).payload
            user(side, None, "delayed", clean=True).close()
            return early, late

    assert same(sides, script) == ([], b"late")


# ---- the rest of the world

def test_websocket_clients(sides):
    def script(side):
        with user(side, "tele", "ws", websocket=True) as c:
            c.subscribe("tele/ws")
            c.publish("tele/ws", "over ws", 2)
            return views(c)

    assert same(sides, script)[0][1] == b"over ws"


BRIDGES = [("side", "bridge/out/x", "hub", "from-side/out/x"), ("hub", "to-side/in/x", "side", "bridge/in/x"),
           ("side", "bridge/pull/x", "hub", "pulled/pull/x"), ("hub", "pushed/push/x", "side", "bridge/push/x")]


@pytest.mark.parametrize("from_, sent, to, received", BRIDGES)
def test_bridges_both_ways(sides, from_, sent, to, received):
    def script(side):
        ends = {"side": user(side, "hub", "bridge-side"), "hub": user(side.hub, None, "bridge-hub")}
        try:
            ends[to].subscribe(received, 1)
            deadline = time.monotonic() + 10
            while True:  # the bridge may still be connecting
                try:
                    ends[from_].publish(sent, "over", 1)
                    return view(ends[to].next(received, 0.5))
                except Timeout:
                    assert time.monotonic() < deadline, f"nothing came over the bridge, {side.name}\n{side.logs()}"
        finally:
            for c in ends.values():
                c.close()

    assert same(sides, script)[:2] == (received, b"over")


def test_many_at_once_arrive_in_order(sides):
    def script(side):
        sender = Client(side, "tele", raw_id="burst")
        sender.mqtt.max_inflight_messages_set(100)  # before connecting: Paho 2 refuses it later
        with sender as p, user(side, "reader", "burst-sub") as s:
            s.subscribe("tele/burst", 1)
            infos = [p.mqtt.publish("tele/burst", f"{i}", 1) for i in range(3000)]
            infos[-1].wait_for_publish(20)
            return [m.payload for m in s.all("tele/burst", 0.6)]

    assert same(sides, script) == [str(i).encode() for i in range(3000)]


# ---- reload and restart, last: they change both sides

def test_reload_keeps_connections_and_brings_new_rights(sides):
    def script(side):
        seen = []
        with user(side, "tele", "hup") as tele, user(side, None, "hup-anon") as anon:
            anon.subscribe("open/#")
            tele.subscribe("late/#")
            tele.publish("open/hup", "before")
            (side.dir / "acl").write_text(ACL.replace("user reader", "topic readwrite late/#\n\nuser reader"))
            os.kill(side.broker_pid(), signal.SIGHUP)
            deadline = time.monotonic() + 10
            while True:  # until the new right is there
                with Raw(side.port, "tele", "probe", side.users["tele"], v5=True) as c:
                    if c.publish("late/x", "x") == 0:
                        break
                assert time.monotonic() < deadline, side.logs()
                time.sleep(0.1)
            tele.publish("open/hup", "after")
            tele.publish("late/x", "late")
            tele.publish("none/x", "still denied")
            seen += [sorted(views(anon)), sorted({v[:4] for v in views(tele)})]
            seen.append((tele.disconnects.qsize(), anon.disconnects.qsize()))
        return seen

    seen = same(sides, script)
    assert [x[1] for x in seen[0]] == [b"after", b"before"] and seen[2] == (0, 0)


def test_restart_keeps_retained_and_queued(sides):
    def prepare(side):
        c = user(side, "tele", "kept", clean=False)
        c.subscribe("tele/k/#", 2)
        c.close()
        with user(side, "tele", "kept-pub") as p:
            p.publish("tele/k/1", "retained", 1, retain=True)
            for i in range(5):
                p.publish("tele/k/q", f"{i}", 2)

    def script(side):
        wait_for_port(side)
        c = user(side, "tele", "kept", clean=False)
        got = c.flags, views(c)
        c.close()
        with user(side, "reader", "kept-new") as new:
            new.subscribe("tele/k/#")
            return got, views(new)

    for side in sides:
        prepare(side)
        side.restart()
    (flags, queued), new = same(sides, script)
    assert len(queued) == 6 and len(new) == 1


def test_anonymous_no_longer_allowed_after_a_restart(sides):
    for side in sides:
        conf = sides.plugged.dir / "broker.conf"
        if side is sides.plugged:
            conf.write_text(conf.read_text().replace("allow_anonymous true", "allow_anonymous false"))
        side.restart()

    def script(side):
        wait_for_port(side)
        seen = []
        for name, password in LOGINS:
            with Raw(side.port, name, "login2", password) as c:
                seen.append((name, password, c.rc))
        return seen

    assert (None, None, 0) not in same(sides, script)
