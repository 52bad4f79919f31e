"""What the proxy itself answers when it cannot hand a request on.

Rules: our errors look like OpenAI's (`{"error": {"message", "type", "param", "code"}}`), on `/v1/messages` like
Anthropic's; they carry the header `x-vllm-circus-error: <code>`, so that nobody takes them for an engine's. An
engine's own errors pass unchanged and never come here. No text of an engine gets into a status line.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any, Final

from vllm_circus.errors import CircusError
from vllm_circus.logline import clean

REASONS: Final = {
    200: b"OK",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_LONGEST_NAME: Final = 200


class Refused(CircusError):
    """The proxy answers this request itself.

    Attributes:
        http_status: the status code, one of `REASONS`.
        code: the machine-readable word, also sent as `x-vllm-circus-error`.
        param: the request's field that is to blame, or None.
        retry_after: whole seconds after which another try makes sense, or None.
        headers: further header lines of the answer, without line ends.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(message)
        self.http_status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.headers = headers

    def again(self) -> Refused:
        """The same answer, to be raised once more: an exception that is raised twice collects tracebacks."""
        return Refused(
            self.http_status,
            self.code,
            str(self),
            param=self.param,
            retry_after=self.retry_after,
            headers=self.headers,
        )


class EngineRefusal(Refused):
    """An engine's error for a stream that was answered before. `document` is its JSON, None where that will not do."""

    def __init__(self, status: int, document: bytes | None) -> None:
        super().__init__(status, "engine_error", f"The engine answered with status {status}.")
        self.document = document


class BadMessage(Refused):
    """A request that is not well-formed: 400 unless it says otherwise, and the connection ends."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(status, code, message)


class BadResponse(CircusError):
    """An engine's answer that cannot be handed on safely."""

    http_status = 502


def unknown_model(name: str) -> Refused:
    """404 for a name that nobody configured."""
    shown = clean(name[:_LONGEST_NAME])
    return Refused(404, "model_not_found", f"The model `{shown}` does not exist.", param="model")


def unknown_response(name: str) -> Refused:
    """404 for a stored response that no engine knows."""
    return Refused(404, "response_not_found", f"No engine has stored the response `{name}`.", param="response_id")


def unsure_response(name: str, param: str, retry_after: int) -> Refused:
    """503 for a stored response that no engine has which answers now, while others may; `param` named it."""
    words = f"The response `{name}` may be stored by an engine that does not answer now."
    return Refused(503, "model_not_ready", words, param=param, retry_after=retry_after)


def unknown_path() -> Refused:
    """404 for a path that is not public."""
    return Refused(404, "unknown_path", "There is no such path here.")


def missing_model() -> Refused:
    """400 for a request that names no model where several are served."""
    return Refused(400, "missing_model", "Several models are served here: say which one in `model`.", param="model")


def not_ready(name: str, words: str, reason: str, retry_after: int) -> Refused:
    """503 for a model that is configured and cannot answer now; `words` follow its name in the message."""
    why = f": {clean(reason)}" if reason else ""
    return Refused(503, "model_not_ready", f"The model `{name}` {words}{why}.", param="model", retry_after=retry_after)


def out_of_files() -> Refused:
    """503 for a request whose engine's connection would be one file too many, while nobody is idle."""
    return Refused(503, "overloaded", "Too many connections are busy here.", retry_after=1)


def body_of(error: Refused, *, anthropic: bool, request_id: str) -> bytes:
    """The JSON body of an error of ours."""
    status, message = error.http_status, str(error)
    document: dict[str, Any]
    if anthropic:
        fallback = "invalid_request_error" if status < 500 else "api_error"
        kind = _ANTHROPIC_TYPES.get(status, fallback)
        document = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    else:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
        document = {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}
    return json.dumps(document).encode()


def answer(
    error: Refused, *, anthropic: bool, request_id: bytes, keep_alive: bool, head_only: bool, extra: bytes = b""
) -> bytes:
    """A whole response, head and body. `extra` is further header lines, each with its line end (CORS)."""
    body = body_of(error, anthropic=anthropic, request_id=request_id.decode("ascii"))
    lines = [
        b"HTTP/1.1 %d %b" % (error.http_status, REASONS[error.http_status]),
        b"date: " + formatdate(usegmt=True).encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id,
        b"x-vllm-circus-error: " + error.code.encode(),
        *error.headers,
    ]
    if error.retry_after is not None:
        lines.append(b"retry-after: %d" % error.retry_after)
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n" + extra + b"\r\n" + (b"" if head_only else body)


def stream_error(error: Refused, *, anthropic: bool, request_id: bytes) -> bytes:
    """An error as an event of a stream that has begun; no `[DONE]` follows, since nothing was done."""
    body = error.document if isinstance(error, EngineRefusal) else None
    body = body or body_of(error, anthropic=anthropic, request_id=request_id.decode("ascii"))
    return b"event: error\ndata: %b\n\n" % body if anthropic else b"data: %b\n\n" % body
