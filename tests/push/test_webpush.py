"""services/webpush-bridge against a push service of the test's own; what it gets is decrypted by http_ece, an implementation that is not ours."""
import base64
import json
import subprocess
import time

import certs
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from drive import until
from http_standin import Standin
from node_apn import fetch


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Subscription:
    """A browser's: what it tells us, and what it can read."""

    def __init__(self, endpoint):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = b"0123456789abcdef"
        self.endpoint = endpoint

    def fields(self):
        point = self.key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return {"token": self.endpoint, "p256dh": b64(point), "auth": b64(self.auth)}

    def decrypt(self, body):
        private = self.key.private_numbers().private_value.to_bytes(32, "big")
        p = subprocess.run(["node", "decrypt.js", b64(private), b64(self.auth)], input=body, cwd=fetch(), stdout=subprocess.PIPE, check=True, timeout=30)
        return p.stdout


@pytest.fixture
def service(place):
    with Standin(place.server) as s:
        s.route("/push/", (201, {"location": "/message/77"}, b""))
        yield s


@pytest.fixture
def vapid(tmp_path):
    key = certs.p256()
    certs.write_secret(tmp_path / "vapid.pem", certs.key_pem(key))
    return key


@pytest.fixture
def keys(tmp_path, vapid, place):
    return dict(vapid_key_file=tmp_path / "vapid.pem", subject="mailto:ops@example.com", ca_file=place.ca_file, allow_private="true", allow_ports="true")


@pytest.fixture
def web(make, keys):
    d = make("webpush")
    d.app(**keys)
    e = d.start()
    assert e["event"] == "started", e
    return d


@pytest.fixture
def sub(service):
    return Subscription(service.url + "/push/abc")


def test_a_browser_can_read_it_and_the_service_knows_who_sent_it(web, service, sub, vapid):
    r = web.ask(**sub.fields(), title="Bob", body="hello 🎉", conv="u/bob", badge=3, seq=18)
    assert (r["class"], r["id"]) == ("accepted", "77")
    request = service.next("/push/abc")
    h = request.headers
    assert h["content-encoding"] == "aes128gcm" and 0 < int(h["ttl"]) <= 3600 and h["urgency"] == "high" and len(h["topic"]) == 32
    scheme, rest = h["authorization"].split(" ", 1)
    parts = dict(p.strip().split("=", 1) for p in rest.split(","))
    claims = jwt.decode(parts["t"], vapid.public_key(), algorithms=["ES256"], audience=service.url)
    assert scheme == "vapid" and claims["sub"] == "mailto:ops@example.com" and time.time() < claims["exp"] <= time.time() + 24 * 3600
    point = vapid.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert parts["k"] == b64(point)
    assert len(request.body) <= 4096 and len(request.body) % 512 == (86 + 16 + 1) % 512  # padded
    text = json.loads(sub.decrypt(request.body))
    assert (text["title"], text["body"], text["conv"], text["badge"], text["seq"]) == ("Bob", "hello 🎉", "u/bob", 3, 18)


def test_one_jwt_for_an_origin(web, service, sub):
    web.sends(10, **sub.fields())
    assert len({service.next("/push").headers["authorization"] for _ in range(10)}) == 1


def test_the_longest_text_fits(web, service, sub):
    assert web.ask(**sub.fields(), title="漢字" * 500, body='"\\' * 9000, subtitle="x" * 999)["class"] == "accepted"
    body = service.next("/push").body
    assert len(body) <= 4096
    json.loads(sub.decrypt(body))


@pytest.mark.parametrize("status, kind", [
    (200, "accepted"), (201, "accepted"), (202, "accepted"), (204, "accepted"), (404, "token_invalid"), (410, "token_invalid"), (401, "token_invalid"),
    (403, "token_invalid"), (413, "too_large"), (429, "token_rate"), (500, "token_rate"), (503, "token_rate"), (400, "bug"), (301, "bug"), (307, "bug")])
