"""Every word of Apple's and what it leads to, rows 15, 16, 20, 21 of the fault table."""
import time

import pytest

from drive import TOKEN

REASONS = [
    (400, "BadDeviceToken", "token_invalid"), (400, "DeviceTokenNotForTopic", "token_invalid"), (400, "TopicDisallowed", "config"),
    (400, "BadTopic", "config"), (400, "MissingTopic", "config"), (400, "BadCollapseId", "bug"), (400, "BadExpirationDate", "bug"),
    (400, "BadMessageId", "bug"), (400, "BadPriority", "bug"), (400, "InvalidPushType", "bug"), (400, "DuplicateHeaders", "bug"),
    (400, "MissingDeviceToken", "bug"), (400, "PayloadEmpty", "bug"), (400, "IdleTimeout", "unsent"), (403, "BadCertificate", "config"),
    (403, "BadCertificateEnvironment", "config"), (403, "ExpiredProviderToken", "auth"), (403, "InvalidProviderToken", "config"),
    (403, "MissingProviderToken", "bug"), (403, "UnrelatedKeyIdInToken", "auth"), (403, "BadEnvironmentKeyIdInToken", "config"),
    (403, "BadEnvironmentKeyInToken", "config"), (403, "Forbidden", "config"), (404, "BadPath", "bug"), (405, "MethodNotAllowed", "bug"),
    (410, "Unregistered", "token_invalid"), (410, "ExpiredToken", "token_invalid"), (413, "PayloadTooLarge", "too_large"),
    (429, "TooManyRequests", "token_rate"), (429, "TooManyProviderTokenUpdates", "rate"), (500, "InternalServerError", "retry"),
    (503, "ServiceUnavailable", "retry"), (503, "Shutdown", "retry"), (400, "NotInTheTable", "bug"), (500, "NotInTheTable", "retry"),
]
RECONNECT = {"IdleTimeout", "BadCertificate", "BadCertificateEnvironment", "ExpiredProviderToken", "UnrelatedKeyIdInToken", "ServiceUnavailable", "Shutdown"}


def always(status, reason, **more):
    async def fault(conn, request):
        conn.answer(request, (status, reason, more))
        return True
    return fault


def test_every_reason(drive, standin):
    """One after the other on one driver: none may leave it unable to send. Expired tokens are tried in test_apns_token.py."""
    drive.ask()
    for status, reason, expected in REASONS:
        if reason in ("ExpiredProviderToken", "TooManyProviderTokenUpdates"):
            continue
        conns = len(standin.conns)
        standin.fault = always(status, reason)
        r = drive.ask()
        assert (r["class"], r["status"], r["reason"]) == (expected, status, reason)
        standin.fault = None
        assert drive.deliver(1, first=status)[0][-1] == "accepted", reason
        assert (len(standin.conns) > conns) == (reason in RECONNECT), reason
    assert drive.gauge("push_unknown_code_total") == 2


def test_wrong_environment_is_told_apart_if_there_is_another(drive, standin, keys):
    drive.app(**keys, env="both", endpoint=f"https://localhost:{standin.port}", sandbox_endpoint=f"https://127.0.0.1:{standin.port}")
    assert drive.start("reload")["event"] == "reloaded"
    standin.tokens[TOKEN] = {"other_env": True}
    assert drive.ask(env="production")["class"] == "token_env"
    standin.tokens.clear()
    assert drive.ask(env="sandbox")["class"] == "accepted"
    assert standin.requests[-1][":authority"] == f"127.0.0.1:{standin.port}"
    assert drive.ask(env="")["class"] == "accepted"
    assert standin.requests[-1][":authority"] == f"localhost:{standin.port}"


def test_environment_that_is_not_served_is_a_fault_of_configuration(drive):
    r = drive.ask(env="sandbox")
    assert (r["class"], r["reason"]) == ("config", "environment not served")
    r = drive.ask(app="nobody")
    assert (r["class"], r["reason"]) == ("config", "no such app")


FAR_MS = 4102444800000  # the year 2100


@pytest.mark.parametrize("timestamp, since", [
    (1700000000123, 1700000000123), (1700000000, 1700000000000), (0, 0), (-5, 0), ("1700000000123", 0), (None, 0), ([1], 0), (True, 0),
    (2**63, "now"), (2**64 * 10**20, "now"), (FAR_MS, "now"), (1.7e12, 1700000000000),
])
def test_timestamp_of_a_410(drive, standin, timestamp, since):
    standin.fault = always(410, "Unregistered", timestamp=timestamp)
    r = drive.ask()
    assert r["class"] == "token_invalid"
    if since == "now":
        assert abs(r["invalid_since_ms"] - time.time() * 1000) < 10000
    else:
        assert r["invalid_since_ms"] == since


def test_410_without_a_timestamp(drive, standin):
    standin.fault = always(410, "ExpiredToken")
    assert drive.ask()["invalid_since_ms"] == 0


def test_retry_after_is_told(drive, standin):
    async def busy(conn, request):
        conn.respond(request, 503, b'{"reason":"ServiceUnavailable"}', headers=[("retry-after", "7")])
        return True
    standin.fault = busy
    r = drive.ask()
    assert (r["class"], r["retry_after_ms"]) == ("retry", 7000)


@pytest.mark.parametrize("status, reason, attempt, least_ms", [(500, "InternalServerError", 1, 5000), (503, "Shutdown", 3, 5000), (503, "ServiceUnavailable", 4, 900000),
                                                               (408, None, 4, 0)])
def test_a_busy_server_is_left_alone_the_longer_the_more_often_it_said_so(drive, standin, status, reason, attempt, least_ms):
    standin.fault = always(status, reason)
    assert drive.ask(attempt=attempt)["retry_after_ms"] == least_ms


def test_invalid_provider_token_costs_no_token_and_no_mint(drive, standin):
    standin.fault = always(403, "InvalidProviderToken")
    for r in drive.sends(30):
        assert r["class"] == "config"
    assert len(standin.seen_jwts) <= 1 and drive.gauge("push_jwt_mint_total") == 1


def test_the_stand_in_answers_as_published(drive, standin):
    """Its own rules, seen through the driver: a gone token, a token of another app."""
    standin.tokens["aa" * 32] = {"gone_ms": 1700000000000}
    standin.tokens["bb" * 32] = {"topic": "com.example.other"}
    r = drive.ask(token="aa" * 32)
    assert (r["status"], r["reason"], r["invalid_since_ms"]) == (410, "Unregistered", 1700000000000)
    r = drive.ask(token="bb" * 32)
    assert (r["status"], r["reason"], r["class"]) == (400, "DeviceTokenNotForTopic", "token_invalid")
