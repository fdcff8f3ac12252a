"""What can go wrong between the bridge and Apple, rows 1 to 14 of the fault table: each ends as what it was, and the next one gets through."""
import asyncio
import os
import socket
import threading
import time

import pytest

import certs
from apns_standin import ContinuationFrame, HeadersFrame, PingFrame, Standin
from conftest import KID, TEAM, TOPIC
from drive import until, uuid
from ports import free_ports


def endpoint(port, host="localhost"):
    return f"https://{host}:{port}"


def once(fault):
    """The fault for the first request it meets after the priming one; then all goes well."""
    state = {"done": False}

    async def run(conn, request):
        if state["done"] or not conn.trusted:
            return False
        state["done"] = True
        return await fault(conn, request)
    return run


def accepted_ids(standin):
    return [r["apns-id"] for r in standin.accepted]


# ---- 1: no server, a black hole, a slow handshake

def test_no_server_is_unreachable_and_recovers(make, place, keys):
    port, = free_ports(1)
    d = make()
    d.app(**keys, endpoint=endpoint(port))
    d.start()
    r = d.ask()
    assert (r["class"], r["status"]) == ("unreachable", 0)
    assert "onnect" in r["reason"]
    with Standin(place.server, keys={KID: (TEAM, place.public)}) as standin:
        standin.shut()
        standin.port = port
        standin.listen()
        assert d.deliver(5)[4][-1] == "accepted"
        assert sorted(accepted_ids(standin)) == [uuid(i) for i in range(5)]


def test_connections_are_tried_ever_more_seldom(make, keys):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        s.settimeout(0.02)
        seen = []
        stop = threading.Event()

        def accept_and_close():
            while not stop.is_set():
                try:
                    s.accept()[0].close()
                    seen.append(time.monotonic())
                except OSError:
                    pass
        t = threading.Thread(target=accept_and_close, daemon=True)
        t.start()
        d = make(backoff_least_ms=100, backoff_most_ms=800)
        d.app(**keys, endpoint=endpoint(s.getsockname()[1], "127.0.0.1"))
        d.start()
        end = time.monotonic() + 2.5
        try:
            while time.monotonic() < end:
                if d.room():
                    assert d.ask()["class"] == "unreachable"
                time.sleep(0.01)
        finally:
            stop.set()
        t.join()
    # 100, 200, 400, 800, 800 ms, each by half at least: between 3 and 9 in 2.5 s
    assert 3 <= len(seen) <= 9, len(seen)


def test_slow_handshake_ends_in_time(make, keys):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(8)
        d = make(connect_ms=300)
        d.app(**keys, endpoint=endpoint(s.getsockname()[1]))
        d.start()
        r = d.ask(timeout=5)
        assert (r["class"], r["reason"]) == ("unreachable", "no connection in time")


def test_tls_without_http2_settings_ends_in_time(make, place, keys):
    with Standin(place.server) as standin:
        standin.silent = True
        d = make(connect_ms=300)
        d.app(**keys, endpoint=endpoint(standin.port))
        d.start()
        assert d.ask(timeout=5)["class"] == "unreachable"
        assert not standin.requests


# ---- 2, 3: who the server is, and what it speaks

@pytest.mark.parametrize("server, word", [
    (lambda place: certs.Authority("another").server(), "certificate"),
    (lambda place: place.ca.server(names=["api.example.org"], addresses=[]), "certificate"),
    (lambda place: place.ca.server(since=-10, until=-1), "certificate"),
], ids=["another authority", "another name", "expired"])
def test_wrong_certificate_is_a_fault_of_configuration(make, place, keys, tmp_path, server, word):
    pem = certs.write_secret(tmp_path / "wrong.pem", server(place))
    with Standin(pem, keys={KID: (TEAM, place.public)}) as standin:
        d = make()
        d.app(**keys, endpoint=endpoint(standin.port))
        d.start()
        r = d.ask()
        assert r["class"] == "config" and word in r["reason"], r
        assert not standin.requests and not standin.seen_jwts


def test_address_is_verified_too(make, place, keys, tmp_path):
    pem = certs.write_secret(tmp_path / "wrong.pem", place.ca.server(names=["localhost"], addresses=["127.0.0.2"]))
    with Standin(pem, keys={KID: (TEAM, place.public)}) as standin:
        d = make()
        d.app(**keys, endpoint=endpoint(standin.port, "127.0.0.1"))
        d.start()
        assert d.ask()["class"] == "config"
        d.app(**keys, endpoint=endpoint(standin.port))
        d.start("reload")
        assert d.ask()["class"] == "accepted"


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["no ALPN", "HTTP/1.1"])
def test_server_without_http2_is_refused(make, place, keys, alpn):
    with Standin(place.server, keys={KID: (TEAM, place.public)}, alpn=alpn) as standin:
        d = make()
        d.app(**keys, endpoint=endpoint(standin.port))
        d.start()
        r = d.ask()
        assert r["class"] == "config" and ("HTTP/2" in r["reason"] or "TLS" in r["reason"]), r
        assert not standin.requests