def test_an_answer_concerns_one_subscription_alone(web, service, sub, status, kind):
    service.route("/push/", (status, {"retry-after": "7", "location": service.url + "/elsewhere"}, b'{"reason":"x\x00y"}' if status >= 300 else b""))
    r = web.ask(**sub.fields())
    assert r["class"] == kind, r
    if kind == "token_rate":
        assert r["retry_after_ms"] == 7000
    assert service.count("/elsewhere") == 0


def test_a_body_of_ten_megabytes_is_not_taken(web, service, sub):
    service.route("/push/", (500, {}, b"x" * 10_000_000))
    assert web.ask(**sub.fields())["class"] == "token_rate"


@pytest.mark.parametrize("url, reason", [
    ("http://localhost/x", "not https"), ("https://user@localhost/x", "no host"), ("https:///x", "no host"), ("ftp://localhost/x", "not https")])
def test_what_is_no_endpoint_is_not_asked(web, url, reason):
    r = web.ask(**dict(Subscription(url).fields(), token=url))
    assert (r["class"], r["reason"]) == ("token_invalid", reason)


INSIDE = ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0", "[fe80::1]", "[fd00::1]"]


@pytest.mark.parametrize("host", INSIDE)
def test_a_user_cannot_point_us_at_our_own_network(make, keys, service, host):
    d = make("webpush")
    d.app(**dict(keys, allow_private="false"))
    d.start()
    r = d.ask(**Subscription(f"https://{host}:{service.port}/push/abc").fields(), timeout=20)
    assert r["class"] == "token_invalid" and r["reason"] == "address not allowed", r
    assert service.requests.empty()


def test_only_the_usual_port_unless_more_is_allowed(make, keys, service, sub):
    d = make("webpush")
    d.app(**dict(keys, allow_ports="false"))
    d.start()
    assert d.ask(**sub.fields())["reason"] == "port not allowed"
    assert service.requests.empty()


def test_a_list_of_hosts_that_are_allowed(make, keys, service, sub):
    d = make("webpush")
    d.app(**dict(keys, allow_hosts="*.push.example.com, updates.example.org"))
    d.start()
    assert d.ask(**sub.fields())["reason"] == "host not allowed"
    d.app(**dict(keys, allow_hosts="local*"))
    assert d.start("reload")["event"] == "reloaded"
    assert d.ask(**sub.fields())["class"] == "accepted"


def test_a_service_that_hangs_leaves_room_for_the_others(web, service, sub):
    def hang(request):
        time.sleep(1.0)
        return 201, {}, b""
    service.route("/hang/", hang)
    slow = Subscription(service.url + "/hang/x")
    rows = [web.send(**slow.fields()) for _ in range(40)]
    # the same host: the stand-in's connections are all taken for a second, the driver's room is not
    assert web.room() > 100
    assert all(web.result(r, 20)["class"] == "accepted" for r in rows)


@pytest.mark.parametrize("subject, says", [("ops@example.com", "must be mailto:"), ("mailto: a@b", "blanks"), ("mailto:<a@b.example>", "refuse"),
                                           ("https://localhost", "push services can see"), ("mailto:nobody", "no mailto")])
def test_a_wrong_subject_stops_the_start(make, keys, subject, says):
    d = make("webpush")
    d.app(**dict(keys, subject=subject))
    e = d.start()
    assert e["event"] == "refused" and says in e["text"] and "webpush.chat.conf:" in e["text"], e


def test_a_wrong_key_stops_the_start(make, keys, tmp_path):
    certs.write_secret(tmp_path / "vapid.pem", certs.key_pem(ec.generate_private_key(ec.SECP384R1())))
    d = make("webpush")
    d.app(**keys)
    e = d.start()
    assert e["event"] == "refused" and "P-256" in e["text"]


def test_no_secret_is_in_the_log(web, service, sub):
    service.route("/push/", (500, {}, b""))
    web.ask(**sub.fields(), body="words of a person")
    for secret in ("words of a person", sub.endpoint, b64(sub.auth), "PRIVATE KEY"):
        assert secret not in web.log()
