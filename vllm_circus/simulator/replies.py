"""Bodies and errors in the forms of the real server.

`ApiError` is raised anywhere in a handler and becomes an answer in one place. Its form depends on the route: the
routes of the Anthropic API have another one, except for errors of validation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .http import Reply, Request, Stream

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
"""What a client reads when the engine died, or was stopped, under its request."""

SHUTTING_DOWN = "cannot schedule new futures after shutdown"
"""What a client reads when it asks a server that only finishes what it has."""


class ApiError(Exception):
    """A request that is refused. `kind` is the error's type, `parameter` what it is about."""

    def __init__(self, status: int, kind: str, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.parameter = parameter


def dump(value: object) -> bytes:
    """JSON as the real server writes it: no blanks, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, dump(value), "application/json")


def detail(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """The web framework's own error: `{"detail": …}`."""
    return Reply(status, dump({"detail": text}), "application/json", headers)


def error_reply(error: ApiError, path: str) -> Reply:
    """An error in the form that the route has."""
    if path.startswith("/v1/messages") and error.kind != "Bad Request":
        body: object = {"type": "error", "error": {"type": error.kind, "message": error.message}}
    else:
        body = {
            "error": {
                "message": error.message,
                "type": error.kind,
                "param": error.parameter,
                "code": error.status,
            }
        }
    return json_reply(body, error.status)


def stream_error() -> bytes:
    """The event that a stream gets when the engine dies under it; the real server writes this one with blanks."""
    error = {"message": ENGINE_DEAD, "type": "InternalServerError", "param": None, "code": 500}
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


def engine_dead() -> ApiError:
    """The error of a request whose engine died."""
    return ApiError(500, "InternalServerError", ENGINE_DEAD)


def bad_request(message: str, parameter: str | None = None, value: object = None) -> ApiError:
    """A value that makes no sense; with a parameter, the message names it and its value."""
    about = [f"{key}={part}" for key, part in (("parameter", parameter), ("value", value)) if part is not None]
    return ApiError(400, "BadRequestError", f"{message} ({', '.join(about)})" if about else message, parameter)


def invalid(kind: str, where: str, message: str, given: str, context: str = "") -> ApiError:
    """A body that the validation refuses; `where` is the path of the field, such as `body.model`."""
    detail_text = f"{{'type': '{kind}', 'loc': '{where}', 'msg': '{message}', 'input': '{given}'{context}}}"
    return ApiError(400, "Bad Request", f"1 validation error:\n  {detail_text}", where)


def read_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object; raises ApiError in the words of the real server."""
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if not request.body:
        raise invalid("missing", "body", "Field required", "None")
    if content_type != "application/json":
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(400, "Bad Request", text)
    try:
        body = json.loads(request.body)
    except json.JSONDecodeError as error:
        context = f", 'ctx': {{'error': '{error.msg}'}}"
        where = f"body.{error.pos}"
        raise invalid("json_invalid", where, "JSON decode error", "<dict of 0 items>", context) from None
    except (UnicodeDecodeError, RecursionError):
        text = "There was an error parsing the body"
        raise ApiError(400, "Bad Request", text) from None
    if not isinstance(body, dict):
        text = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", text, shown(body))
    return body


def shown(value: object) -> str:
    """How a refused value appears in a message: containers by their size only."""
    if isinstance(value, dict):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return str(value)


def required(body: Mapping[str, Any], *names: str) -> None:
    """Refuse a body that lacks one of the fields."""
    for name in names:
        if name not in body:
            raise invalid("missing", f"body.{name}", "Field required", shown(body))


def integer(body: Mapping[str, Any], name: str) -> int | None:
    """An optional whole number; raises ApiError."""
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        with_text = "Input should be a valid integer, unable to parse string as an integer"
        if value.lstrip("-").isdigit():
            return int(value)
        raise invalid("int_parsing", f"body.{name}", with_text, value)
    raise invalid("int_type", f"body.{name}", "Input should be a valid integer", shown(value))


__all__ = ["ApiError", "Reply", "Request", "Stream"]