# ---- 4, 5: how many at once

def test_one_stream_until_the_token_is_good_then_many(drive, standin):
    standin.delay = 0.1
    rows = [drive.send() for _ in range(32)]
    assert all(drive.result(r)["class"] == "accepted" for r in rows)
    assert len(standin.conns) == 1
    assert 10 < standin.conns[0].most_open <= 31  # all but the first at once


def test_limit_is_lowered_while_more_are_under_way(make, standin, keys):
    d = make(request_ms=10000)
    d.app(**keys, endpoint=endpoint(standin.port), max_conns=1)
    d.start()
    d.ask()
    conn = standin.conns[0]
    held = []
    release = threading.Event()

    async def hold(c, request):
        held.append(request)
        while not release.is_set():
            await asyncio.sleep(0.01)
        return False
    standin.fault = hold
    rows = [d.send() for _ in range(100)]
    until(lambda: len(held) == 100)
    standin.call(conn.set_limit, 10)
    until(lambda: d.room() == 0)
    rows += [d.send() for _ in range(20)]  # waits
    conn.most_open = 0
    release.set()
    assert all(d.result(r)["class"] == "accepted" for r in rows)
    assert len(standin.conns) == 1 and len(standin.accepted) == 121
    until(lambda: d.room() == 10)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_limit_of_zero_waits_without_spinning(drive, standin):
    drive.ask()
    standin.call(standin.conns[0].set_limit, 0)
    until(lambda: drive.room() == 0)
    rows = [drive.send() for _ in range(5)]
    before = cpu_seconds(drive.process.pid)
    time.sleep(1.5)  # the thing itself: nothing may happen meanwhile
    assert cpu_seconds(drive.process.pid) - before < 0.3
    assert len(standin.requests) == 1
    standin.call(standin.conns[0].set_limit, 100)
    assert all(drive.result(r)["class"] == "accepted" for r in rows)
    assert len(standin.conns) == 1


def test_connections_grow_only_under_lasting_load(make, standin, keys):
    d = make(grow_ms=100)
    d.app(**keys, endpoint=endpoint(standin.port), max_conns=3)
    d.start()
    standin.limit = 5
    standin.delay = 0.05
    d.op("load", n=300, app="chat", token="00" * 32, title="x")
    e = d.next("loaded", 20)
    assert e["accepted"] == 300
    assert len(standin.conns) == 3


def test_a_server_that_is_behind_gets_no_second_connection(make, standin, keys):
    """All streams are in use and answers come, but late: more of them at once would time out."""
    d = make(grow_ms=1000, slow_ms=100)
    d.app(**keys, endpoint=endpoint(standin.port), max_conns=3)
    d.start()
    standin.limit, standin.delay = 5, 0.3
    d.op("load", n=40, app="chat", token="00" * 32, title="x")
    assert d.next("loaded", 20)["accepted"] == 40
    assert len(standin.conns) == 1


def test_one_silent_stream_does_not_hold_up_the_rest(make, standin, keys):
    """With room for one stream alone, and that one unanswered, another connection is made: by the clock, since no answer comes."""
    d = make(grow_ms=200, request_ms=6000)
    d.app(**keys, endpoint=endpoint(standin.port), max_conns=2)
    d.start()
    standin.limit = 1
    d.ask()

    async def forget(conn, request):
        return True
    standin.fault = once(forget)
    silent = d.send()
    until(lambda: len(standin.requests) == 2)
    until(lambda: d.room() > 0, 3)
    assert d.ask(timeout=2)["class"] == "accepted" and silent not in d.results
    assert len(standin.conns) == 2


# ---- 6, 7: GOAWAY

