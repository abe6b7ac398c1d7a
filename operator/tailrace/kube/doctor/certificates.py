"""When a certificate ends, read from its bytes: the standard library tells it of nobody but a peer. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_EXPLICIT_VERSION = 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def ends_at(pem: str) -> float:
    """Return when the first certificate of a PEM text ends, in seconds of wall time; ValueError when it is none."""
    try:
        (_, certificate), *_ = _parts(_each(pem)[0])
        (_, signed), *_ = _parts(certificate)
        fields = [value for tag, value in _parts(signed) if tag != _EXPLICIT_VERSION]
        _, (tag, ends) = _parts(fields[3])  # after serial number, algorithm and issuer
        return datetime.strptime(ends.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC).timestamp()
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError("it is no certificate") from error


def certificates(pem: str) -> frozenset[bytes]:
    """Return the certificates of a PEM text as bytes; ValueError when it has none, or one is broken."""
    found = frozenset(_each(pem))
    if not found:
        raise ValueError("it has no certificate")
    return found


def _each(pem: str) -> list[bytes]:
    """Return the certificates as bytes; what stands between them is for people, as the API server takes it."""
    return [ssl.PEM_cert_to_DER_cert(each) for each in _CERTIFICATE.findall(pem)]


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each value that stands in DER bytes one after the other."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            digits = size & 0x7F
            size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
        yield tag, der[at : at + size]
        at += size
