"""services/vendor-bridge against stand-ins written from the vendors' documents: how each is logged in to, what a request says, what each code leads to."""
import hashlib
import json
import pathlib
import time

import certs
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from drive import until
from http_standin import Standin

CODES = json.loads((pathlib.Path(__file__).resolve().parents[2] / "services/vendor-bridge/codes.json").read_text())
CLASSES = {"ok": "accepted", "token": "token_invalid", "auth": "auth", "rate": "rate", "quota_day": "quota", "config": "config", "content": "content",
           "bug": "bug", "retry": "retry", "minimal": "too_large"}
TOKEN = "vendor-device-token-0123456789"
MESSAGE = dict(token=TOKEN, title="Bob", body="hello", conv="u/bob", msgid="m1", seq=18, badge=120)


def secret(tmp_path, name, text):
    certs.write_secret(tmp_path / name, text.encode() if isinstance(text, str) else text)
    return tmp_path / name


class Huawei:
    name, send, auth = "huawei", "/v1/100123/messages:send", "/oauth2/v3/token"

    @staticmethod
    def keys(tmp_path, url):
        return dict(client_id="100123", client_secret_file=secret(tmp_path, "secret", "s3cret&=\n"), endpoint=url, auth_endpoint=url + "/", badge_class="com.example.Main")

    @staticmethod
    def token(request):
        assert request.form == {"grant_type": "client_credentials", "client_id": "100123", "client_secret": "s3cret&="}
        return 200, {}, {"access_token": "CV0\\/x", "expires_in": 3600}

    @staticmethod
    def answer(code):
        return 200, {}, {"code": code, "msg": "x", "requestId": "r1"}

    @staticmethod
    def check(request):
        assert request.headers["authorization"] == "Bearer CV0\\/x"
        m = request.json["message"]
        assert m["token"] == [TOKEN] and m["android"]["category"] == "IM" and m["android"]["ttl"].endswith("s")
        n = m["android"]["notification"]
        assert (n["title"], n["body"], n["badge"]) == ("Bob", "hello", {"set_num": 99, "class": "com.example.Main"}) and 0 < n["notify_id"] < 2**31
        assert json.loads(m["data"])["conv"] == "u/bob"


class Harmony:
    name, send, auth = "harmony", "/v3/388421/messages:send", None
    key = rsa.generate_private_key(65537, 2048)

    @staticmethod
    def keys(tmp_path, url):
        pem = Harmony.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        account = {"project_id": "388421", "key_id": "kid1", "private_key": pem, "sub_account": "1012345"}
        return dict(service_account_file=secret(tmp_path, "account.json", json.dumps(account)), endpoint=url)

    @staticmethod
    def answer(code):
        if code.startswith("cause."):
            return 200, {}, {"code": "80300007", "msg": json.dumps({"illegalTokens": {code[6:]: [TOKEN]}})}
        return Huawei.answer(code)

    @staticmethod
    def check(request):
        token = request.headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, Harmony.key.public_key(), algorithms=["PS256"], audience="https://oauth-login.cloud.huawei.com/oauth2/v3/token")
        assert claims["iss"] == "1012345" and claims["exp"] - claims["iat"] == 3600 and jwt.get_unverified_header(token)["kid"] == "kid1"
        assert request.headers["push-type"] == "0"
        m = request.json
        n = m["payload"]["notification"]
        assert m["target"]["token"] == [TOKEN] and (n["category"], n["title"], n["body"], n["badge"]) == ("IM", "Bob", "hello", {"setNum": 99})
        assert n["clickAction"]["data"]["conv"] == "u/bob" and m["pushOptions"]["ttl"] > 0


class Xiaomi:
    name, send, auth = "xiaomi", "/v3/message/regid", None

    @staticmethod
    def keys(tmp_path, url):
        return dict(app_secret_file=secret(tmp_path, "secret", "abc==\n"), package="com.example", channel_id="138910", endpoint=url)

    @staticmethod
    def answer(code):
        return 200, {}, {"result": "ok" if code == "0" else "error", "code": int(code), "data": {"id": "x1"}}

    @staticmethod
    def check(request):
        assert request.headers["authorization"] == "key=abc=="
        f = request.form
        assert (f["registration_id"], f["title"], f["description"], f["pass_through"]) == (TOKEN, "Bob", "hello", "0")
        assert f["extra.channel_id"] == "138910" and f["restricted_package_name"] == "com.example" and 1000 <= int(f["time_to_live"]) <= 14 * 86400 * 1000