@pytest.mark.parametrize("reason", [None, "Shutdown"])
@pytest.mark.parametrize("last", ["k", "k-2", "0", "max"])
def test_goaway_sends_again_exactly_what_was_not_processed(drive, standin, last, reason):
    drive.ask()
    batch, state = [], {"gone": False}

    async def goaway(conn, request):
        """The tenth says goodbye; what is above the last id is never looked at, the rest is answered."""
        if state["gone"]:
            return False
        batch.append(request)
        if len(batch) < 10:
            return True
        state["gone"] = True
        streams = sorted(r.stream for r in batch)
        said = {"k": streams[-1], "k-2": streams[-1] - 4, "0": 0, "max": 2**31 - 1}[last]
        conn.goaway(said, reason)
        await asyncio.sleep(0.05)
        for r in batch:
            if r.stream <= said:
                conn.answer(r)
        return True
    standin.fault = goaway
    met = drive.deliver(10)
    unprocessed = {"k": 0, "k-2": 2, "0": 10, "max": 0}[last]
    assert sum(m[0] == "unsent" for m in met.values()) == unprocessed, met
    assert all(m[-1] == "accepted" for m in met.values())
    ids = [i for i in accepted_ids(standin) if i.startswith("1111")]
    assert sorted(ids) == [uuid(i) for i in range(10)]  # each exactly once
    assert "push_goaway_total" in drive.metrics()["text"]
    assert f'reason="{reason or "none"}"' in drive.metrics()["text"]


def test_goaway_because_of_the_certificate_is_a_fault_of_configuration(drive, standin):
    async def goaway(conn, request):
        conn.goaway(0, "BadCertificate")
        return True
    standin.fault = goaway
    r = drive.ask()
    assert (r["class"], r["reason"]) == ("config", "BadCertificate")


def test_goaway_every_20_requests_goes_on(make, standin, keys):
    d = make(connect_each_ms=100)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()

    async def goaway(conn, request):
        if conn.count == 20:
            conn.goaway(conn.last)
        return False
    standin.fault = goaway
    began = time.monotonic()
    met = d.deliver(200)
    assert all(m[-1] == "accepted" for m in met.values())
    assert sorted(accepted_ids(standin)) == [uuid(i) for i in range(200)]
    assert len(standin.conns) <= 5 + (time.monotonic() - began) / 0.1 + 1


@pytest.mark.parametrize("how", ["close", "abort"])
def test_goaway_and_an_immediate_close(make, standin, keys, how):
    d = make()
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()
    batch = []

    async def goaway(conn, request):
        batch.append(request)
        if len(batch) == 20:
            conn.goaway(0)
            getattr(conn, how)()
        return len(batch) <= 20
    standin.fault = goaway
    met = d.deliver(20)
    assert all(m[-1] == "accepted" for m in met.values())
    if how == "close":  # it was read before the end: nothing is in doubt
        assert sorted(i for i in accepted_ids(standin) if i[0] == "1") == [uuid(i) for i in range(20)]
        assert not any("unknown" in m for m in met.values()), met


def test_server_that_only_says_goodbye_is_not_hammered(make, standin, keys):
    d = make(backoff_least_ms=100, backoff_most_ms=400)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()

    async def goaway(conn, request):
        conn.goaway(0)
        conn.close()
        return True
    standin.fault = goaway
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if d.room():
            assert d.ask()["class"] in ("unsent", "unreachable")
        time.sleep(0.005)
    assert len(standin.conns) <= 12, len(standin.conns)


# ---- 8, 9: reset

@pytest.mark.parametrize("code, expected", [(7, "unsent"), (2, "unknown"), (11, "unknown")], ids=["REFUSED_STREAM", "INTERNAL_ERROR", "ENHANCE_YOUR_CALM"])
def test_stream_reset(drive, standin, code, expected):
    drive.ask()

    async def reset(conn, request):
        conn.rst(request, code)
        return True
    standin.fault = once(reset)
    met = drive.deliver(1)
    assert met[0] == [expected, "accepted"]
    assert [r["apns-id"] for r in standin.requests][1:] == [uuid(0)] * 2  # the same id
    assert len({r["apns-collapse-id"] for r in standin.requests}) == 1
    assert len(standin.conns) == 1  # one stream's trouble is not the connection's


def test_server_that_refuses_every_stream_is_not_hammered(drive, standin):
    drive.ask()

    async def refuse(conn, request):
        conn.rst(request, 7)
        return True
    standin.fault = refuse
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        if drive.room():
            drive.send()
        time.sleep(0.001)
    assert len(standin.requests) < 150, len(standin.requests)


async def reset_before(conn, request):
    conn.abort()
    return True


async def reset_after_headers(conn, request):
    conn.raw_headers(request, [(":status", "200")])
    await asyncio.sleep(0.05)
    conn.abort()
    return True


async def reset_in_body(conn, request):
    conn.raw_headers(request, [(":status", "400")])
    conn.raw_data(request, b'{"reason":"BadDevi')
    await asyncio.sleep(0.05)
    conn.abort()
    return True


