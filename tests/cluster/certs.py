"""Keys and certificates of one embedded cluster: an authority, a serving certificate, a token-signing key."""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "tailrace-test-ca"
LIFETIME = datetime.timedelta(days=30)
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")

_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificates:
    """Paths of the PEM files; every private key is readable by its owner only."""

    ca: Path
    server: Path
    server_key: Path
    tokens_key: Path


def write_certificates(folder: Path, addresses: Iterable[str]) -> Certificates:
    """Create `folder` and write a fresh set of keys and certificates into it, for a server at these addresses."""
    folder.mkdir(parents=True, mode=0o700)
    paths = Certificates(*(folder / name for name in ("ca.crt", "server.crt", "server.key", "tokens.key")))
    ca_key, server_key, tokens_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    paths.ca.write_bytes(_pem(_authority(ca_key)))
    paths.server.write_bytes(_pem(_serving(server_key, ca_key, addresses)))
    _write_key(paths.server_key, server_key)
    _write_key(paths.tokens_key, tokens_key)
    return paths


def _builder(subject: str, issuer: str, key: _Key) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(key: _Key) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(AUTHORITY, AUTHORITY, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _serving(key: _Key, ca_key: _Key, names: Iterable[str]) -> x509.Certificate:
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in names]
    hosts = [x509.DNSName(name) for name in SERVER_NAMES]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder("kube-apiserver", AUTHORITY, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: _Key) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