class Oppo:
    name, send, auth = "oppo", "/server/v1/message/notification/unicast", "/server/v1/auth"

    @staticmethod
    def keys(tmp_path, url):
        return dict(app_key="appkey1", master_secret_file=secret(tmp_path, "secret", "master"), channel_id="im", endpoint=url)

    @staticmethod
    def token(request):
        f = request.form
        assert abs(int(f["timestamp"]) - time.time() * 1000) < 60000
        assert f["sign"] == hashlib.sha256(f"appkey1{f['timestamp']}master".encode()).hexdigest()
        return 200, {}, {"code": 0, "message": "success", "data": {"auth_token": "oppo-token", "create_time": 1}}

    @staticmethod
    def answer(code):
        return 200, {}, {"code": int(code), "message": "x", "data": {"messageId": "o1"}}

    @staticmethod
    def check(request):
        f = request.form
        m = json.loads(f["message"])
        n = m["notification"]
        assert f["auth_token"] == "oppo-token" and (m["target_type"], m["target_value"]) == (2, TOKEN)
        assert (n["title"], n["content"], n["category"], n["channel_id"], n["notify_level"]) == ("Bob", "hello", "IM", "im", 16)
        assert json.loads(n["action_parameters"])["conv"] == "u/bob" and n["app_message_id"]


class Vivo:
    name, send, auth = "vivo", "/message/send", "/message/auth"

    @staticmethod
    def keys(tmp_path, url):
        return dict(app_id="10004", app_key="key1", app_secret_file=secret(tmp_path, "secret", "sec"), endpoint=url)

    @staticmethod
    def token(request):
        m = request.json
        assert m["sign"] == hashlib.md5(f"10004key1{m['timestamp']}sec".encode()).hexdigest() and m["appId"] == 10004
        return 200, {}, {"result": 0, "desc": "ok", "authToken": "vivo-token"}

    @staticmethod
    def answer(code):
        return 200, {}, {"result": int(code), "desc": "x", "taskId": "v1"}

    @staticmethod
    def check(request):
        m = request.json
        assert request.headers["authtoken"] == "vivo-token" and m["regId"] == TOKEN and (m["title"], m["content"]) == ("Bob", "hello")
        assert (m["classification"], m["category"], m["pushMode"]) == (1, "IM", 0) and m["timeToLive"] >= 60 and len(m["requestId"]) <= 64
        assert all(isinstance(v, str) for v in m["clientCustomMap"].values()) and m["clientCustomMap"]["seq"] == "18"


class Honor:
    name, send, auth = "honor", "/api/v1/9001/sendMessage", "/auth/token"

    @staticmethod
    def keys(tmp_path, url):
        return dict(app_id="9001", client_id="c1", client_secret_file=secret(tmp_path, "secret", "hs"), endpoint=url, auth_endpoint=url)

    @staticmethod
    def token(request):
        assert request.form == {"grant_type": "client_credentials", "client_id": "c1", "client_secret": "hs"}
        return 200, {}, {"access_token": "honor-token", "expires_in": 3600}

    @staticmethod
    def answer(code):
        return 200, {}, {"code": int(code), "message": "x", "data": {"sendResult": code == "200", "requestId": "h1"}}

    @staticmethod
    def check(request):
        assert request.headers["authorization"] == "Bearer honor-token" and abs(int(request.headers["timestamp"]) - time.time() * 1000) < 60000
        m = request.json
        assert m["token"] == [TOKEN] and m["android"]["notification"]["importance"] == "NORMAL" and m["notification"] == {"title": "Bob", "body": "hello"}


VENDORS = [Huawei, Harmony, Xiaomi, Oppo, Vivo, Honor]


