"""Each bridge as it is installed: no credential, token or text in its log, command line, environment or figures, and no core file with them."""
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
from bridge import pb
from bridge_process import Process
from cryptography.hazmat.primitives.asymmetric import rsa
from instance import SANITIZED
from service import Service

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "push"))
import certs  # noqa: E402
import test_vendors  # noqa: E402
from http_standin import Standin  # noqa: E402
from test_fcm import account  # noqa: E402
from test_webpush import Subscription  # noqa: E402

WORDS = "words of a person"
REFUSED = ("evt=push_access", "evt=token_suspect", "evt=push_refused", "evt=connect_failed")
DEVICE = "5ec2e7" * 11 + "ab"


def apns_keys(folder, place):
    certs.write_secret(folder / "key.p8", certs.key_pem(certs.p256()))
    return dict(key_file=folder / "key.p8", key_id="ABC123DEFG", team_id="TEAM123456", topic="com.example.chat", endpoint=place.url)


def webpush_keys(folder, place):
    certs.write_secret(folder / "vapid.pem", certs.key_pem(certs.p256()))
    return dict(vapid_key_file=folder / "vapid.pem", subject="mailto:ops@example.com", allow_private="true", allow_ports="true")


MAKERS = {"apns": apns_keys, "webpush": webpush_keys, "fcm": lambda folder, place: account(folder, rsa.generate_private_key(65537, 2048), place),
          **{v.name: lambda folder, place, v=v: v.keys(folder, place.url) for v in test_vendors.VENDORS}}


class Bridge(Process):
    """Where a core file could be written, if the process allowed it; it logs everything."""

    def __init__(self, im, folder, provider, text):
        super().__init__(im, folder, provider, {"chat": text}, im_push_coalesce=0, im_log="debug")
        self.cwd = folder
        if provider in [v.name for v in test_vendors.VENDORS]:
            self.command = ["im-vendor-bridge", provider]

    def prepare(self):
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    ca = certs.Authority()
    (folder / "ca.pem").write_bytes(ca.pem())
    certs.write_secret(folder / "server.pem", ca.server())
    with Standin(folder / "server.pem") as s:
        s.ca_file = folder / "ca.pem"
        s.route("/", (403, {}, {"error": "invalid_grant"}))
        yield s


def secrets_of(keys):
    """Lines of the files that only the bridge may read."""
    for path in (v for k, v in keys.items() if k.endswith("_file")):
        text = json.loads(path.read_text())["private_key"] if path.suffix == ".json" else path.read_text()
        yield from (line for line in text.splitlines() if line and "-----" not in line)


def leaves_core(folder):
    p = subprocess.Popen(["sleep", "9"], cwd=folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2))
    return dumped(p)


def dumped(process):
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    return os.WCOREDUMP(status)


@pytest.mark.parametrize("provider", MAKERS)
def test_nothing_secret_is_seen(im, tmp_path, place, provider):
    keys = MAKERS[provider](tmp_path, place)
    if (tmp_path / "secret").exists():  # a vendor's, a few letters long
        certs.write_secret(tmp_path / "secret", b"0f3c-a-secret-that-stands-nowhere-else-9b1d")
    sub = Subscription(place.url + "/push/abc").fields() if provider == "webpush" else {"token": DEVICE}
    secrets = [*secrets_of(keys), WORDS, sub["token"], *([sub["auth"]] if "auth" in sub else []), "eyJ", (im.dir / "run/bus.secret").read_text().strip()]
    text = "".join(f"{k} {v}\n" for k, v in {**keys, "ca_file": place.ca_file}.items())
    bridge = Bridge(im, tmp_path / "push", provider, text)

    def ticket(job, ask):
        return {"verdict": pb.VERDICT_SEND, "token": pb.Token(app=job.app, registered_ms=1000, **sub), "title": "Bob", "body": WORDS, "msgid": job.key, "seq": 1}
    with Service(im, provider, ticket) as service, bridge:
        service.wait(lambda: service.greeted, 20)
        service.give(service.job("m1", conv="u/bob", seq=1))
        end = time.monotonic() + 15
        while not any(word in bridge.log() for word in REFUSED):
            assert time.monotonic() < end, bridge.log()  # it has tried with what it has, and says so
            time.sleep(0.02)
        pid = bridge.process.pid
        seen = {"log": bridge.log(), **{f: pathlib.Path(f"/proc/{pid}/{f}").read_text(errors="replace") for f in ("cmdline", "environ")}}
        assert not {(where, s) for where, said in seen.items() for s in secrets if s in said}
        assert not [f for f in bridge.state.rglob("*") if f.is_file() and f.stat().st_mode & 0o077]
        if not SANITIZED and leaves_core(tmp_path):
            assert not dumped(bridge.process)
