"""Another name for the model that a request asks for, written where the request names it. Pure.

Rules: only the value changes; every other byte stays as it came. What is named several times, all alike, is renamed
each time. The places are those that bodymodel and the relay read the name from.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import quote_plus

from vllm_circus.proxy.bodymodel import form_delimiter, is_model_part
from vllm_circus.proxy.head import RequestHead
from vllm_circus.proxy.members import Span, edited, find_members

_MODEL = b"model"
_IN_QUERY = re.compile(rb"(?<![^&])model=[^&]*")


def in_json(body: bytes, name: str) -> bytes:
    """A JSON body that names this model. Raises BadBody where it is not an object, or too deep to be read."""
    value = json.dumps(name).encode()
    return edited(body, [(span, value) for span in find_members(body, (_MODEL,)).members.get(_MODEL, ())])


def in_form(body: bytes, content_type: bytes, name: str) -> bytes:
    """A multipart form that names this model; it is whole and was read. Raises BadBody without a boundary."""
    return edited(body, [(span, name.encode()) for span in _fields(body, form_delimiter(content_type))])


def in_query(head: RequestHead, name: str) -> RequestHead:
    """The head of a request whose query names this model."""
    query = _IN_QUERY.sub(b"model=" + quote_plus(name).encode(), head.query)
    return replace(head, query=query, start=b"%b %b?%b HTTP/1.1\r\n" % (head.method, head.path, query))


def _fields(body: bytes, delimiter: bytes) -> list[Span]:
    """Where the values of the field `model` stand."""
    found: list[Span] = []
    text = b"\r\n" + body  # so that the first delimiter looks like every other
    at = text.find(delimiter) + len(delimiter)
    while at >= len(delimiter) and not text.startswith(b"--", at):
        header = text.find(b"\r\n\r\n", at)
        end = text.find(delimiter, header + 2)
        if header < 0 or end < 0:
            break
        if end >= header + 4 and is_model_part(text, at, header):
            found.append((header + 4 - 2, end - 2))
        at = end + len(delimiter)
    return found
