"""One GET over HTTP, to an engine or to the proxy: over a port, over TLS, or over a unix socket.

Rule: certificates are not verified. Whether something answers is asked here; whom a client trusts is the client's.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from vllm_circus.hostport import join_host_port

#: Bytes of an answer that are read.
_MOST = 4 << 20


@dataclass(frozen=True)
class Target:
    """Where to ask: a host and a port, or a unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    unix: str = ""

    def __str__(self) -> str:
        if self.unix:
            return self.unix
        return join_host_port(self.host, self.port)


@dataclass(frozen=True)
class Reply:
    """What came back; `error` says why nothing did, and `status` is then 0."""

    status: int = 0
    body: bytes = b""
    error: str = ""

    def names(self) -> tuple[str, ...] | None:
        """What a `/v1/models` answer lists; None where it is no such answer."""
        try:
            return tuple(str(item["id"]) for item in json.loads(self.body)["data"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


class _Connection(http.client.HTTPConnection):
    """http.client over whatever leads to the target."""

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout)
        self._target = target

    def connect(self) -> None:
        """Open the connection. Raises OSError."""
        if self._target.unix:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._target.unix)
            return
        self.sock = socket.create_connection((self._target.host, self._target.port), self.timeout)
        if self._target.tls:
            self.sock = _unverified().wrap_socket(self.sock, server_hostname=self._target.host)


def ask(target: Target, path: str, *, key: str | None = None, timeout: float = 5.0) -> Reply:
    """The answer to a GET; never raises. `timeout` is in seconds, for each step."""
    headers: Mapping[str, str] = {"Connection": "close"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection = _Connection(target, timeout)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(_MOST))
    except TimeoutError:
        return Reply(error=f"no answer within {timeout:g} s")
    except ssl.SSLError as error:
        return Reply(error=f"no TLS: {(error.reason or str(error)).replace('_', ' ').lower()}")
    except OSError as error:
        return Reply(error=(error.strerror or str(error)).lower())
    except (http.client.HTTPException, ValueError) as error:
        return Reply(error=f"something else than HTTP answers ({type(error).__name__})")
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
