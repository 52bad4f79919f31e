"""Self-signed certificates for 127.0.0.1, made here: neither a program nor a package is needed, and no key is kept.

ECDSA with P-256 (FIPS 186-4), X.509 (RFC 5280), the key as in RFC 5915. For tests alone: the arithmetic is slow and
tells its time to whoever listens.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_EC_KEY, _P256 = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107")
_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_COMMON_NAME, _SUBJECT_ALT_NAME = bytes.fromhex("0603550403"), bytes.fromhex("0603551d11")

Point = tuple[int, int] | None
#: From when and until when certificates are valid.
VALID = b"20200101000000Z", b"21200101000000Z"


def make_pair(folder: Path, name: str = "proxy", valid: tuple[bytes, bytes] = VALID) -> tuple[Path, Path]:
    """A certificate and its key in `folder`, as PEM; every call makes another."""
    secret = secrets.randbelow(_N - 1) + 1
    public = _point_bytes(_times(secret, _G))
    certificate = folder / f"{name}.crt"
    key = folder / f"{name}.key"
    certificate.write_text(_pem("CERTIFICATE", _certificate(secret, public, valid)))
    curve, bits = _tag(0xA0, _P256), _tag(0xA1, _bits(public))
    key.write_text(_pem("EC PRIVATE KEY", _tag(0x30, _number(1), _tag(4, secret.to_bytes(32, "big")), curve, bits)))
    key.chmod(0o600)
    return certificate, key


def _certificate(secret: int, public: bytes, valid: tuple[bytes, bytes]) -> bytes:
    algorithm = _tag(0x30, _ECDSA_SHA256)
    name = _tag(0x30, _tag(0x31, _tag(0x30, _COMMON_NAME, _tag(12, b"127.0.0.1"))))
    validity = _tag(0x30, *(_tag(0x17 if len(time) == 13 else 0x18, time) for time in valid))
    names = _tag(0x30, _tag(0x87, bytes([127, 0, 0, 1])), _tag(0x82, b"localhost"))
    extensions = _tag(0xA3, _tag(0x30, _tag(0x30, _SUBJECT_ALT_NAME, _tag(4, names))))
    key_info = _tag(0x30, _tag(0x30, _EC_KEY, _P256), _bits(public))
    serial = _number(secrets.randbits(64))
    body = _tag(0x30, _tag(0xA0, _number(2)), serial, algorithm, name, validity, name, key_info, extensions)
    return _tag(0x30, body, algorithm, _bits(_sign(secret, body)))


def _sign(secret: int, data: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(data).digest(), "big")
    once = secrets.randbelow(_N - 1) + 1
    point = _times(once, _G)
    assert point is not None
    r = point[0] % _N
    return _tag(0x30, _number(r), _number(pow(once, -1, _N) * (digest + r * secret) % _N))


def _times(factor: int, point: Point) -> Point:
    total: Point = None
    while factor:
        if factor & 1:
            total = _plus(total, point)
        point = _plus(point, point)
        factor >>= 1
    return total


def _plus(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x, y), (u, v) = one, other
    if x == u and (y + v) % _P == 0:
        return None
    slope = (3 * x * x - 3) * pow(2 * y, -1, _P) if one == other else (v - y) * pow(u - x, -1, _P)
    at = (slope * slope - x - u) % _P
    return at, (slope * (x - at) - y) % _P


def _point_bytes(point: Point) -> bytes:
    assert point is not None
    assert (point[1] ** 2 - point[0] ** 3 + 3 * point[0] - _B) % _P == 0  # it is on the curve
    return b"\4" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def _tag(tag: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    size = len(data)
    if size < 0x80:
        return bytes([tag, size]) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + data


def _number(value: int) -> bytes:
    return _tag(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(data: bytes) -> bytes:
    return _tag(3, b"\0", data)


def _pem(kind: str, der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n"
