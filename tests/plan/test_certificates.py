"""The dates of certificates: those that OpenSSL reads, and no word on anything that is not one."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.proxy.certificates import make_pair
from vllm_circus.plan.certificates import Validity, validities

TIMES = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59)).map(
    lambda time: time.replace(microsecond=0, tzinfo=UTC)
)


def pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def tag(number: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    size = len(data)
    if size < 0x80:
        return bytes((number, size)) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((number, 0x80 | len(length))) + length + data


def written(time: datetime) -> bytes:
    """As RFC 5280, section 4.1.2.5, has it."""
    if time.year < 2050:
        return tag(0x17, f"{time:%y%m%d%H%M%S}Z".encode())
    return tag(0x18, f"{time.year:04}{time:%m%d%H%M%S}Z".encode())


def certificate(begin: bytes, end: bytes, *, version: bool = True, filling: bytes = b"", behind: bytes = b"") -> bytes:
    head = tag(0xA0, tag(2, b"\2")) if version else b""
    valid = tag(0x30, begin, end)
    body = tag(0x30, head, tag(2, b"\1" + filling), tag(0x30), tag(0x30, filling), valid, tag(0x30, filling))
    return tag(0x30, body, tag(0x30), tag(3, b"\0" + filling)) + behind


@given(TIMES, TIMES, st.booleans(), st.sampled_from([b"", b"x" * 100, b"x" * 300, b"x" * 70_000]))
@example(datetime(1950, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), True, b"")
@example(datetime(2050, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), True, b"")
def test_what_is_written_is_read(begin: datetime, end: datetime, version: bool, filling: bytes) -> None:
    text = pem(certificate(written(begin), written(end), version=version, filling=filling))
    assert validities(text) == ((begin, end),)
    assert validities(f"\n{text}junk\n-----BEGIN CERTIFICATE-----\n{text}") == ((begin, end), (begin, end))


@given(st.data())
def test_a_changed_byte_is_another_date_or_no_word(data: st.DataObject) -> None:
    der = certificate(written(datetime(2026, 1, 1, tzinfo=UTC)), written(datetime(2060, 1, 1, tzinfo=UTC)))
    at, byte = data.draw(st.integers(0, len(der) - 1)), data.draw(st.integers(0, 255))
    (found,) = validities(pem(der[:at] + bytes([byte]) + der[at + 1 :]))
    assert found is None or isinstance(found[1] - found[0], timedelta)
    assert validities(pem(der[:at])) == (None,), "half a certificate"


@given(st.text() | st.binary().map(pem) | st.binary().map(lambda data: pem(b"\x30\x80" + data)))
def test_no_text_breaks_it(text: str) -> None:
    assert all(found is None for found in validities(text))


@pytest.mark.parametrize(
    "der",
    [
        certificate(tag(0x17, b"260101000000Z"), tag(0x17, b"270101000000Z"), behind=b"\0"),
        certificate(tag(0x17, b"2601010000Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"260101000000+0100"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x18, b"20260101000000.5Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"20260101000000Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x18, b"260101000000Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"260230000000Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"260101000060Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, "26010100000\u0661Z".encode()), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"260101000000Z"), tag(0x17, b"270101000000Z") + tag(5)),
        certificate(tag(0x0C, b"260101000000Z"), tag(0x17, b"270101000000Z")),
        certificate(tag(0x17, b"260101000000Z"), b""),
        certificate(b"\x17\x81\x0d260101000000Z", tag(0x17, b"270101000000Z")),  # longer than it need be
        b"\x30\x85\x00\x00\x00\x00\x00",
    ],
)
def test_what_is_not_strictly_so_is_no_word(der: bytes) -> None:
    assert validities(pem(der)) == (None,)


def as_openssl_reads(pair: tuple[Path, Path]) -> Validity:
    """The dates of a certificate as a client of TLS is told them."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(*pair)
    client.load_verify_locations(pair[0])
    client.check_hostname = False
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    told = ends[0].getpeercert()
    assert told is not None
    return read_of(told)


def read_of(told: ssl._PeerCertRetDictType) -> Validity:
    begin, end = (ssl.cert_time_to_seconds(str(told[name])) for name in ("notBefore", "notAfter"))
    return datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC)


@pytest.mark.parametrize("valid", [(b"20200101000000Z", b"21200101000000Z"), (b"700102030405Z", b"20491231235959Z")])
def test_it_is_what_openssl_reads(tmp_path: Path, valid: tuple[bytes, bytes]) -> None:
    pair = make_pair(tmp_path, valid=valid)
    assert validities(pair[0].read_text()) == (as_openssl_reads(pair),)


def test_every_authority_that_this_machine_trusts_is_understood() -> None:
    """Real ones, as far as there are any here: the store of a bare container is empty."""
    context = ssl.create_default_context()
    for der, told in zip(context.get_ca_certs(binary_form=True), context.get_ca_certs(), strict=True):
        assert validities(pem(der)) == (read_of(told),), base64.b64encode(der)
