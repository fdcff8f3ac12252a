"""The provider token: minted once, kept, never too often; rows 17, 18, 19, 22 of the fault table. And certificates instead of it."""
import asyncio
import base64
import json
import os
import ssl
import stat
import time

import jwt
import pytest

import certs
from apns_standin import Standin
from conftest import KID, TEAM, TOPIC
from drive import until
from test_apns_answers import always

MINUTE = 60000


def kept(drive, kid=KID, team=TEAM):
    return json.loads((drive.state / f"jwt.{team}.{kid}").read_text())


def shift(drive, ms, wall=True, boot=True):
    """Moves the clocks: both is time passing, the wall's alone is a jump."""
    drive.op("times", **({"wall_shift_ms": ms} if wall else {}), **({"boot_shift_ms": ms} if boot else {}))


def test_form_of_the_token(drive, standin, place):
    drive.ask()
    text = standin.requests[0]["authorization"]
    assert text.startswith("bearer ")
    head, claims, signature = text[7:].split(".")
    assert len(base64.urlsafe_b64decode(signature + "==")) == 64 and "=" not in text
    assert jwt.get_unverified_header(text[7:]) == {"alg": "ES256", "kid": KID}
    decoded = jwt.decode(text[7:], place.public, algorithms=["ES256"])
    assert set(decoded) == {"iss", "iat"} and decoded["iss"] == TEAM and abs(decoded["iat"] - time.time()) < 60


def test_minted_once_for_all_requests_apps_and_environments(drive, standin, keys):
    for name in ("chat", "other"):
        drive.app(name, **keys, env="both", endpoint=f"https://localhost:{standin.port}", sandbox_endpoint=f"https://127.0.0.1:{standin.port}")
    drive.start("reload")
    for r in [drive.result(drive.send(app=a, env=e)) for a in ("chat", "other") for e in ("production", "sandbox") for _ in range(5)]:
        assert r["class"] == "accepted"
    assert len(standin.seen_jwts) == 1
    assert len(standin.conns) == 2  # one for each host, not for each app


def test_kept_in_a_file_nobody_else_reads(drive):
    drive.ask()
    path = drive.state / f"jwt.{TEAM}.{KID}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (drive.state / f"jwt.{TEAM}.{KID}.new").exists()


def test_ten_restarts_in_a_minute_mint_one_token(make, standin, keys):
    for _ in range(10):
        d = make()
        d.app(**keys, endpoint=f"https://localhost:{standin.port}")
        d.start()
        assert d.ask()["class"] == "accepted"
        d.kill()
    assert len(standin.seen_jwts) == 1


@pytest.mark.parametrize("jump_h", [2, -2])
def test_clock_jumps_mint_nothing(make, standin, keys, jump_h):
    d = make()
    d.app(**keys, endpoint=f"https://localhost:{standin.port}")
    d.start()
    d.ask()
    shift(d, jump_h * 60 * MINUTE, boot=False)
    assert d.ask()["class"] == "accepted"
    for _ in range(3):
        d.kill()
        d = make(wall_shift_ms=jump_h * 60 * MINUTE)
        d.start()
        assert d.ask()["class"] == "accepted"
    assert len(standin.seen_jwts) == 1


def test_refreshed_after_45_to_50_minutes(drive, standin):
    drive.ask()
    for minutes, tokens in ((44, 1), (50, 2), (94, 2), (100, 3)):
        shift(drive, minutes * MINUTE)
        standin.fault = always(200, None)  # its clock has not moved with ours
        assert drive.ask()["class"] == "accepted"
        assert len({r["authorization"] for r in standin.requests}) == tokens, minutes
    assert drive.gauge("push_jwt_mint_total") == 3


def test_age_over_a_restart_of_the_machine_is_the_wall_clocks(make, standin, keys):
    d = make()
    d.app(**keys, endpoint=f"https://localhost:{standin.port}")
    d.start()
    d.ask()
    d.stop()
    path = d.state / f"jwt.{TEAM}.{KID}"
    for back_min, mints in ((10, 0), (55, 1), (-120, 0)):  # 2 h in the future counts as now: it may be the clock that is wrong
        row = json.loads(path.read_text())
        row.update(boot="another", iat=int(time.time()) - back_min * 60)
        path.write_text(json.dumps(row))
        d = make()
        d.start()
        standin.fault = always(200, None)
        assert d.ask()["class"] == "accepted"
        assert d.gauge("push_jwt_mint_total") == mints, back_min
        d.stop()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"team":1}', '{"team":"TEAM123456","kid":"ABC123DEFG","key":"x","jwt":"a\\nb","iat":1,"boot":"b","boot_ms":1,"early":false}'])
def test_file_that_is_not_ours_is_replaced(make, standin, keys, text):
    d = make()
    (d.state / f"jwt.{TEAM}.{KID}").write_text(text)
    d.app(**keys, endpoint=f"https://localhost:{standin.port}")
    assert d.start()["event"] == "started"
    assert d.ask()["class"] == "accepted"
    assert kept(d)["kid"] == KID


