"""From when until when certificates are valid. Pure; ssl tells it of a peer's certificate and of authorities alone.

Rules: nothing is walked but the way to the two dates (RFC 5280, section 4.1), in DER and in DER alone (X.690). Any
surprise on it is no word: whether a certificate can be used is for OpenSSL to say.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]*+)-----END CERTIFICATE-----")
_INTEGER, _SEQUENCE, _VERSION, _UTC_TIME, _TIME = 0x02, 0x30, 0xA0, 0x17, 0x18
#: From when until when, both in UTC.
Validity = tuple[datetime, datetime]


def validities(text: str) -> tuple[Validity | None, ...]:
    """Of each certificate in a PEM text, in order; None for one that is not understood."""
    return tuple(_validity("".join(block.split())) for block in _PEM.findall(text))


def _validity(block: str) -> Validity | None:
    try:
        der = base64.b64decode(block, validate=True)
        whole = _inside(der, 0, len(der), _SEQUENCE)
        at, end = _inside(der, whole[0], whole[1], _SEQUENCE)
        if der[at] == _VERSION:  # version 1 has none
            at = _inside(der, at, end, _VERSION)[1]
        for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
            at = _inside(der, at, end, tag)[1]
        times = _inside(der, at, end, _SEQUENCE)
        begin, at = _time(der, *times)
        until, at = _time(der, at, times[1])
        return (begin, until) if (at, whole[1]) == (times[1], len(der)) else None
    except (ValueError, IndexError):
        return None


def _inside(der: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the element inside begins and ends. Raises ValueError unless it has this tag, and IndexError."""
    size, start = der[at + 1], at + 2
    if size > 0x80:
        start += size - 0x80
        size = int.from_bytes(der[at + 2 : start], "big")
    if der[at] != tag or start + size > end or start - at != 2 + (size > 0x7F) * (size.bit_length() + 7) // 8:
        raise ValueError
    return start, start + size


def _time(der: bytes, at: int, end: int) -> tuple[datetime, int]:
    """A time, and where what follows it begins. Raises ValueError and IndexError."""
    start, stop = _inside(der, at, end, _TIME if der[at] == _TIME else _UTC_TIME)
    text = der[start:stop].decode("ascii")
    if der[at] == _UTC_TIME:
        text = ("19" if text >= "5" else "20") + text
    if not re.fullmatch("[0-9]{14}Z", text):
        raise ValueError
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}"), stop
