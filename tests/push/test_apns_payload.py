"""What the phone gets, rows 23 and 24 of the fault table: always JSON, never above the limit, the ids always whole."""
import json
import time
import unicodedata

import pytest

LIMIT = 4096


def sent(drive, standin, **fields):
    assert drive.ask(**fields)["class"] == "accepted"
    return standin.requests[-1]


def test_message(drive, standin):
    r = sent(drive, standin, title="Alice", subtitle="friends", body="hello", badge=3, conv="g/friends", seq=7, msgid="m1", type="text/plain",
             **{"from": "alice"})
    assert r.json == {
        "aps": {"alert": {"title": "Alice", "subtitle": "friends", "body": "hello"}, "badge": 3, "sound": "default",
                "thread-id": "fedcba9876543210fedcba9876543210", "mutable-content": 1},
        "im": {"conv": "g/friends", "seq": 7, "msgid": "m1", "from": "alice", "type": "text/plain"}}
    assert (r["apns-push-type"], r["apns-priority"], r["apns-topic"]) == ("alert", "10", "com.example.chat")
    assert r["apns-collapse-id"] == "0123456789abcdef0123456789abcdef"
    assert abs(int(r["apns-expiration"]) - time.time() - 3600) < 60
    assert {n for n, _ in r.raw} == {":method", ":scheme", ":authority", ":path", "authorization", "apns-topic", "apns-push-type", "apns-priority",
                                     "apns-expiration", "apns-id", "apns-collapse-id", "content-type"}


def test_what_is_withheld_is_a_general_text(drive, standin):
    r = sent(drive, standin, title="", body="", language="de-AT", conv="u/bob", msgid="m1")
    assert r.json["aps"]["alert"] == {"body": "Neue Nachricht"}
    r = sent(drive, standin, title="Alice", body="")
    assert r.json["aps"]["alert"] == {"title": "Alice", "body": "New message"}


def test_localized_key_and_sound_of_the_app(drive, standin, keys):
    drive.app(**keys, endpoint=f"https://localhost:{standin.port}", loc_key="NEW_MESSAGE", sound="none")
    drive.start("reload")
    aps = sent(drive, standin, title="", body="").json["aps"]
    assert aps["alert"] == {"loc-key": "NEW_MESSAGE"} and "sound" not in aps


def test_minimal_says_ids_only(drive, standin):
    r = sent(drive, standin, minimal=True, title="Alice", body="x" * 5000, conv="u/alice", msgid="m1", seq=9, **{"from": "alice"})
    assert r.json["aps"]["alert"] == {"body": "New message"}
    assert r.json["im"] == {"conv": "u/alice", "msgid": "m1", "seq": 9}


def test_badge_alone_and_background(drive, standin):
    r = sent(drive, standin, kind=1, badge=0)
    assert r.json == {"aps": {"badge": 0}} and (r["apns-push-type"], r["apns-priority"]) == ("alert", "5")
    r = sent(drive, standin, kind=1)
    assert r.json["aps"] == {"content-available": 1} and (r["apns-push-type"], r["apns-priority"]) == ("background", "5")


def test_silent_has_no_sound(drive, standin):
    assert "sound" not in sent(drive, standin, silent=True).json["aps"]


@pytest.mark.parametrize("deadline_s, expected", [(-5, 0), (60, 60), (90 * 86400, 30 * 86400)])
def test_expiration(drive, standin, deadline_s, expected):
    r = sent(drive, standin, deadline_ms=int((time.time() + deadline_s) * 1000))
    at = int(r["apns-expiration"])
    assert at == 0 if expected == 0 else abs(at - time.time() - expected) < 30


def body_room(drive, standin):
    """How long an ASCII body may be before it is cut."""
    return LIMIT - len(sent(drive, standin, body="x").body) + 1


def test_exactly_at_the_limit(drive, standin):
    room = body_room(drive, standin)
    for extra, cut in ((-1, False), (0, False), (1, True), (5000, True)):
        r = sent(drive, standin, body="y" * (room + extra))
        body = r.json["aps"]["alert"]["body"]
        assert len(r.body) == LIMIT + min(extra, 0)
        assert body.endswith("\u2026") == cut


@pytest.mark.parametrize("char", ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301", "\u05d0", "\U0001f1e9\U0001f1ea", "\n", "\"", "\u0001", "\\", "中"])
def test_cut_between_characters(drive, standin, char):
    room = body_room(drive, standin)
    for pad in range(4):
        r = sent(drive, standin, body="a" * pad + char * room)
        body = r.json["aps"]["alert"]["body"]
        assert LIMIT - 40 <= len(r.body) <= LIMIT
        assert body.endswith("\u2026")
        whole = body[pad:-1]
        assert len(whole) % len(char) == 0 and whole == char * (len(whole) // len(char))
        assert not unicodedata.combining(body[-1])


@pytest.mark.parametrize("data, text", [
    (b"a\xffb", "a\ufffdb"), (b"\xed\xa0\x80", "\ufffd" * 3), (b"\xf0\x9f\x98", "\ufffd" * 3), (b"\xc0\x80", "\ufffd" * 2), (b"\x80" * 5000, None),
], ids=["a stray byte", "a surrogate", "half an emoji", "overlong", "nothing but"])
def test_bytes_that_are_no_text(drive, standin, data, text):
    r = sent(drive, standin, body_hex=data.hex())
    body = r.json["aps"]["alert"]["body"]
    assert len(r.body) <= LIMIT
    assert body == text if text else set(body) == {"\ufffd", "\u2026"}


def test_long_titles_leave_room_for_the_body(drive, standin):
    r = sent(drive, standin, title="t" * 3000, subtitle="\U0001f600" * 1000, body="b" * 5000, conv="g/" + "c" * 60, msgid="m" * 26)
    alert = r.json["aps"]["alert"]
    assert len(r.body) <= LIMIT and len(alert["body"]) > 3000 and alert["title"].endswith("\u2026")
    assert r.json["im"]["msgid"] == "m" * 26


@pytest.mark.parametrize("collapse, cls", [("ab" * 16, "accepted"), ("x\r\nevil: 1", "bug"), ("zz", "bug")])
def test_collapse_id(drive, standin, collapse, cls):
    assert drive.ask(collapse=collapse)["class"] == cls


@pytest.mark.parametrize("token", ["00\r\nevil: 1", "00/../../4", "", "0" * 31, "0" * 33, "0" * 202, "zz" * 32, "00" * 16 + "\u00e9\u00e9"])
def test_token_that_would_not_be_a_token(drive, standin, token):
    assert drive.ask(token=token)["class"] == "bug"
    assert not standin.requests
    assert drive.ask()["class"] == "accepted"


@pytest.mark.parametrize("token", ["0" * 32, "aB" * 100])
def test_tokens_of_any_length(drive, standin, token):
    assert sent(drive, standin, token=token)[":path"] == "/3/device/" + token


def test_everything_is_json(drive, standin):
    for text in ("", " ", "\u202egnp.exe", "".join(map(chr, range(1, 32))), "\ufffe\uffff", "</script>", "\x7f"):
        assert json.loads(sent(drive, standin, title=text, body=text, conv=text).body)["aps"]
