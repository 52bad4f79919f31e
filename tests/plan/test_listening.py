"""TLS and the unix socket: what would keep a worker from listening is found before the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan.conftest import FakeDisk, Planner

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
    assert fault.startswith("1: proxy.tls: the certificate is for another key (name a certificate")


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