def test_token_that_cannot_be_kept_is_not_used(make, standin, keys):
    """Or a crash loop on a full disk would mint at each start."""
    d = make()
    (d.state / f"jwt.{TEAM}.{KID}.new").mkdir()
    d.app(**keys, endpoint=f"https://localhost:{standin.port}")
    d.start()
    r = d.ask()
    assert (r["class"], r["reason"]) == ("rate", "no provider token") and r["retry_after_ms"] > 0
    assert not standin.requests and d.room() == 0
    assert "jwt_keep" in d.log()


# ---- what Apple says of it

def old_tokens(standin, old, at_least=1):
    """Calls the tokens in `old` expired, once so many requests with them have come."""
    met = []

    async def fault(conn, request):
        if request["authorization"] not in old:
            return False
        met.append(request)
        while len(met) < at_least:
            await asyncio.sleep(0.01)
        conn.answer(request, (403, "ExpiredProviderToken", {}))
        return True
    standin.fault = fault


def test_storm_of_expired_tokens_is_one_mint_and_one_connection(make, standin, keys):
    d = make(request_ms=15000)
    d.app(**keys, endpoint=f"https://localhost:{standin.port}", max_conns=1)
    d.start()
    d.ask()
    shift(d, 25 * MINUTE)  # 20 have passed: a new one may be minted
    standin.mint_floor, standin.shift_s = 0, 25 * 60
    old_tokens(standin, {standin.requests[0]["authorization"]}, at_least=200)
    met = d.deliver(200)
    assert all(m[-1] == "accepted" and m.count("auth") <= 1 for m in met.values()), met
    assert all("auth" in m for m in met.values())
    assert d.gauge("push_jwt_mint_total") == 2 and len(standin.conns) == 2


def test_expired_too_early_waits_for_the_twenty_minutes(drive, standin):
    drive.ask()
    old_tokens(standin, {standin.requests[0]["authorization"]})
    assert drive.ask()["class"] == "auth"
    assert drive.room() == 0 or drive.ask()["class"] == "rate"
    assert drive.gauge("push_jwt_mint_total") == 1
    shift(drive, 21 * MINUTE)
    standin.mint_floor, standin.shift_s = 0, 21 * 60
    assert drive.deliver(3)[2][-1] == "accepted"
    assert drive.gauge("push_jwt_mint_total") == 2


def test_expired_after_the_clocks_parted_mints_once_at_once(drive, standin):
    drive.ask()
    shift(drive, 2 * 60 * MINUTE, boot=False)  # the first iat came from a wrong clock
    first = standin.requests[0]["authorization"]
    standin.mint_floor = 0
    seen = []

    async def fault(conn, request):
        seen.append(request["authorization"])
        conn.answer(request, (403, "ExpiredProviderToken", {}) if request["authorization"] == first else (200, None, {}))
        return True
    standin.fault = fault
    assert drive.deliver(1)[0] == ["auth", "accepted"]
    assert drive.gauge("push_jwt_mint_total") == 2
    standin.fault = always(403, "ExpiredProviderToken")
    shift(drive, 4 * 60 * MINUTE, boot=False)
    assert drive.ask()["class"] == "auth"
    assert drive.room() == 0 or drive.ask()["class"] == "rate"
    assert drive.gauge("push_jwt_mint_total") == 2  # not twice in 20 minutes


def test_too_many_updates_keeps_the_token_that_was_taken(drive, standin):
    drive.ask()
    first = standin.requests[0]["authorization"]
    shift(drive, 50 * MINUTE)

    async def fault(conn, request):
        if request["authorization"] == first:
            conn.answer(request, (200, None, {}))
        else:
            conn.answer(request, (429, "TooManyProviderTokenUpdates", {}))
        return True
    standin.fault = fault
    r = drive.ask()
    assert (r["class"], r["reason"]) == ("rate", "TooManyProviderTokenUpdates")
    assert drive.ask()["class"] == "accepted"
    assert standin.requests[-1]["authorization"] == first
    standin.fault = always(200, None)
    shift(drive, 61 * MINUTE)  # the first is too old now, the second is used; nothing is minted within 20 minutes
    assert drive.ask()["class"] == "accepted"
    assert standin.requests[-1]["authorization"] != first
    assert drive.gauge("push_jwt_mint_total") == 2


def test_too_many_updates_of_the_only_token_rests(drive, standin):
    standin.fault = always(429, "TooManyProviderTokenUpdates")
    assert drive.ask()["class"] == "rate"
    assert drive.room() == 0 or drive.ask()["reason"] == "no provider token"
    assert drive.gauge("push_jwt_mint_total") == 1
    assert kept(drive)["no_mint_until"] > 0


# ---- other keys

def second_key(place, standin, kid="ZZZ999ZZZ9"):
    key = certs.p256()
    standin.keys[kid] = (TEAM, key.public_key().public_bytes(
        certs.PEM, certs.serialization.PublicFormat.SubjectPublicKeyInfo))
    return certs.write_secret(place.dir / f"{kid}.p8", certs.key_pem(key)), kid


