"""The certificate of the public port: loaded at the start, and again whenever its files change.

Rules: a new pair gets a context of its own, so that one which does not fit together leaves the old one whole; that is
said once for each state of the files. Files that changed a moment ago are left alone until they have stood still from
one look to the next: who renews a certificate writes two files, one after the other.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from vllm_circus.errors import CircusError

log = logging.getLogger(__name__)

#: Seconds between two looks at the files.
LOOK_SECONDS = 2.0

#: What tells one state of a file from another; None where it cannot be looked at.
_Stamp = tuple[int, int, int, int] | None


class Certificates:
    """A certificate and its key. `context` is for the connections that come next. Raises CircusError where unusable."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._tried = self._seen = self._stamps()
        self.context = server_context(certificate, key)

    def look(self) -> None:
        """Load the files again if they changed and have stood still since the last look."""
        now, before = self._stamps(), self._seen
        self._seen = now
        if now == self._tried or now != before:
            return
        self._tried = now
        try:
            self.context = server_context(*self._files)
        except CircusError as error:
            log.error("%s; the certificate that was loaded before stays in use", error)  # noqa: TRY400 - says it all
        else:
            log.info("the certificate was read again from %s", self._files[0])

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._files))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1 alone. Raises CircusError where the files cannot be read or do not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client would make us work for nothing
    context.set_alpn_protocols(["http/1.1"])
    try:
        for path in (certificate, key):
            path.open("rb").close()  # OpenSSL does not tell which of the two it cannot read
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM file").replace("_", " ").lower()
        raise CircusError(f"{certificate} and {key} cannot be used for TLS: {reason}") from None
    except OSError as error:
        raise CircusError(f"{error.filename} cannot be read: {error.strerror}") from None
    return context


def _no_password() -> str:
    """Asked for where the key is encrypted: OpenSSL would ask a terminal that is not there."""
    raise CircusError(
        "the private key is encrypted", hint="`openssl pkey -in KEY -out NEW` writes it without a password"
    )


def _stamp(path: Path) -> _Stamp:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino
