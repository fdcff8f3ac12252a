"""services/fcm-bridge against a stand-in for Google's two endpoints: tokens by a JWT that python3-jwt verifies, messages, every kind of answer."""
import json
import time

import certs
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from drive import until
from http_standin import Standin

PROJECT, EMAIL, KID = "demo-project", "push@demo-project.iam.gserviceaccount.com", "0123abcd"
SEND = f"/v1/projects/{PROJECT}/messages:send"
TOKEN = "fcm-token:" + "x" * 140


@pytest.fixture(scope="session")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def google(place):
    with Standin(place.server) as s:
        s.tokens = 0

        def token(request):
            s.tokens += 1
            return 200, {}, {"access_token": f"ya29.{s.tokens}", "expires_in": 3599, "token_type": "Bearer"}
        s.route("/token", token)
        s.route(SEND, (200, {}, {"name": f"projects/{PROJECT}/messages/0:1500415314455276"}))
        yield s


def account(tmp_path, key, google, **changes):
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    fields = {"type": "service_account", "project_id": PROJECT, "private_key_id": KID, "private_key": pem, "client_email": EMAIL,
              "token_uri": "https://oauth2.googleapis.com/token", **changes}
    certs.write_secret(tmp_path / "account.json", json.dumps({k: v for k, v in fields.items() if v is not None}).encode())
    return {"service_account_file": tmp_path / "account.json", "endpoint": google.url, "token_endpoint": google.url + "/token"}


@pytest.fixture
def fcm(make, google, place, tmp_path, rsa_key):
    d = make("fcm")
    d.app(**account(tmp_path, rsa_key, google), ca_file=place.ca_file)
    assert d.start()["event"] == "started"
    until(lambda: d.room() > 0)
    return d


def test_a_message_with_a_token_that_was_fetched_once(fcm, google, rsa_key):
    results = fcm.sends(20, token=TOKEN, title="Bob", body="hello", conv="u/bob", msgid="m1", badge=3, **{"from": "bob"})
    assert {r["class"] for r in results} == {"accepted"} and results[0]["id"] == "0:1500415314455276"
    form = google.next("/token").form
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(form["assertion"], rsa_key.public_key(), algorithms=["RS256"], audience="https://oauth2.googleapis.com/token")
    assert claims["iss"] == EMAIL and claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging" and claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(form["assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": KID}
    request = google.next(SEND)
    assert request.headers["authorization"] == "Bearer ya29.1" and request.headers["content-type"].startswith("application/json")
    message = request.json["message"]
    assert message["token"] == TOKEN and message["data"]["title"] == "Bob" and message["data"]["body"] == "hello" and message["data"]["badge"] == "3"
    assert message["android"]["priority"] == "HIGH" and message["android"]["ttl"].endswith("s")
    assert all(isinstance(v, str) for v in message["data"].values()) and "from" not in message["data"]
    assert google.tokens == 1


@pytest.mark.parametrize("status, code, kind", [
    (404, "UNREGISTERED", "token_invalid"), (403, "SENDER_ID_MISMATCH", "token_invalid"), (429, "QUOTA_EXCEEDED", "rate"), (503, "UNAVAILABLE", "retry"),
    (500, "INTERNAL", "retry"), (401, "THIRD_PARTY_AUTH_ERROR", "config"), (404, None, "config"), (403, None, "config"), (400, None, "bug"), (302, None, "bug")])
def test_an_error_concerns_whom_it_says(fcm, google, status, code, kind):
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}
    google.route(SEND, (status, {"location": google.url + "/elsewhere"}, {"error": {"code": status, "message": "x", "details": [detail] if code else []}}))
    assert fcm.ask(token=TOKEN)["class"] == kind
    assert google.count("/elsewhere") == 0  # redirects are not followed


@pytest.mark.parametrize("after, least, most", [("5", 60000, 60000), ("120", 120000, 120000), ("0", 60000, 60000), ("-1", 60000, 60000), ("1000000000", 3600000, 3600000),
                                                ("nonsense", 60000, 60000), ("Fri, 31 Dec 1999 23:59:59 GMT", 60000, 60000)])
def test_retry_after_is_taken_within_reason(fcm, google, after, least, most):
    google.route(SEND, (429, {"retry-after": after}, b""))
    r = fcm.ask(token=TOKEN)
    assert r["class"] == "rate" and least <= r["retry_after_ms"] <= most


def test_an_access_token_that_is_refused_is_fetched_again_once(fcm, google):
    google.route(SEND, lambda r: (200, {}, {"name": "a/b"}) if r.headers["authorization"] == "Bearer ya29.2" else (401, {}, {"error": {"status": "UNAUTHENTICATED"}}))
    results = fcm.sends(30, token=TOKEN)
    assert {r["class"] for r in results} - {"unsent"} == {"auth"}  # unsent: given to the driver after the first answer, when there was no token
    until(lambda: fcm.room() > 0, 20)  # not within 10 s of the last fetch: an endpoint that refuses everything is not hammered
    assert fcm.ask(token=TOKEN)["class"] == "accepted"
    assert google.tokens == 2


@pytest.mark.parametrize("answer", [(400, {}, {"error": "invalid_grant"}), (500, {}, b""), (200, {}, b"not json"), (200, {}, {"access_token": "a b"}),
                                    (200, {}, {"access_token": "x" * 9000}), None])
def test_without_an_access_token_there_is_no_room_and_nothing_is_lost(make, google, place, tmp_path, rsa_key, answer):
    google.route("/token", answer if answer else lambda r: None)
    d = make("fcm")
    d.app(**account(tmp_path, rsa_key, google), ca_file=place.ca_file)
    assert d.start()["event"] == "started"
    google.next("/token")
    until(lambda: "evt=push_access" in d.log())
    assert d.room() == 0 and d.gauge("push_auth_good") == 0
    assert google.count("/token") <= 1  # it waits


def test_a_token_that_lasts_a_second_is_not_fetched_every_second(make, google, place, tmp_path, rsa_key):
    google.route("/token", (200, {}, {"access_token": "short", "expires_in": 1}))
    d = make("fcm")
    d.app(**account(tmp_path, rsa_key, google), ca_file=place.ca_file)
    d.start()
    until(lambda: d.room() > 0)
    time.sleep(2)
    assert google.count("/token") == 1


@pytest.mark.parametrize("changes, says", [
    ({"type": "user"}, "is no service account"), ({"private_key": "x"}, "no PEM key"), ({"project_id": None}, "is no service account"), ({"project_id": "../x"}, "project_id")])
def test_a_wrong_account_stops_the_start_with_a_sentence(make, google, place, tmp_path, rsa_key, changes, says):
    d = make("fcm")
    d.app(**account(tmp_path, rsa_key, google, **changes), ca_file=place.ca_file)
    e = d.start()
    assert e["event"] == "refused" and says in e["text"] and "fcm.chat.conf:" in e["text"]


def test_other_keys_and_modes_are_refused(make, google, place, tmp_path, rsa_key):
    ec = certs.p256()
    for key, mode, says in ((ec, 0o600, "no RSA key of at least 2048"), (rsa.generate_private_key(65537, 1024), 0o600, "no RSA key of at least 2048"),
                            (rsa_key, 0o644, "chmod 600")):
        d = make("fcm")
        d.app(**account(tmp_path, key, google), ca_file=place.ca_file)
        (tmp_path / "account.json").chmod(mode)
        e = d.start()
        assert e["event"] == "refused" and says in e["text"], e


def test_a_certificate_nobody_vouches_for_is_a_matter_of_configuration(make, google, tmp_path, rsa_key):
    d = make("fcm")
    d.app(**account(tmp_path, rsa_key, google))  # without our authority
    d.start()
    until(lambda: "evt=push_access" in d.log())
    assert d.room() == 0 and google.requests.empty()


def test_no_secret_is_in_the_log(fcm, google, rsa_key):
    google.route(SEND, (500, {}, b"oops"))
    fcm.ask(token=TOKEN, body="words of a person")
    log = fcm.log()
    for secret in (TOKEN, "ya29.1", "PRIVATE KEY", "words of a person", "eyJ"):
        assert secret not in log