def test_key_is_changed_under_load(drive, standin, place, keys):
    path, kid = second_key(place, standin)
    standin.delay = 0.1
    drive.ask()
    rows = [drive.send() for _ in range(50)]
    until(lambda: len(standin.requests) > 20)
    drive.app(**{**keys, "key_file": path, "key_id": kid}, endpoint=f"https://localhost:{standin.port}")
    assert drive.start("reload")["event"] == "reloaded"
    assert all(drive.result(r)["class"] in ("accepted", "unsent") for r in rows)
    assert drive.deliver(3)[2][-1] == "accepted"
    kids = {jwt.get_unverified_header(r["authorization"][7:])["kid"]: r.conn.number for r in standin.requests}
    assert set(kids) == {KID, kid} and kids[KID] != kids[kid]  # a connection of its own
    until(lambda: len(standin.lost) == 1)  # the old one has drained


def test_bad_key_at_reload_leaves_the_old_one(drive, standin, keys, tmp_path):
    drive.ask()
    bad = certs.write_secret(tmp_path / "rsa.p8", certs.key_pem(certs.rsa_key()))
    drive.app(**{**keys, "key_file": bad}, endpoint=f"https://localhost:{standin.port}")
    e = drive.start("reload")
    assert e["event"] == "refused" and "key_file" in e["text"]
    assert drive.ask()["class"] == "accepted"
    assert len(standin.conns) == 1 and len(standin.seen_jwts) == 1


def test_reload_of_the_same_files_changes_nothing(drive, standin):
    drive.ask()
    assert drive.start("reload")["event"] == "reloaded"
    assert drive.ask()["class"] == "accepted"
    assert len(standin.conns) == 1 and len(standin.seen_jwts) == 1


# ---- certificates

@pytest.mark.parametrize("form", ["pem", "two files", "p12", "p12 with a password"])
def test_certificate_speaks_for_us(make, place, tmp_path, form):
    key, cert = place.ca.client(TOPIC)
    pem, keys = cert.public_bytes(certs.PEM), {"topic": TOPIC, "ca_file": place.ca_file, "cert_file": tmp_path / "push.pem"}
    if form == "pem":
        certs.write_secret(tmp_path / "push.pem", pem + certs.key_pem(key))
    elif form == "two files":
        certs.write_secret(tmp_path / "push.pem", pem)
        keys["cert_key_file"] = certs.write_secret(tmp_path / "push.key", certs.key_pem(key))
    else:
        password = b"secret" if "password" in form else b""
        keys["cert_file"] = certs.write_secret(tmp_path / "push.p12", certs.p12(key, cert, password))
        if password:
            keys["cert_password_file"] = certs.write_secret(tmp_path / "password", password + b"\n")
    with Standin(place.server, client_ca=place.ca.pem()) as standin:
        d = make()
        d.app(**keys, endpoint=f"https://localhost:{standin.port}")
        assert d.start()["event"] == "started"
        assert d.ask()["class"] == "accepted"
        assert standin.requests[0]["authorization"] is None and not list(d.state.iterdir())
        assert 29 * 86400 < d.gauge("push_cert_expiry_seconds") <= 30 * 86400


def test_certificate_the_server_does_not_know(make, place, tmp_path):
    """With TLS 1.3 it says so after our handshake, if its alert arrives before its reset."""
    key, cert = certs.Authority("another").client(TOPIC)
    path = certs.write_secret(tmp_path / "push.pem", cert.public_bytes(certs.PEM) + certs.key_pem(key))
    with Standin(place.server, client_ca=place.ca.pem()) as standin:
        d = make()
        d.app(topic=TOPIC, ca_file=place.ca_file, cert_file=path, endpoint=f"https://localhost:{standin.port}")
        d.start()
        assert d.ask()["class"] in ("config", "unreachable")
        assert not standin.requests
        standin.context.maximum_version = ssl.TLSVersion.TLSv1_2  # here it is part of the handshake
        until(d.room)
        assert d.ask()["class"] in ("config", "unreachable")
        assert not standin.requests


def test_nothing_secret_is_said(drive, standin, place):
    """Neither key nor token in log, arguments, environment or gauges."""
    drive.ask(body="very private words")
    standin.fault = always(403, "InvalidProviderToken")
    drive.ask()
    jwt_text = kept(drive)["jwt"]
    said = drive.log() + drive.metrics()["text"] + open(f"/proc/{drive.process.pid}/cmdline").read() + open(f"/proc/{drive.process.pid}/environ").read()
    key_line = place.key_file.read_text().splitlines()[1]
    device = standin.requests[0].token
    for secret in (jwt_text, jwt_text.split(".")[2], key_line, device, "private words", "bearer"):
        assert secret not in said
    assert os.stat(place.key_file).st_mode & 0o077 == 0