@pytest.mark.parametrize("fault", [reset_before, reset_after_headers, reset_in_body])
def test_connection_reset_is_unknown_and_repeated_under_the_same_id(drive, standin, fault):
    drive.ask()
    standin.fault = once(fault)
    met = drive.deliver(1)
    assert met[0] == ["unknown", "accepted"]
    assert [r["apns-id"] for r in standin.requests][1:] == [uuid(0)] * 2


# ---- 10, 11: silence

def test_frozen_peer_costs_two_timeouts_and_one_new_connection(make, standin, keys):
    d = make(request_ms=400)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()
    standin.call(standin.conns[0].freeze)
    met = d.deliver(10)
    assert all(m == ["unknown", "accepted"] for m in met.values()), met
    assert len(standin.conns) == 2
    standin.call(standin.conns[0].thaw)
    until(lambda: len(standin.accepted) >= 21)  # what it had read it processes: hence the same ids
    assert {i for i in accepted_ids(standin)[1:]} == {uuid(i) for i in range(10)}


def test_one_timeout_keeps_the_connection(make, standin, keys):
    d = make(request_ms=300)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()

    async def forget(conn, request):
        return True
    standin.fault = once(forget)
    r = d.ask()
    assert (r["class"], r["reason"]) == ("unknown", "timeout")
    assert d.ask()["class"] == "accepted"
    assert len(standin.conns) == 1


def test_idle_connection_is_pinged_and_kept(make, standin, keys):
    d = make(ping_idle_ms=100, ping_ack_ms=500)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()
    until(lambda: standin.conns[0].pings >= 3)
    assert d.gauge("push_ping_rtt_seconds") > 0
    assert d.ask()["class"] == "accepted"
    assert len(standin.conns) == 1


def test_unanswered_ping_ends_the_connection(make, standin, keys):
    d = make(ping_idle_ms=100, ping_ack_ms=200)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()
    standin.conns[0].answer_pings = False
    until(lambda: standin.lost)
    standin.conns[0].answer_pings = True
    assert d.ask()["class"] == "accepted"
    assert len(standin.conns) == 2 and "PING not answered" in d.log()


def test_flood_of_pings_is_cut_off(drive, standin):
    drive.ask()
    conn = standin.conns[0]
    flood = PingFrame(0, opaque_data=b"abcdefgh").serialize() * 5000
    standin.call(lambda: conn.transport and conn.transport.write(flood))
    until(lambda: conn in standin.lost)
    assert drive.ask()["class"] == "accepted"
    assert "flood" in drive.log() and len(standin.conns) == 2


def test_old_connection_is_replaced(make, standin, keys):
    d = make(age_ms=300)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    d.ask()
    until(lambda: len(standin.lost) == 1)
    assert d.ask()["class"] == "accepted"
    assert len(standin.conns) == 2


def test_stream_ids_used_up(make, standin, keys):
    d = make(last_stream=41)
    d.app(**keys, endpoint=endpoint(standin.port))
    d.start()
    met = d.deliver(60)
    assert all(m == ["accepted"] for m in met.values()), met
    assert max(r.stream for r in standin.requests) == 41 and len(standin.conns) >= 2


# ---- 12: odd framing

async def one_byte_frames(conn, r):
    conn.raw_headers(r, [(":status", "410")])
    body = b'{"reason":"Unregistered","timestamp":1700000000000}'
    for i in range(len(body)):
        conn.raw_data(r, body[i:i + 1], end=i == len(body) - 1)
    return True


async def padded(conn, r):
    conn.raw_headers(r, [(":status", "410")])
    conn.raw_data(r, b'{"reason":"Unregistered"', pad=200)
    conn.raw_data(r, b',"timestamp":1700000000000}', pad=255, end=True)
    return True


async def trailers(conn, r):
    conn.raw_headers(r, [(":status", "410")])
    conn.raw_data(r, b'{"reason":"Unregistered","timestamp":1700000000000}')
    conn.raw_headers(r, [("x-trailer", "1")], end=True)
    return True


async def continuation(conn, r):
    block = conn.header_block([(":status", "410"), ("apns-id", r["apns-id"]), ("x-long", "y" * 3000)])
    first = HeadersFrame(r.stream, data=block[:10])
    frames = [first] + [ContinuationFrame(r.stream, data=block[i:i + 700]) for i in range(10, len(block), 700)]
    frames[-1].flags.add("END_HEADERS")
    conn.frame(*frames)
    conn.raw_data(r, b'{"reason":"Unregistered","timestamp":1700000000000}', end=True)
    return True