@pytest.fixture(params=VENDORS, ids=lambda v: v.name)
def vendor(request, place, make, tmp_path):
    """The stand-in, and the driver started on it; failures of its checks fail the test."""
    v = request.param
    with Standin(place.server) as s:
        wrong = []

        def token(r):
            s.tokens += 1
            try:
                return v.token(r)
            except AssertionError as e:
                wrong.append(e)
                return 400, {}, {}
        s.vendor, s.tokens = v, 0
        if v.auth:
            s.route(v.auth, token)
        s.route(v.send, v.answer(next(c for c, k in CODES[v.name].items() if k == "ok")))
        s.keys = dict(v.keys(tmp_path, s.url), ca_file=place.ca_file)
        s.drive = make(v.name)
        s.drive.app(**s.keys)
        e = s.drive.start()
        assert e["event"] == "started", e
        until(lambda: s.drive.room() > 0)
        yield s
        assert not wrong, wrong


def test_a_request_is_what_the_vendor_wants(vendor):
    results = vendor.drive.sends(5, **MESSAGE)
    assert {r["class"] for r in results} == {"accepted"}
    vendor.vendor.check(vendor.next(vendor.vendor.send))
    assert vendor.tokens == (1 if vendor.vendor.auth else 0)


def test_every_code_of_the_table_has_its_reaction(vendor):
    v = vendor.vendor
    auth = [c for c, k in CODES[v.name].items() if k == "auth"]
    for code, kind in CODES[v.name].items():
        if code in auth:
            continue
        vendor.route(v.send, v.answer(code))
        r = vendor.drive.ask(**MESSAGE)
        assert (r["class"], kind != "ok" or r["id"] != "") == (CLASSES[kind], True), (code, r)
        assert r["reason"] == code
    for code in auth[:1]:
        vendor.route(v.send, v.answer(code))
        assert vendor.drive.ask(**MESSAGE)["class"] == "auth"


@pytest.mark.parametrize("answer, kind", [
    ((200, {}, b"not json"), "retry"), ((200, {}, {"unknown": 1}), "retry"), ((500, {}, b""), "retry"), ((503, {"retry-after": "7"}, b""), "rate"),
    ((403, {}, b""), "config"), ((404, {}, b""), "config"), ((400, {}, b""), "bug"), ((413, {}, b""), "too_large"), ((302, {}, b""), "retry"), (None, "unknown")])
def test_an_answer_without_a_code_is_judged_by_its_status_and_never_against_the_token(vendor, answer, kind):
    vendor.route(vendor.vendor.send, answer if answer else lambda r: None)
    r = vendor.drive.ask(**MESSAGE)
    assert r["class"] == kind, r
    if answer and answer[0] == 503:
        assert r["retry_after_ms"] == 7000


def test_a_code_nobody_knows_is_tried_again_and_counted(vendor):
    vendor.route(vendor.vendor.send, vendor.vendor.answer("77777"))
    r = vendor.drive.ask(**MESSAGE)
    assert (r["class"], r["reason"]) == ("retry", "77777")
    assert vendor.drive.gauge("push_unknown_code_total") == 1


def test_codes_can_be_replaced_by_a_file(vendor, tmp_path):
    (tmp_path / "codes.json").write_text(json.dumps({vendor.vendor.name: {"77777": "token"}}))
    vendor.drive.app(**vendor.keys, codes_file=tmp_path / "codes.json")
    assert vendor.drive.start("reload")["event"] == "reloaded"
    until(lambda: vendor.drive.room() > 0)
    vendor.route(vendor.vendor.send, vendor.vendor.answer("77777"))
    assert vendor.drive.ask(**MESSAGE)["class"] == "token_invalid"
    (tmp_path / "codes.json").write_text(json.dumps({vendor.vendor.name: {"77777": "nonsense"}}))
    e = vendor.drive.start("reload")
    assert e["event"] == "refused" and "no such class" in e["text"] and "codes_file" in e["text"]
    assert vendor.drive.ask(**MESSAGE)["class"] == "token_invalid"  # the old one stays in force


def test_a_used_up_day_lasts_until_the_next_one_in_shanghai(vendor):
    v = vendor.vendor
    code = next((c for c, k in CODES[v.name].items() if k == "quota_day"), None)
    if not code:
        pytest.skip("this vendor has no such code")
    vendor.route(v.send, v.answer(code))
    r = vendor.drive.ask(**MESSAGE)
    hold = time.gmtime(r["hold_until_ms"] / 1000)
    assert r["class"] == "quota" and (hold.tm_hour, hold.tm_min) == (16, 5) and 0 < r["hold_until_ms"] - time.time() * 1000 <= 86400000 + 300000


