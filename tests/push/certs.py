"""Keys and certificates for the stand-ins, made anew for each run: nothing secret lies in the repository."""
import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID, ObjectIdentifier

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
TOPICS = ObjectIdentifier("1.2.840.113635.100.6.3.6")  # where Apple lists the topics of a certificate


def key_pem(key):
    return key.private_bytes(PEM, PKCS8, serialization.NoEncryption())


def write_secret(path, data, mode=0o600):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def p256():
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def days(n):
    return datetime.datetime.utcnow() + datetime.timedelta(days=n)


def utf8(text):
    data = text.encode()
    return bytes([0x0C, len(data)]) + data


class Authority:
    def __init__(self, name="test authority"):
        self.key = p256()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self._build(self.name, self.key.public_key(), -1, 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(self.key, hashes.SHA256())

    def _build(self, subject, public, since, until):
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
                .serial_number(x509.random_serial_number()).not_valid_before(days(since)).not_valid_after(days(until)))

    def pem(self):
        return self.cert.public_bytes(PEM)

    def server(self, names=("localhost",), addresses=("127.0.0.1",), since=-1, until=30):
        """A key and a certificate as one PEM."""
        key = p256()
        alt = [x509.DNSName(n) for n in names] + [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
        cert = self._build(subject, key.public_key(), since, until).add_extension(
            x509.SubjectAlternativeName(alt), critical=False).sign(self.key, hashes.SHA256())
        return key_pem(key) + cert.public_bytes(PEM)

    def client(self, topic, since=-1, until=30, listed=()):
        """(key, certificate) as Apple makes them: the topic is the subject's UID, or a list in an extension."""
        key = rsa_key()
        subject = x509.Name([x509.NameAttribute(NameOID.USER_ID, topic), x509.NameAttribute(NameOID.COMMON_NAME, "Apple Push Services: " + topic)])
        build = self._build(subject, key.public_key(), since, until)
        if listed:
            items = b"".join(utf8(t) + b"\x30\x05" + utf8("app") for t in listed)
            build = build.add_extension(x509.UnrecognizedExtension(TOPICS, bytes([0x30, len(items)]) + items), critical=False)
        return key, build.sign(self.key, hashes.SHA256())


def p12(key, cert, password):
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"push", key, cert, None, lock)
