"""Who somebody is (reliability table 3.1). Each test says in its first line what the attacker does and in its second what comes back."""
import json
import uuid

import pytest

from client import Client
from raw import AUTH, BYE, CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, SUBACK, Attacker, connack, connack_of_password, connect, login, packet, properties, publish, subscribe

REFUSED = {False: 5, True: 0x87}  # CONNACK "not authorized" of 3.1.1 and of 5


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("v5", [False, True])
def test_i1_client_id_of_somebody_else(im, v5, clean):
    """CONNECT with bob's client id and alice's good token, while bob is connected.

    CONNACK "not authorized"; bob stays connected and subscribed."""
    with login(im, "bob", "desk") as bob:
        bob.send(subscribe("im/v1/in/#")).until(SUBACK)
        assert connack(im, connect("bob:desk", "alice", im.users["alice"], v5=v5, clean=clean)) == REFUSED[v5]
        bob.send(packet(PINGREQ, 0))
        assert bob.until(PINGRESP) == b""
        bob.send(publish("im/v1/req/me/r1")).until(PUBACK)
        assert any(topic == "im/v1/in/res/r1" for topic, _ in bob.deliveries(0.3))


@pytest.mark.parametrize("v5", [False, True])
def test_i1_client_id_of_somebody_who_is_away(im, v5):
    """Bob leaves a stored session under an id without a name; alice CONNECTs with that id.

    "Not authorized", with a clean session as well; bob's session is still there."""
    with login(im, "bob", raw_id="shared-id", v5=v5, clean=False, props=properties(session_expiry=3600)) as bob:
        bob.send(subscribe("im/v1/in/#", v5=v5)).until(SUBACK)
        bob.leave()
    for clean in (False, True):
        for other in (False, True):
            assert connack(im, connect("shared-id", "alice", im.users["alice"], clean=clean, v5=other)) == REFUSED[other]
    with login(im, "bob", raw_id="shared-id", v5=v5, clean=False, props=properties(session_expiry=3600)) as bob:
        assert bob.present
    login(im, "bob", raw_id="shared-id", v5=v5).leave()


def test_i1_two_logins_of_different_users_at_the_same_moment(im):
    """CONNECTs of alice and bob with the same fresh id, in one write each, a hundred times.

    One of them is refused or both have had it one after the other; never does one get the other's session."""
    for i in range(100):
        with Attacker(im) as a, Attacker(im) as b:
            a.send(connect(f"race{i}", "alice", im.users["alice"], clean=False) + subscribe("im/v1/in/#"))
            b.send(connect(f"race{i}", "bob", im.users["bob"], clean=False))
            got = [r.until(CONNACK) for r in (a, b)]
            assert sorted(g[1] for g in got) == [0, 5] and all(g[0] == 0 for g in got), got
        winner = ("alice", "bob")[got[1][1] == 0]
        connack(im, connect(f"race{i}", winner, im.users[winner]) + BYE)


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("user", [None, "", "Alice", "alice ", "alice\u200b", "\u0430lice", "$im", "all", "me", "system", "../alice", "alice/#", "+", "#",
                                  "alice\u202e", "al\u0131ce", "a" * 65, "a" * 60000])
def test_i2_i4_names_that_look_like_a_user(im, user, v5):
    """CONNECT as nobody, or with a name that looks like alice's, and her token.

    CONNACK "not authorized", never 0."""
    token = im.users["alice"] if user is not None else None
    assert connack(im, connect("dev" + uuid.uuid4().hex[:8], user, token, v5=v5)) in (REFUSED[v5], None)


def test_i2_password_without_a_name_and_empty_ids(im):
    """CONNECT of 3.1.1 with a password and no user name; with no client id at all, clean and not; with a good token.

    The first is a protocol error; without an id one gets a fresh one or is refused, never one of somebody."""
    assert connack(im, connect("x", None, im.users["alice"])) is None
    assert connack(im, connect("", "alice", im.users["alice"], clean=False)) == 2
    with login(im, raw_id=None, device="known"):
        assert connack(im, connect("", "alice", im.users["alice"], v5=True)) == 0


@pytest.mark.parametrize("client_id", ["a/b", "a+b", "a#b", "x" * 129, "x" * 1000, "alice:", "alice:a b", "$im-offline", "$im-anything", "ALICE:x/",
                                       "b\u00f6b", "\u202ebob", "bob\u200b:x", "system:x/y", "bob:x", "bob:", ":", "dave:alice:x"])
def test_i3_client_ids_that_are_not_hers(im, client_id):
    """CONNECT with a good token and such a client id.

    "Not authorized" for what belongs to somebody or could be mistaken for something else; the rest is her own."""
    code = connack(im, connect(client_id, "alice", im.users["alice"]))
    printable = all(0x20 <= ord(c) <= 0x7e and c not in "/+#" for c in client_id) and len(client_id) <= 128
    somebody = client_id.startswith("$im-") or client_id in ("bob:x",)
    assert code == (0 if printable and not somebody else 5)


