"""Which engine has a response stored: remembered as it passes, or asked for.

Rules:
- An id says nothing about its maker, and only the maker has it. Who handed the response out remembers that, bounded;
  another worker, or one that was started since, asks every engine that may have it, all at once, and takes the one that
  answers 200. Nothing of those answers is read but their status.
- That nobody has it is said only where every engine gave its word. One that is down, hung, loading or broken gave none.
- A request that goes on from a response is read for its name alone: as bodymodel reads for the model, and not at all
  where the name cannot be in it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vllm_circus.proxy.bodymodel import BadBody
from vllm_circus.proxy.errors import Refused
from vllm_circus.proxy.members import find_members

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend

#: Responses whose maker is remembered.
MOST_STORED = 10_000
#: Seconds that engines have to say whether they have a response.
PATIENCE = 5.0
#: The path of requests that go on from a response.
RESPONSES = b"/v1/responses"

_RESPONSE_ID = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"(resp_[A-Za-z0-9_-]{1,120})"')
#: Ids that may stand in a path; engines are asked for no others.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: A status with what follows it: it has the response, or it has it not. vLLM says 404, and 501 for models without
#: responses; what was not written for them says 400, 405 or 410.
_WORD = re.compile(rb"HTTP/1\.[01] (?:(200)|400|404|405|410|501)[ \r]")
_LONGEST_WORD = 13

_PREVIOUS = b"previous_response_id"


class NoWord(Exception):
    """Nobody has the response of those who said anything, and somebody said nothing."""


class Makers:
    """The makers of responses, by the responses' ids."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()

    def note(self, data: bytes, maker: str) -> None:
        """An engine's answer begins like this; `maker` is the engine's name."""
        match = _RESPONSE_ID.search(data, 0, 4096)
        if match is not None:
            self.set(match[1].decode(), maker)

    def set(self, response: str, maker: str) -> None:
        """Remember one."""
        self._names[response] = maker
        if len(self._names) > MOST_STORED:
            self._names.popitem(last=False)

    def get(self, response: str) -> str | None:
        """The engine's name, or None where it is not known."""
        return self._names.get(response)


async def find_maker(response: str, backends: Sequence[Backend], *, patience: float = PATIENCE) -> Backend | None:
    """The backend that has this response, or None where each gave its word that it has not.

    `patience` is in seconds. Raises NoWord.
    """
    asked = [asyncio.ensure_future(_ask(backend, b"/v1/responses/" + response.encode())) for backend in backends]
    silent = False
    try:
        async with asyncio.timeout(patience):
            for answer in asyncio.as_completed(asked):
                backend, has_it = await answer
                if has_it:
                    return backend
                silent |= has_it is None
    except TimeoutError:
        silent = True
    finally:
        for task in asked:
            task.cancel()
    if silent:
        raise NoWord
    return None


async def _ask(backend: Backend, path: bytes) -> tuple[Backend, bool | None]:
    """Whether the backend has what is stored there; None where it does not say."""
    try:
        match = _WORD.match(await _beginning(backend, path))
    except (OSError, EOFError):
        match = None
    return backend, None if match is None else match[1] is not None


async def _beginning(backend: Backend, path: bytes) -> bytes:
    """The first bytes of its answer. Raises OSError and EOFError."""
    endpoint = backend.endpoint
    if endpoint.uds:
        reader, writer = await asyncio.open_unix_connection(endpoint.uds)
    else:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path, backend.lines))
        return await reader.readexactly(_LONGEST_WORD)
    finally:
        writer.transport.abort()


def previous_response(body: bytes) -> str | None:
    """The id of the response that a request with this JSON body goes on from; None where there is none.

    An id that engines cannot be asked for is none, either. Raises Refused where it is no string, or two differ.
    """
    if b'"previous_response_id"' not in body and b"\\u" not in body:  # no other escape stands for one of its letters
        return None
    spans = find_members(body, (_PREVIOUS,)).members.get(_PREVIOUS, ())
    names = {_name(body[begin:end]) for begin, end in spans}
    if len(names) > 1:
        raise _refused("duplicate_previous_response_id", "Two different values of `previous_response_id` are given.")
    name = next(iter(names), None)
    return name if name is not None and _ID.fullmatch(name) else None


def _name(value: bytes) -> str | None:
    """The id that a JSON value names; None for null and the empty string."""
    if value == b"null":
        return None
    if not value.startswith(b'"'):
        raise _refused("bad_previous_response_id", "`previous_response_id` must be a string.")
    try:
        return str(json.loads(value.decode())) or None
    except ValueError:  # UnicodeDecodeError is one
        raise BadBody("The body is not valid JSON.") from None


def _refused(code: str, message: str) -> Refused:
    return Refused(400, code, message, param="previous_response_id")