def test_text_is_cut_to_the_vendors_limits(vendor):
    assert vendor.drive.ask(**dict(MESSAGE, title="長い" * 200, body="é🎉" * 3000))["class"] == "accepted"
    assert len(vendor.next(vendor.vendor.send).body) < 12000


def test_no_secret_is_in_the_log(vendor):
    vendor.route(vendor.vendor.send, (500, {}, b""))
    vendor.drive.ask(**dict(MESSAGE, body="words of a person"))
    log = vendor.drive.log()
    for secret_ in (TOKEN, "words of a person", "s3cret", "abc==", "oppo-token", "vivo-token", "honor-token", "PRIVATE KEY"):
        assert secret_ not in log


@pytest.mark.parametrize("v", VENDORS, ids=lambda v: v.name)
def test_wrong_files_stop_the_start_with_a_sentence(place, make, tmp_path, v):
    """The secret's file: empty, for all to read, not there; an account that is none, or whose key is of another kind."""
    keys = v.keys(tmp_path, "https://localhost:1")
    name, path = next((k, p) for k, p in keys.items() if k in ("service_account_file", "client_secret_file", "app_secret_file", "master_secret_file"))

    def refused(says):
        d = make(v.name)
        d.app(**keys, ca_file=place.ca_file)
        e = d.start()
        assert e["event"] == "refused" and f"{v.name}.chat.conf:" in e["text"] and name in e["text"] and says in e["text"], e
    path.chmod(0o644)
    refused("chmod 600")
    if v is Harmony:
        account = json.loads(path.read_text())
        for changes, says in (({"key_id": None}, "lacks"), ({"private_key": certs.key_pem(certs.p256()).decode()}, "RSA"), ({"private_key": "x"}, "RSA")):
            certs.write_secret(path, json.dumps({**account, **changes}).encode())
            refused(says)
        certs.write_secret(path, b"{")
        refused("is not JSON")
    certs.write_secret(path, b"")
    refused("is empty")
    path.unlink()
    refused("cannot be opened")


def test_huawei_names_the_bad_token_in_a_string_of_json(place, make, tmp_path):
    with Standin(place.server) as s:
        s.route(Huawei.auth, Huawei.token)
        d = make("huawei")
        d.app(**Huawei.keys(tmp_path, s.url), ca_file=place.ca_file)
        d.start()
        until(lambda: d.room() > 0)
        for msg, kind in ((json.dumps({"success": 0, "failure": 1, "illegal_tokens": [TOKEN]}), "token_invalid"),
                          (json.dumps({"success": 1, "illegal_tokens": ["another"]}), "accepted"), ("{broken", "retry")):
            s.route(Huawei.send, (200, {}, {"code": "80100000", "msg": msg}))
            assert d.ask(**MESSAGE)["class"] == kind


def test_a_punished_app_costs_no_token(place, make, tmp_path):
    with Standin(place.server) as s:
        d = make("harmony")
        d.app(**Harmony.keys(tmp_path, s.url), ca_file=place.ca_file)
        d.start()
        until(lambda: d.room() > 0)
        for cause, kind in (("disableSendHuaweiMsgBecauseOfPenalty", "retry"), ("noRight", "config"), ("tokenFormatError", "token_invalid")):
            s.route(Harmony.send, (200, {}, {"code": "80300007", "msg": json.dumps({"illegalTokens": {cause: [TOKEN]}})}))
            assert d.ask(**MESSAGE)["class"] == kind, cause


def test_honor_lists_expired_tokens(place, make, tmp_path):
    with Standin(place.server) as s:
        s.route(Honor.auth, Honor.token)
        d = make("honor")
        d.app(**Honor.keys(tmp_path, s.url), ca_file=place.ca_file)
        d.start()
        until(lambda: d.room() > 0)
        for field, kind in (("expireTokens", "token_invalid"), ("failTokens", "retry")):
            s.route(Honor.send, (200, {}, {"code": 200, "data": {"sendResult": False, field: [TOKEN]}}))
            assert d.ask(**MESSAGE)["class"] == kind