@pytest.mark.parametrize("raw", [b"a\x00b", b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbf\xbf", b"a\x01b", b"\xf4\x90\x80\x80"])
def test_i3_bytes_that_are_no_text(im, raw):
    """CONNECT with such bytes as client id or user name, PUBLISH and SUBSCRIBE with them as topic.

    Closed or refused; nobody is somebody else by them."""
    assert connack(im, connect(raw, "alice", im.users["alice"])) != 0
    assert connack(im, connect("x", b"alice" + raw, im.users["alice"])) != 0
    for data in (publish(b"im/v1/to/u/" + raw, "x"), subscribe(b"im/v1/in/" + raw)):
        with login(im) as r:
            body = r.send(data).until(PUBACK if data[0] >> 4 == 3 else SUBACK)
            assert body is None or len(body) == 2 or body[-1] == 0x80 or body[-1] == 1  # 3.1.1: refused, or only odd to look at


@pytest.mark.parametrize("props", [properties(user=[("im-from", "bob"), ("from", "bob"), ("im-seq", "1"), ("im-ts", "1"), ("im-conv", "u/bob")]), b""])
def test_i5_a_sender_cannot_say_who_they_are(im, props):
    """PUBLISH with "from" (or seq, ts, conv, msgid) in the envelope, and with user properties that claim to be bob.

    The fields are refused; the properties are ignored, and carol sees alice."""
    with login(im, v5=True) as r, Client(im, "carol", "witness", v5=True) as carol:
        carol.subscribe("im/v1/in/#")
        for mid, claim in enumerate(('"from":"bob"', '"seq":1', '"ts":1', '"conv":"u/bob"', '"msgid":"0"', '"prev":0', '"sender":"bob"'), 1):
            r.send(publish("im/v1/send", '{"to":"u/carol","body":"x",%s}' % claim, mid=mid, v5=True, props=props))
            assert r.code(PUBACK) == 0x87, claim
        mine = uuid.uuid4().hex
        r.send(publish("im/v1/to/u/carol", mine, v5=True, props=props, mid=20)).until(PUBACK)
        while True:
            got = carol.next("im/v1/in/msg/u/")
            m = json.loads(got.payload)
            assert m["from"] == "alice" and m["conv"] == "u/alice" and m["ts"] > 1
            stamped = dict(got.properties.UserProperty)
            assert stamped["im-from"] == "alice" and stamped["im-conv"] == "u/alice" and len(got.properties.UserProperty) == len(stamped)
            if m["body"] == mine:
                break


def test_i5_one_cannot_send_to_or_from_a_strange_conversation(im, witness):
    """PUBLISH to the two-sided name of bob's and carol's conversation, in topics, envelopes, acks, signals and requests.

    Refused; bob gets nothing and reads on."""
    names = ("u/bob:carol", "u/carol:bob", "u/bob/carol", "bob:carol")
    with login(im, v5=True) as r:
        for name in names:
            for topic, body in ((f"im/v1/to/{name}", "x"), ("im/v1/send", json.dumps({"to": name, "body": "x"})), (f"im/v1/sig/{name}", "x"),
                                ("im/v1/ack", json.dumps([{"conv": name, "read": 1}]))):
                if topic == "im/v1/to/u/bob/carol":
                    continue  # that is bob, and a message id
                assert r.send(publish(topic, body, v5=True)).code(PUBACK) == 0x87, (topic, body)
        r.send(subscribe("im/v1/in/#", v5=True)).until(SUBACK)
        for i, name in enumerate(names):
            r.send(publish(f"im/v1/req/history/r{i}", json.dumps({"conv": name}), v5=True)).until(PUBACK)
        answers = {t: json.loads(p[p.index(b"{"):]) for t, p in r.deliveries(0.5) if "/res/" in t}
        assert len(answers) == len(names) and not any(a["ok"] for a in answers.values()), answers
    witness.none("im/v1/in/msg/", 0.2)


def test_i6_a_password_with_a_nul_byte(im):
    """CONNECT with a good token and a tail behind a NUL byte.

    mosquitto 2.0 hands the plugin a C string, so the tail is cut: it is the same token. Never another user's."""
    assert connack(im, connect("alice:nul", "alice", im.users["alice"].encode() + b"\0tail")) in (0, 5, None)
    assert connack(im, connect("alice:nul", "alice", b"\0" + im.users["alice"].encode())) != 0
    assert connack(im, connect("bob:nul", "bob", im.users["alice"].encode() + b"\0" + im.users["bob"].encode())) != 0


def test_i7_enhanced_authentication(im):
    """CONNECT of MQTT 5 with an authentication method; an AUTH packet before and after a good login.

    CONNACK "bad authentication method", or closed; never let in."""
    props = properties(auth_method="SCRAM-SHA-1")
    assert connack(im, connect("alice:x", "alice", im.users["alice"], v5=True, props=props)) == 0x8c
    auth = packet(AUTH, 0, b"\x19", b"\x0e" + props)
    with Attacker(im) as r:
        assert r.send(auth).closed()
    with login(im, v5=True) as r:
        body = r.send(auth).until(DISCONNECT)
        assert body is None or body[0] >= 0x80
        assert r.closed()


def test_i8_a_changed_password_and_a_revoked_token(im):
    """Logged in with a password, which is then changed; with a token, which is then revoked: the old ones are tried again.

    The connections end, stored sessions are of no use, and nobody gets in with the old ones."""
    im.imctl("user", "add", "erin", stdin="old secret\n")
    im.users["erin"] = im.tokens(["erin"])["erin"]
    with Attacker(im) as by_password, login(im, "erin", "t") as by_token:
        by_password.send(connect("erin:p", "erin", "old secret", clean=False)).until(CONNACK)
        im.imctl("user", "password", "erin", stdin="new secret\n")
        assert by_password.closed() and by_token.closed()
    assert connack_of_password(im, connect("erin:p", "erin", "old secret", clean=False)) == 5
    with login(im, "erin", "t") as by_token:  # tokens are a credential of their own
        im.imctl("token", "revoke", "erin")
        assert by_token.closed()
    assert connack_of_password(im, connect("erin:t", "erin", im.users["erin"])) == 5


def test_i8_a_second_connect_on_a_connection(im):
    """CONNECT as alice, then CONNECT as bob on the same socket.

    Closed; nobody is bob."""
    with login(im) as r:
        r.send(connect("bob:x", "bob", im.users["bob"]))
        assert r.until(CONNACK) is None