@pytest.mark.parametrize("fault", [one_byte_frames, padded, trailers, continuation])
def test_odd_framing_is_read(drive, standin, fault):
    drive.ask()
    standin.fault = once(fault)
    r = drive.ask()
    assert (r["class"], r["reason"], r["invalid_since_ms"]) == ("token_invalid", "Unregistered", 1700000000000), r
    assert drive.ask()["class"] == "accepted"
    assert len(standin.conns) == 1


async def header_of_64k(conn, r):
    block = conn.header_block([(":status", "200")] + [(f"x-{i}", "y" * 4000) for i in range(16)])
    frames = [HeadersFrame(r.stream, data=block[:16000])] + [ContinuationFrame(r.stream, data=block[i:i + 16000]) for i in range(16000, len(block), 16000)]
    frames[-1].flags.add("END_HEADERS")
    conn.frame(*frames)
    return True


def test_header_of_64_kib_ends_the_stream_or_the_connection(drive, standin):
    drive.ask()
    before = drive.metrics()["kib"]
    standin.fault = once(header_of_64k)
    assert drive.ask()["class"] == "unknown"
    assert drive.ask()["class"] == "accepted"
    assert drive.metrics()["kib"] - before < 4096


def test_body_of_10_mb_is_cut_and_judged_by_its_status(drive, standin):
    drive.ask()
    before = drive.metrics()["kib"]

    async def flood(conn, r):
        conn.raw_headers(r, [(":status", "503")])
        for _ in range(640):
            if r.stream not in conn.requests or not conn.transport:
                break
            conn.raw_data(r, b"x" * 16000)
            await asyncio.sleep(0)
        return True
    standin.fault = once(flood)
    r = drive.ask()
    assert (r["class"], r["status"]) == ("retry", 503)
    assert drive.deliver(3)[2][-1] == "accepted"
    assert drive.metrics()["kib"] - before < 8192


# ---- 13, 14: odd answers

@pytest.mark.parametrize("status, body, expected", [
    (200, b'{"reason":"BadDeviceToken"}', "accepted"),
    (400, b"", "bug"),
    (400, b"<html>", "bug"),
    (400, b'{"reason":"BadDevice', "bug"),
    (400, b'{"reason":"Bad\x00DeviceToken"}', "bug"),
    (400, b'{"reason":7}', "bug"),
    (400, b'{"reason":null}', "bug"),
    (400, b'["BadDeviceToken"]', "bug"),
    (400, b"[" * 1000 + b"]" * 1000, "bug"),
    (400, b'{"a":' * 600 + b"1" + b"}" * 600, "bug"),
    (400, b'{"reason":"' + b"x" * 3000 + b'"}', "bug"),
    (410, b"", "token_invalid"),
    (410, b"gone", "token_invalid"),
    (410, b'{"reason":"NeverHeardOf"}', "bug"),
    (403, b'{"reason":"BadDeviceToken"}', "config"),
    (404, b'{"reason":"Unregistered"}', "bug"),
    (400, b'{"reason":"Unregistered"}', "bug"),
    (500, b'{"reason":"BadDeviceToken"}', "retry"),
    (301, b"", "config"), (302, b"", "config"), (204, b"", "accepted"), (401, b"", "config"), (418, b"", "bug"), (429, b"", "rate"),
    (502, b"<html>", "retry"), (599, b"", "retry"),
])
def test_answers_are_judged_by_status_if_not_by_reason(drive, standin, status, body, expected):
    drive.ask()

    async def odd(conn, r):
        conn.respond(r, status, body, headers=[("location", "https://localhost/elsewhere")])
        return True
    standin.fault = once(odd)
    r = drive.ask()
    assert (r["class"], r["status"]) == (expected, status)
    assert all(0x20 < ord(c) < 0x7F for c in r["reason"])
    assert len(standin.conns) == 1


def test_announcements_before_the_answer(drive, standin):
    drive.ask()

    async def early(conn, r):
        conn.raw_headers(r, [(":status", "100")])
        conn.raw_headers(r, [(":status", "103"), ("link", "</x>")])
        return False
    standin.fault = once(early)
    assert drive.ask()["class"] == "accepted"


def test_answer_without_a_status_is_unknown(drive, standin):
    drive.ask()

    async def no_status(conn, r):
        conn.raw_headers(r, [("apns-id", r["apns-id"])], end=True)
        return True
    standin.fault = once(no_status)
    assert drive.ask()["class"] == "unknown"
    assert drive.ask()["class"] == "accepted"
