"""Who gets in and who does not: tokens of an independent library, certificates over real TLS, and who guesses."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import time

import jwt
import pytest

from client import Client
from instance import Instance
from ports import free_ports
from raw import CONNACK, Raw, packet, text

ALGORITHMS = {"HS256": None, "HS384": None, "HS512": None, "RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa",
              "PS512": "rsa", "ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "ed25519"}
SECRET = "e2e-" + hashlib.sha512(b"of this test only").hexdigest()
AUDIENCE = "im.example"
TOKEN_MARK = "jwtmark" + hashlib.sha256(b"find me in a log").hexdigest()[:16]


def openssl(*args, **more):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, text=True, **more).stdout


class Authority:
    """A CA with openssl's own tools, in a folder."""

    def __init__(self, folder, name):
        self.dir, self.name = folder, name
        self.key, self.cert = folder / f"{name}.key", folder / f"{name}.crt"
        (folder / f"{name}.index").write_text("")
        (folder / f"{name}.cnf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/{name}.index\ndefault_md=sha256\ndefault_crl_days=9\n")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 9, "-subj", f"/CN={name}",
                "-keyout", self.key, "-out", self.cert)

    def issue(self, name, subject, san=None, days=9):
        key, csr, cert, ext = (self.dir / f"{name}.{x}" for x in ("key", "csr", "crt", "ext"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout", key, "-out", csr)
        ext.write_text(f"subjectAltName={san}\n" if san else "basicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", days, "-extfile", ext, "-out", cert)
        return cert, key

    def crl(self, *revoked):
        cnf, out = self.dir / f"{self.name}.cnf", self.dir / f"{self.name}.crl"
        for cert in revoked:
            openssl("ca", "-config", cnf, "-keyfile", self.key, "-cert", self.cert, "-revoke", cert)
        openssl("ca", "-config", cnf, "-keyfile", self.key, "-cert", self.cert, "-gencrl", "-out", out)
        return out


class Setup:
    """Keys, certificates and the settings that name them."""

    def __init__(self, folder):
        self.dir = folder
        folder.chmod(0o755)
        self.tls_port, self.mtls_port, self.wss_port = free_ports(3)
        self._make_keys()
        self._make_certificates()
        files = {"d": folder}
        self.conf = [
            "plugin_opt_im_jwt_keys " + ", ".join([f"{a}:{folder}/{ALGORITHMS[a] or 'secret'}.pem" for a in ("RS256", "PS256", "ES256", "EdDSA")]
                                                  + [f"HS256:{folder}/secret", f"jwks:{folder}/set.json"]),
            f"plugin_opt_im_jwt_audience {AUDIENCE}", "plugin_opt_im_jwt_skew 0", "plugin_opt_im_certificate_user cn",
            "plugin_opt_im_login_wait 60", "plugin_opt_im_login_tries 3", "plugin_opt_im_login_interval 10", "plugin_opt_im_login_burst 100",
            "plugin_opt_im_hash_memory 1024",
        ] + [line.format(**files) for line in (
            f"listener {self.tls_port} 127.0.0.1", "certfile {d}/server.crt", "keyfile {d}/server.key",
            f"listener {self.wss_port} 127.0.0.1", "protocol websockets", "socket_domain ipv4", "certfile {d}/server.crt", "keyfile {d}/server.key",
            f"listener {self.mtls_port} 127.0.0.1", "certfile {d}/server.crt", "keyfile {d}/server.key", "cafile {d}/ca.crt",
            "crlfile {d}/ca.crl", "require_certificate true")]

    def _make_keys(self):
        d = self.dir
        (d / "secret").write_text(SECRET + "\n")
        (d / "secret").chmod(0o600)
        self.private = {}
        for name, make in (("rsa", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]), ("ed25519", ["-algorithm", "ED25519"]),
                           *((c, ["-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{c}"]) for c in ("P-256", "P-384", "P-521"))):
            self.private[name] = openssl("genpkey", *make)
            (d / f"{name}.pem").write_text(openssl("pkey", "-pubout", input=self.private[name]))
        self.write_set(["RS256", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512", "HS384", "HS512"])

    def write_set(self, algorithms, suffix=""):
        """A JWK Set as PyJWT writes keys, with the algorithm as kid."""
        from jwt.algorithms import get_default_algorithms
        keys = []
        for a in algorithms:
            made = get_default_algorithms()[a]
            material = made.prepare_key(SECRET if a[0] == "H" else (self.dir / f"{ALGORITHMS[a]}.pem").read_text())
            if a[0] == "E":  # PyJWT 2.6 reads such keys and does not write them
                size = {"ES256": 32, "ES384": 48, "ES512": 66}[a]
                n = material.public_numbers()
                b64 = lambda v: base64.urlsafe_b64encode(v.to_bytes(size, "big")).rstrip(b"=").decode()  # noqa: E731
                key = {"kty": "EC", "crv": ALGORITHMS[a], "x": b64(n.x), "y": b64(n.y)}
            else:
                key = made.to_jwk(material)
                key = json.loads(key) if isinstance(key, str) else key
            keys.append({**key, "kid": a + suffix, "alg": a})
            keys[-1].pop("key_ops", None)
        path = self.dir / "set.json"
        path.touch(0o600)
        path.write_text(json.dumps({"keys": keys}))

    def _make_certificates(self):
        self.ca, self.other = Authority(self.dir, "ca"), Authority(self.dir, "other")
        self.ca.issue("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1")
        self.certs = {name: self.ca.issue(name, subject) for name, subject in (
            ("alice", "/CN=alice"), ("bob", "/CN=bob"), ("revoked", "/CN=alice"), ("capital", "/CN=Alice"), ("two", "/CN=alice/CN=bob"),
            ("nobody", "/CN=sensor7"), ("nocn", "/O=alice"))}
        self.certs["wrong ca"] = self.other.issue("foreign", "/CN=alice")
        self.ca.crl(self.certs["revoked"][0])

    def token(self, algorithm="ES256", headers=None, key=None, **claims):
        claims = {"sub": "alice", "aud": AUDIENCE, "exp": int(time.time()) + 60, **claims}
        claims = {k: v for k, v in claims.items() if v is not None}
        key = key or (SECRET if algorithm[0] == "H" else self.private[ALGORITHMS[algorithm]])
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


@pytest.fixture(scope="module")
def im(tmp_path_factory):
    setup = Setup(tmp_path_factory.mktemp("login"))
    with Instance(conf=setup.conf) as instance:
        instance.setup = setup
        instance.users = instance.add_users(["alice", "bob", "carol", "dave"])
        yield instance
    shutil.rmtree(setup.dir, ignore_errors=True)


def rc(im, user, password, client_id=None, v5=False):
    with Raw(im.port, user, client_id or f"{user}:r", password, v5=v5) as c:
        return c.rc


def rule(im, user, client_id):
    return json.loads(im.imctl("why", user, "connect", client_id, "--json", check=False).stdout)["last_refused"]["rule"]


def arrives(client, sender, body):
    """The message comes; what earlier tests left for this user may come before it."""
    while client.json(f"im/v1/in/msg/u/{sender}")["body"] != body:
        pass


# ---- JWT


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_of_every_algorithm_open(im, algorithm):
    token = im.setup.token(algorithm, headers={"kid": algorithm} if algorithm not in ("HS256", "PS256", "ES256", "EdDSA") else None)
    assert rc(im, "alice", token) == 0
    assert rc(im, "alice", token, v5=True) == 0
    assert rc(im, "bob", token) == 5
    assert rc(im, "bob", token, v5=True) == 0x87
    assert rule(im, "bob", "bob:r") == "jwt_user"
    assert rc(im, "alice", token, "bob:phone") == 5
    assert rule(im, "alice", "bob:phone") == "client_id_named"
    assert rc(im, "alice", token[:-8] + "AAAAAAAA") == 5


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


def test_bad_tokens_are_refused_and_the_rule_is_known(im):
    make, now = im.setup.token, int(time.time())
    claims = {"sub": "alice", "aud": AUDIENCE, "exp": now + 60}
    public = (im.setup.dir / "rsa.pem").read_bytes()

    def confused(key):
        start = b64({"alg": "HS256"}) + "." + b64(claims)
        return start + "." + b64(hmac.new(key, start.encode(), "sha256").digest())
    good = make()
    cases = [
        (b64({"alg": "none"}) + "." + b64(claims) + ".", "jwt_malformed"), (b64({"alg": "none"}) + "." + b64(claims) + ".AA", "jwt_no_key"),
        (confused(public), "jwt_signature"), (confused(public.strip()), "jwt_signature"), (confused(b""), "jwt_signature"),
        (make(headers={"kid": "../../../../dev/null"}, algorithm="ES384"), "jwt_no_key"),
        (make(headers={"crit": ["exp"]}), "jwt_header"), (make(headers={"typ": "logout+jwt"}), "jwt_header"),
        (make(key=openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
              headers={"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}), "jwt_signature"),
        (make(exp=now - 1), "jwt_expired"), (make(exp=None), "jwt_time"), (make(nbf=now + 30), "jwt_early"), (make(iat=now + 30), "jwt_early"),
        (make(aud="other"), "jwt_audience"), (make(aud=None), "jwt_audience"), (make(sub="Alice"), "jwt_claim"), (make(sub=None), "jwt_claim"),
        (make(pad="x" * 9000), "jwt_too_large"), (good + "=", "jwt_malformed"), (good + "\n", "jwt_malformed"),
    ]
    for token, want in cases:
        assert rc(im, "alice", token, "alice:bad") == 5, want
        assert rule(im, "alice", "alice:bad") == want
    assert rc(im, "alice", good, "alice:bad") == 0


def test_without_a_user_name_the_token_says_who_it_is(im):
    with Raw(im.port, "", "alice:anon", im.setup.token()) as c:
        assert c.rc == 0
        assert c.subscribe("im/v1/in/#") == 1
        with Client(im, "bob", "pc") as bob:
            bob.publish("im/v1/to/u/alice", "by name of the token")
        while True:
            topic, payload = c.message()
            if topic == "im/v1/in/msg/u/bob":
                break
        assert json.loads(payload)["body"] == "by name of the token"
        with Raw(im.port, "", "bob:anon", im.setup.token()) as other:
            assert other.rc == 5
    s = Raw(im.port, None, "alice:anon5", im.setup.token(), v5=True)  # MQTT 5 may leave the name out
    assert s.rc == 0
    s.close()


def test_session_ends_when_its_token_expires(im):
    expires = int(time.time()) + 3
    with Raw(im.port, "alice", "alice:short", im.setup.token(exp=expires), v5=True) as c, Client(im, "bob", "stays") as bob:
        assert c.rc == 0
        c.subscribe("im/v1/in/#")
        bob.subscribe("im/v1/in/#")
        with pytest.raises((ConnectionError, socket.timeout)):
            while time.time() < expires + 5:
                kind, _, body = c.read(expires + 5 - time.time())
                if kind == 14:  # DISCONNECT: administrative action
                    assert body[0] == 0x98
                    raise ConnectionError
        assert expires <= time.time() < expires + 1.5
        assert rc(im, "alice", im.setup.token(exp=expires), "alice:short") == 5
        assert rule(im, "alice", "alice:short") == "jwt_expired"
        bob.publish("im/v1/to/u/bob", "still here")
        assert bob.json("im/v1/in/ack")


def test_many_tokens_expiring_at_once_do_not_stop_the_broker(im):
    expires = int(time.time()) + 4
    token = im.setup.token(exp=expires)
    many = [Raw(im.port, "alice", f"crowd{i}", token) for i in range(400)]
    assert time.time() < expires and all(c.rc == 0 for c in many)
    slowest = 0
    with Client(im, "bob", "beside") as bob:
        while time.time() < expires + 1.5:
            began = time.monotonic()
            bob.publish("im/v1/to/u/carol", "tick")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.005)  # as fast as it can would leave bob's next device tens of thousands of own messages to catch up with
    print(f"slowest PUBACK beside 400 expiring sessions: {slowest * 1000:.1f} ms")
    assert slowest < 1
    for c in many:
        with pytest.raises(OSError):
            while True:
                c.read(2)
        c.close()


def test_keys_are_read_again_at_sighup(im):
    token = im.setup.token("ES512", headers={"kid": "ES512-next"})
    assert rc(im, "alice", token) == 5
    assert rule(im, "alice", "alice:r") == "jwt_no_key"
    with Client(im, "alice", "before", password=im.setup.token("ES384", headers={"kid": "ES384"})) as stays:
        im.setup.write_set(["ES512"], "-next")
        os.kill(im.pids()["mosquitto"], signal.SIGHUP)
        deadline = time.monotonic() + 10
        while rc(im, "alice", token) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert rc(im, "alice", im.setup.token("ES384", headers={"kid": "ES384"})) == 5
        stays.publish("im/v1/to/u/bob", "a session that is open stays open")
        (im.setup.dir / "set.json").write_text("{")  # a mistake: the old keys stay
        os.kill(im.pids()["mosquitto"], signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "the old keys stay" not in im.logs(1000):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert rc(im, "alice", token) == 0
    im.setup.write_set(["RS256", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512", "HS384", "HS512"])
    os.kill(im.pids()["mosquitto"], signal.SIGHUP)


def test_tokens_and_passwords_stay_out_of_logs(im):
    bad = im.setup.token(sub="Alice", mark=TOKEN_MARK)
    parts = [bad, *bad.split(".")[1:]]
    assert rc(im, "alice", bad) == 5
    assert rc(im, "alice", "password-" + TOKEN_MARK) == 5
    time.sleep(0.3)  # what is going to be logged
    for path in [*pathlib.Path(im.dir, "log").glob("*")]:
        content = path.read_text(errors="replace")
        assert TOKEN_MARK not in content and SECRET not in content
        assert not any(p in content for p in parts)


def test_why_tells_the_ways_to_log_in(im):
    answer = json.loads(im.imctl("why", "alice", "connect", "alice:new", "--json").stdout)
    assert answer["allowed"]
    for part in ("1 tokens", "JWTs (", "sub = alice", f"aud {AUDIENCE}", "exp needed", "client certificates (CN = alice)", "the password"):
        assert part in answer["reason"], part


# ---- TLS


class TlsClient(Client):
    def __init__(self, im, user, device, port, cert=None, ws=False, password=None, **more):
        super().__init__(im, user, device, password=password, websocket=ws, **more)
        context = ssl.create_default_context(cafile=im.setup.dir / "ca.crt")
        if cert:
            context.load_cert_chain(*im.setup.certs[cert])
        self.mqtt.tls_set_context(context)
        self.port = port


def refused(im, cert, user=None, password=None, client_id="alice:tls"):
    """0x.. of the CONNACK, or None: TLS itself was refused."""
    context = ssl.create_default_context(cafile=im.setup.dir / "ca.crt")
    if cert:
        context.load_cert_chain(*im.setup.certs[cert])
    flags = 2 | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    tail = (text(user) if user is not None else b"") + (text(password) if password is not None else b"")
    try:
        with socket.create_connection(("127.0.0.1", im.setup.mtls_port), 10) as plain, context.wrap_socket(plain, server_hostname="localhost") as s:
            s.sendall(packet(1, 0, text("MQTT"), bytes([4, flags, 0, 60]), text(client_id), tail))
            answer = s.recv(4)
            return answer[3] if len(answer) == 4 and answer[0] >> 4 == CONNACK else None
    except (ssl.SSLError, OSError):
        return None


def test_chat_over_tls_and_over_tls_websockets(im):
    with TlsClient(im, "alice", "tls", im.setup.tls_port) as alice, TlsClient(im, "bob", "wss", im.setup.wss_port, ws=True) as bob, \
            TlsClient(im, "carol", "tls5", im.setup.tls_port, v5=True) as carol:
        for c in (alice, bob, carol):
            assert c.rc == 0
            c.subscribe("im/v1/in/#")
        alice.publish("im/v1/to/u/bob", "over TLS")
        arrives(bob, "alice", "over TLS")
        bob.publish("im/v1/to/u/carol", "over WSS")
        arrives(carol, "bob", "over WSS")
        carol.publish("im/v1/to/u/alice", "x" * 100000)  # more than one TLS record
        arrives(alice, "carol", "x" * 100000)
    with TlsClient(im, "dave", "tls", im.setup.tls_port) as dave, TlsClient(im, "alice", "late", im.setup.tls_port) as alice:
        dave.subscribe("im/v1/in/#")
        for i in range(200):
            alice.publish("im/v1/to/u/dave", f"n{i}")
        got = [dave.json("im/v1/in/msg/u/alice")["body"] for _ in range(200)]
        assert got == [f"n{i}" for i in range(200)]


def test_plain_bytes_on_a_tls_port_harm_nobody(im):
    for port in (im.setup.tls_port, im.setup.mtls_port, im.setup.wss_port):
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(packet(1, 0, text("MQTT"), bytes([4, 2, 0, 60]), text("alice:x")) * 50)
            try:
                while s.recv(100):
                    pass
            except OSError:
                pass
    assert rc(im, "alice", im.users["alice"]) == 0


def test_certificate_logs_in_without_a_password(im):
    with TlsClient(im, "alice", "cert", im.setup.mtls_port, "alice", password="") as alice, Client(im, "bob", "pc2") as bob:
        assert alice.rc == 0
        alice.subscribe("im/v1/in/#")
        bob.subscribe("im/v1/in/#")
        bob.publish("im/v1/to/u/alice", "to the certificate")
        arrives(alice, "bob", "to the certificate")
        alice.publish("im/v1/to/u/bob", "from the certificate")
        arrives(bob, "alice", "from the certificate")  # the topic has the sender's name, as the broker stamped it


def test_certificate_decides_who_it_is(im):
    assert refused(im, "alice") == 0  # neither name nor password
    assert refused(im, "alice", "alice") == 0
    assert refused(im, "alice", "") == 0
    assert refused(im, "alice", "alice", "any password") == 0
    assert refused(im, "alice", "alice", im.users["alice"]) == 0
    assert refused(im, "alice", "bob", None, "bob:tls") == 5
    assert rule(im, "bob", "bob:tls") == "certificate_user"
    assert refused(im, "alice", "bob", im.users["bob"], "bob:tls") == 5  # not even with bob's own token
    assert refused(im, "alice", None, None, "bob:tls") == 5  # the client id is still bob's
    assert refused(im, "bob", None, None, "bob:tls") == 0
    assert refused(im, "alice", "alice", im.setup.token(sub="bob")) == 5
    assert refused(im, "alice", "alice", im.setup.token()) == 0


def test_other_certificates_open_nothing(im):
    assert refused(im, None, "alice", im.users["alice"]) is None
    assert refused(im, "wrong ca", "alice", im.users["alice"]) is None
    assert refused(im, "revoked", "alice", im.users["alice"]) is None
    for cert in ("capital", "two", "nocn"):  # valid, and no name of a user in it
        assert refused(im, cert, "alice") == 5
        assert rule(im, "alice", "alice:tls") == "certificate_name"
        assert refused(im, cert, None) == 5
        assert refused(im, cert, "alice", im.users["alice"]) == 0
    assert refused(im, "nobody", None, None, "sensor7") == 5  # nobody of ours; this broker has no anonymous clients
    assert refused(im, "nobody", "alice") == 5


def resumed(im, session=None):
    """(CONNACK or None, session, whether it was resumed) of a TLS 1.2 connection with bob's second certificate."""
    context = ssl.create_default_context(cafile=im.setup.dir / "ca.crt")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*im.setup.certs["later"])
    if session:
        context = session[0]
    try:
        with socket.create_connection(("127.0.0.1", im.setup.mtls_port), 10) as plain, \
                context.wrap_socket(plain, server_hostname="localhost", session=session and session[1]) as s:
            s.sendall(packet(1, 0, text("MQTT"), bytes([4, 2, 0, 60]), text("bob:later")))
            return s.recv(4)[3:] == b"\0", (context, s.session), s.session_reused
    except (ssl.SSLError, OSError):
        return None, None, None


def test_revocation_is_in_force_after_sighup(im):
    im.setup.certs["later"] = im.setup.ca.issue("later", "/CN=bob")
    ok, session, _ = resumed(im)
    assert ok and resumed(im, session)[0]
    im.setup.ca.crl(im.setup.certs["later"][0])
    os.kill(im.pids()["mosquitto"], signal.SIGHUP)
    deadline = time.monotonic() + 10
    while resumed(im)[0]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not resumed(im, session)[0]  # nor by an earlier TLS session
    assert refused(im, "bob", None, None, "bob:tls") == 0  # the other one is as good as before


# ---- guessing


def test_guessing_is_slowed_and_harms_nobody_else(im):
    password = "correct-" + TOKEN_MARK
    im.imctl("user", "password", "carol", stdin=password + "\n")
    outcome = [rc(im, "carol", f"guess {i}", "carol:guess") for i in range(8)]
    assert outcome == [5] * 8
    assert rule(im, "carol", "carol:guess") == "too_many_failures"
    assert rc(im, "carol", password, "carol:own") == 5  # not from here, not now: otherwise guesses would be answered
    assert rc(im, "carol", im.users["carol"], "carol:own") == 0  # tokens are not guessed
    assert rc(im, "carol", im.setup.token(sub="carol"), "carol:own") == 0
    with socket.socket() as s:  # the victim elsewhere
        s.bind(("127.0.0.77", 0))
        s.settimeout(10)
        s.connect(("127.0.0.1", im.port))
        s.sendall(packet(1, 0, text("MQTT"), bytes([4, 0xc2, 0, 60]), text("carol:away"), text("carol"), text(password)))
        assert s.recv(4)[3] == 0
