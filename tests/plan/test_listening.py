"""TLS and the unix socket: what would keep a worker from listening is found before the start."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.plan.conftest import FakeDisk, Planner
from tests.proxy.certificates import make_pair

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n"
KEY = "-----BEGIN EC PRIVATE KEY-----\n"
MODEL = "\nmodels: [{name: a, model: org/x}]\n"
TLS = f"proxy: {{host: 127.0.0.1, tls: {{certificate: tls/a.crt, key: /k/a.key}}}}{MODEL}"


@pytest.fixture
def secured(planner: Planner) -> Planner:
    """A machine with a certificate and its key."""
    files = {"/etc/vc/tls/a.crt": 0o644, "/k/a.key": 0o600}
    texts: dict[str, str | None] = {"/etc/vc/tls/a.crt": CERTIFICATE, "/k/a.key": KEY}
    return replace(planner, disk=FakeDisk(files=files, texts=texts))


def test_the_files_are_planned_with_their_whole_paths(secured: Planner) -> None:
    proxy = secured.plan(TLS).proxy
    assert (proxy.tls_certificate, proxy.tls_key) == ("/etc/vc/tls/a.crt", "/k/a.key")


def test_without_tls_there_are_none(planner: Planner) -> None:
    proxy = planner.plan(MODEL).proxy
    assert (proxy.tls_certificate, proxy.tls_key, proxy.unix_socket, proxy.exact_usage) == (None, None, None, False)


def test_missing_files_are_refused(planner: Planner) -> None:
    assert planner.faults(TLS) == [
        (
            "1: proxy.tls.certificate: there is no file /etc/vc/tls/a.crt (relative paths begin at the models file's "
            "folder)"
        ),
        "1: proxy.tls.key: there is no file /k/a.key (relative paths begin at the models file's folder)",
    ]


def test_a_key_that_others_may_read_is_refused(secured: Planner) -> None:
    secured.disk.files["/k/a.key"] = 0o640
    assert secured.faults(TLS) == ["1: proxy.tls.key: /k/a.key may be read by others (mode 0640) (chmod 600 /k/a.key)"]


@pytest.mark.parametrize(
    ("file", "text", "place", "words"),
    [
        ("/etc/vc/tls/a.crt", None, "certificate", "/etc/vc/tls/a.crt cannot be read"),
        ("/etc/vc/tls/a.crt", "\x30\x82", "certificate", "/etc/vc/tls/a.crt holds no certificate in PEM form"),
        ("/k/a.key", None, "key", "/k/a.key cannot be read"),
        ("/k/a.key", CERTIFICATE, "key", "/k/a.key holds no private key in PEM form"),
        ("/k/a.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "key", "/k/a.key needs a passphrase"),
        ("/k/a.key", f"{KEY}Proc-Type: 4,ENCRYPTED\n", "key", "/k/a.key needs a passphrase"),
    ],
)
def test_what_is_no_certificate_or_key_is_refused(
    secured: Planner, file: str, text: str | None, place: str, words: str
) -> None:
    secured.disk.texts[file] = text
    (fault,) = secured.faults(TLS)
    assert fault.startswith(f"1: proxy.tls.{place}: {words}")


def test_a_pair_that_does_not_fit_together_is_refused(secured: Planner) -> None:
    secured.disk.misfits = "the certificate is for another key"
    (fault,) = secured.faults(TLS)
    files = "/etc/vc/tls/a.crt and /k/a.key"
    assert fault.startswith(f"1: proxy.tls: {files} do not go together: the certificate is for another key (name a ")


NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("valid", "words"),
    [
        (
            (b"20200101000000Z", b"260615115959Z"),
            "/etc/vc/tls/a.crt ended on 2026-06-15 11:59 UTC, and clients refuse it: renew it",
        ),
        (
            (b"260615120001Z", b"21200101000000Z"),
            (
                "/etc/vc/tls/a.crt begins on 2026-06-15 12:00 UTC, and clients refuse it until then: name one that is "
                "valid now, or set this machine's clock"
            ),
        ),
        (
            (b"20200101000000Z", b"260715115959Z"),
            "/etc/vc/tls/a.crt ends on 2026-07-15 11:59 UTC, and clients will refuse it: renew it before",
        ),
        ((b"260615120000Z", b"260715120000Z"), None),
    ],
)
def test_a_certificate_that_clients_refuse_or_soon_will_is_told(
    secured: Planner, tmp_path: Path, valid: tuple[bytes, bytes], words: str | None
) -> None:
    """The set starts all the same: a clock decides this, and a new certificate is read without a start."""
    secured.disk.texts["/etc/vc/tls/a.crt"] = make_pair(tmp_path, valid=valid)[0].read_text()
    warnings = secured.given(now=NOW.timestamp()).plan(TLS).warnings
    there = "; the proxy reads the new one by itself" if words and "renew" in words else ""
    assert warnings == (() if words is None else (f"proxy.tls.certificate: {words}{there}",))
    assert secured.plan(TLS).warnings == (), "nobody told what time it is"


def test_every_certificate_of_the_file_counts(secured: Planner, tmp_path: Path) -> None:
    good, bad = (make_pair(tmp_path, valid=(b"20200101000000Z", end))[0].read_text() for end in (b"21200101000000Z",
        b"20260101000000Z"))  # fmt: skip
    secured.disk.texts["/etc/vc/tls/a.crt"] = f"# mine\n{good}# theirs\n{bad}{CERTIFICATE}"
    (warning,) = secured.given(now=NOW.timestamp()).plan(TLS).warnings
    assert warning.startswith("proxy.tls.certificate: certificate 2 of /etc/vc/tls/a.crt ended on 2026-01-01 00:00 UTC")


def socket(path: str) -> str:
    return f"proxy: {{host: 127.0.0.1, unix_socket: {path}}}{MODEL}"


@pytest.mark.parametrize(
    ("written", "planned"), [("proxy.sock", "/etc/vc/proxy.sock"), ("/s/p", "/s/p"), ("~/p", "/home/me/p")]
)
def test_the_unix_socket_is_planned_with_its_whole_path(planner: Planner, written: str, planned: str) -> None:
    planner.disk.folders |= {"/etc/vc", "/s", "/home/me"}
    assert planner.plan(socket(written)).proxy.unix_socket == planned


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/none/p", "there is no folder /none (make it, or name another"),
        ("/s/d", "/s/d is a folder (name the socket in it)"),
        ("/s/f", "/s/f is a file (name a path where nothing stands yet)"),
        (f"/s/{'x' * 105}", "108 bytes long with its folder, and a unix socket's path has 107 at most"),
        (f"/s/{'é' * 53}", "109 bytes long with its folder"),
    ],
)
def test_a_path_that_a_unix_socket_cannot_have_is_refused(planner: Planner, path: str, words: str) -> None:
    planner.disk.folders |= {"/s", "/s/d"}
    planner.disk.files["/s/f"] = 0o600
    (fault,) = planner.faults(socket(path))
    assert fault.startswith(f"1: proxy.unix_socket: {words}")


def test_a_path_of_107_bytes_is_one(planner: Planner) -> None:
    planner.disk.folders.add("/s")
    assert planner.plan(socket(f"/s/{'x' * 104}")).warnings == ()


def test_exact_usage_is_planned(planner: Planner) -> None:
    assert planner.plan(f"proxy: {{exact_usage: true}}{MODEL}").proxy.exact_usage is True
