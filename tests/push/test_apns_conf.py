"""A wrong file stops the start with a sentence that says what to fix, before anything is sent."""
import pytest

import certs
from conftest import KID, TEAM, TOPIC


def refused(make, **keys):
    d = make()
    d.app(**keys)
    e = d.start()
    assert e["event"] == "refused" and e["status"] == "bad_input", e
    assert "apns.chat.conf:" in e["text"], e
    return e["text"]


@pytest.fixture
def secret(tmp_path):
    count = iter(range(100))
    return lambda data, mode=0o600, name=None: certs.write_secret(tmp_path / (name or f"secret{next(count)}"), data, mode)


def test_keys_of_the_wrong_kind(make, keys, secret):
    p384 = certs.ec.generate_private_key(certs.ec.SECP384R1())
    public = p384.public_key().public_bytes(certs.PEM, certs.serialization.PublicFormat.SubjectPublicKeyInfo)
    locked = certs.p256().private_bytes(certs.PEM, certs.PKCS8, certs.serialization.BestAvailableEncryption(b"x"))
    for data, words in ((certs.key_pem(certs.rsa_key()), "elliptic curve"), (certs.key_pem(p384), "P-256"), (public, "no private key"),
                        (locked, "no private key"), (b"hello", "no private key")):
        text = refused(make, **{**keys, "key_file": secret(data)})
        assert "key_file" in text and words in text, text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_key_that_others_can_read(make, keys, secret, mode):
    text = refused(make, **{**keys, "key_file": secret(certs.key_pem(certs.p256()), mode)})
    assert "chmod 600" in text


@pytest.mark.parametrize("change, words", [
    ({"team_id": "SHORT"}, "team_id"), ({"team_id": "team123456"}, "team_id"), ({"team_id": None}, "team_id"), ({"key_id": "ABC"}, "key_id"),
    ({"key_id": None}, "key_id"), ({"topic": None}, "topic"), ({"topic": "com.example\tchat"}, "topic"), ({"env": "prod"}, "production"),
    ({"endpoint": "http://localhost:1"}, "https"), ({"endpoint": "https://"}, "HOST"), ({"endpoint": "https://h:99999"}, "HOST"),
    ({"endpoint": "https://h/path"}, "HOST"), ({"max_conns": "17"}, "1 to 16"), ({"key_file": "/nowhere"}, "key_file"), ({"key_file": None}, "key_file"),
    ({"ca_file": "/dev/null"}, "ca_file"), ({"max_cons": "3"}, "max_conns"), ({"sound": "a b"}, "sound"),
])
def test_values(make, keys, change, words):
    assert words in refused(make, **{**keys, **change})


def test_ca_file_without_certificates(make, keys, secret):
    assert "ca_file" in refused(make, **{**keys, "ca_file": secret(b"nothing")})


def test_id_that_is_not_the_key_files(make, keys, secret):
    path = secret(certs.key_pem(certs.p256()), name="AuthKey_QQQ111QQQ1.p8")
    text = refused(make, **{**keys, "key_file": path})
    assert "QQQ111QQQ1" in text and KID in text


def test_key_and_certificate_at_once(make, keys, secret):
    assert "not both" in refused(make, **{**keys, "cert_file": secret(b"x")})


@pytest.mark.parametrize("since, until, words", [(-40, -2, "expired on 20"), (2, 40, "valid only from")])
def test_certificate_out_of_time(make, place, secret, since, until, words):
    key, cert = place.ca.client(TOPIC, since=since, until=until)
    assert words in refused(make, topic=TOPIC, cert_file=secret(cert.public_bytes(certs.PEM) + certs.key_pem(key)))


def test_certificate_with_anothers_key(make, place, secret):
    _, cert = place.ca.client(TOPIC)
    text = refused(make, topic=TOPIC, cert_file=secret(cert.public_bytes(certs.PEM) + certs.key_pem(certs.rsa_key())))
    assert "not the certificate's" in text


@pytest.mark.parametrize("listed, good", [((), False), ((TOPIC, TOPIC + ".voip"), True), (("com.example.third",), False)])
def test_certificate_of_another_topic(make, place, secret, listed, good):
    key, cert = place.ca.client("com.example.other", listed=listed)
    keys = dict(topic=TOPIC, cert_file=secret(cert.public_bytes(certs.PEM) + certs.key_pem(key)))
    if good:
        d = make()
        d.app(**keys)
        assert d.start()["event"] == "started"
    else:
        assert "not a topic of the certificate" in refused(make, **keys)


def test_p12_with_a_wrong_password(make, place, secret):
    key, cert = place.ca.client(TOPIC)
    bundle = secret(certs.p12(key, cert, b"right"))
    assert "cert_password_file" in refused(make, topic=TOPIC, cert_file=bundle)
    assert "cert_password_file" in refused(make, topic=TOPIC, cert_file=bundle, cert_password_file=secret(b"wrong"))


def test_no_app_at_all(make):
    d = make()
    e = d.start()
    assert e["event"] == "refused" and "at least one app" in e["text"]


def test_team_is_in_no_sentence(make, keys):
    assert TEAM not in refused(make, **{**keys, "key_id": "ABC"})
