"""Where the proxy listens beside its port's plain HTTP: TLS with its two files, and a unix socket.

Rules: what a worker would fail on at its start is found here; no content of a private key is ever told. What a clock
decides is a warning: a set that ran yesterday starts today, and a new certificate is read without a start.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vllm_circus.config.models import Tls
from vllm_circus.config.places import Place
from vllm_circus.plan.certificates import validities
from vllm_circus.plan.draft import Notes
from vllm_circus.plan.sources import Sources

#: Bytes of a unix socket's path, without the NUL behind it: unix(7).
MOST_BYTES = 107
#: How long before its end a certificate is spoken of.
SOON = timedelta(days=30)

_DATE = "%Y-%m-%d %H:%M UTC"
_READ_AGAIN = "the proxy reads the new one by itself"
_RELATIVE = "relative paths begin at the models file's folder"
_UNREADABLE = "it has to be a text file that this user may read"
_TLS: Place = ("proxy", "tls")
_SOCKET: Place = ("proxy", "unix_socket")


def tls_files(tls: Tls, sources: Sources, now: float | None, notes: Notes) -> tuple[str, str]:
    """The certificate's and the key's file, absolute; whatever keeps them from being used is noted.

    `now` is in seconds since 1970; without it no date is looked at.
    """
    certificate = str(sources.locate(tls.certificate))
    key = sources.private_file(tls.key, (*_TLS, "key"), notes)
    if _is_certificate(Path(certificate), sources, now, notes) and _is_key(Path(key), sources, notes):
        misfit = sources.disk.misfit(Path(certificate), Path(key))
        if misfit:
            fix = "name a certificate (before those that lead to its authority) and the key that it was made for"
            notes.fault(_TLS, f"{certificate} and {key} do not go together: {misfit}", fix)
    return certificate, key


def _is_certificate(path: Path, sources: Sources, now: float | None, notes: Notes) -> bool:
    place = (*_TLS, "certificate")
    if sources.disk.mode(path) is None:
        notes.lack(place, f"there is no file {path}", _RELATIVE)
        return False
    text = sources.disk.text(path)
    if text is None or "-----BEGIN CERTIFICATE-----" not in text:
        fix = _UNREADABLE if text is None else "it has to begin a certificate with -----BEGIN CERTIFICATE-----"
        notes.fault(place, f"{path} {'cannot be read' if text is None else 'holds no certificate in PEM form'}", fix)
        return False
    for number, valid in enumerate(validities(text), 1):
        name = str(path) if number == 1 else f"certificate {number} of {path}"
        sentence = _of_dates(name, *valid, datetime.fromtimestamp(now, UTC)) if valid and now is not None else ""
        if sentence:
            notes.warn(place, sentence)
    return True


def _of_dates(name: str, begin: datetime, end: datetime, now: datetime) -> str:
    """What is to be said of a certificate that is valid from one time until another; mostly nothing."""
    if now < begin:
        fix = "name one that is valid now, or set this machine's clock"
        return f"{name} begins on {begin:{_DATE}}, and clients refuse it until then: {fix}"
    if now > end:
        return f"{name} ended on {end:{_DATE}}, and clients refuse it: renew it; {_READ_AGAIN}"
    if end - now < SOON:
        return f"{name} ends on {end:{_DATE}}, and clients will refuse it: renew it before; {_READ_AGAIN}"
    return ""


def _is_key(path: Path, sources: Sources, notes: Notes) -> bool:
    """Whether there is a key to try; that the file is there, and private, was looked at before."""
    place = (*_TLS, "key")
    if sources.disk.mode(path) is None:
        return False
    text = sources.disk.text(path)
    if text is None:
        notes.fault(place, f"{path} cannot be read", _UNREADABLE)
    elif "PRIVATE KEY-----" not in text:
        notes.fault(place, f"{path} holds no private key in PEM form", "name the file of the certificate's key")
    elif "ENCRYPTED" in text:
        fix = f"`openssl pkey -in {path} -out FILE` writes it without one"
        notes.fault(place, f"{path} needs a passphrase, and nobody is there to type it", fix)
    else:
        return True
    return False


def socket_path(value: str, sources: Sources, notes: Notes) -> str:
    """Where the unix socket goes, absolute; a path that it cannot have is noted."""
    path = sources.locate(value)
    size = len(os.fsencode(path))
    if size > MOST_BYTES:
        message = f"{size} bytes long with its folder, and a unix socket's path has {MOST_BYTES} at most"
        notes.fault(_SOCKET, message, "name a shorter one")
    elif not sources.disk.is_folder(path.parent):
        notes.lack(_SOCKET, f"there is no folder {path.parent}", f"make it, or name another; {_RELATIVE}")
    elif sources.disk.is_folder(path):
        notes.fault(_SOCKET, f"{path} is a folder", "name the socket in it")
    elif sources.disk.mode(path) is not None:
        notes.fault(_SOCKET, f"{path} is a file", "name a path where nothing stands yet")
    return str(path)
