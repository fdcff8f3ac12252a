"""A place with keys and certificates for all tests of push; one stand-in and one driver for each test that asks for them."""
import pathlib
import sys
import types

import pytest
from cryptography.hazmat.primitives import serialization

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import certs  # noqa: E402
from apns_standin import Standin  # noqa: E402
from drive import Drive  # noqa: E402

KID, TEAM, TOPIC = "ABC123DEFG", "TEAM123456", "com.example.chat"


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    ca = certs.Authority()
    key = certs.p256()
    (folder / "ca.pem").write_bytes(ca.pem())
    certs.write_secret(folder / "server.pem", ca.server())
    certs.write_secret(folder / "key.p8", certs.key_pem(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return types.SimpleNamespace(dir=folder, ca=ca, key=key, public=public, server=folder / "server.pem", ca_file=folder / "ca.pem", key_file=folder / "key.p8")


@pytest.fixture
def standin(place):
    with Standin(place.server, keys={KID: (TEAM, place.public)}, topics={TOPIC}) as s:
        yield s
    assert not s.errors, s.errors


@pytest.fixture
def keys(place):
    """An app's file but for the endpoint."""
    return dict(key_file=place.key_file, key_id=KID, team_id=TEAM, topic=TOPIC, ca_file=place.ca_file)


@pytest.fixture
def make(tmp_path):
    """make(provider, times) -> a driver, stopped at the end of the test."""
    drives = []

    def build(provider="apns", **times):
        d = Drive(tmp_path, provider, **times)
        drives.append(d)
        return d
    yield build
    for d in drives:
        if d.process.returncode is None:
            d.stop()


@pytest.fixture
def drive(make, standin, keys):
    """Started, with the app `chat` on the stand-in."""
    d = make()
    d.app(**keys, endpoint=f"https://localhost:{standin.port}")
    assert d.start()["event"] == "started"
    return d
