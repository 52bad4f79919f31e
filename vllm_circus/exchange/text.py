"""Bytes of anybody's file to plain data: JSON or YAML, whichever they are.

Rules: whatever the bytes are, there is data or a ConfigError that names the file; sizes and depths are bounded; a
number that is none (NaN, Infinity) is refused, since no file of ours can say it; of two equal keys none is dropped in
silence.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from typing import Any

from vllm_circus.config.document import MAX_DEPTH, MAX_NUMBER_LENGTH, MAX_VALUES, parse_document
from vllm_circus.config.places import show_value
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.found import refuse

MAX_BYTES = 1 << 20


class _NoNumber(ValueError):
    """A number that JSON does not know, or a key that stands twice."""


def decode_text(data: bytes, source: str) -> str:
    """The text in the bytes of a file. Raises ConfigError for what is too large or not UTF-8."""
    if len(data) > MAX_BYTES:
        raise refuse(source, f"larger than {MAX_BYTES >> 20} MiB", "a file of settings is a few KB; is it this one?")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refuse(source, f"not UTF-8: byte 0x{data[error.start]:02x}", "save it in UTF-8", line=line) from None


def parse_text(text: str, source: str) -> Any:
    """The data that the text says. Raises ConfigError with what is wrong and where."""
    wrong = None
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return parse_json(text, source)
        except json.JSONDecodeError as error:  # flow mappings of YAML begin alike
            wrong = refuse(source, f"not valid JSON: {error.msg}", line=error.lineno)
    document = parse_document(text, source)
    if document.faults:
        raise wrong if wrong is not None and source.endswith(".json") else ConfigError(document.faults)
    return document.data


def parse_json(text: str, source: str) -> Any:
    """JSON to data. Raises JSONDecodeError where it is none, ConfigError where it is more than a file may be."""
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_pairs)
    except RecursionError:
        raise refuse(source, f"nested deeper than {MAX_DEPTH} levels", "write it flatter") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # also an integer of thousands of digits
        message = str(error) if isinstance(error, _NoNumber) else "a number with too many digits"
        raise refuse(source, message) from None
    _bound(data, source)
    return data


def _no_constant(name: str) -> Any:
    raise _NoNumber(f"{name} is no number that JSON knows")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _NoNumber(f"the key {show_value(twice)} stands twice")
    return found


def _bound(data: Any, source: str) -> None:
    """Refuse what is deeper, larger or stranger than a YAML file of ours may be."""
    level, values = [data], 0
    for _ in range(MAX_DEPTH + 1):
        values += len(level)
        if values > MAX_VALUES:
            raise refuse(source, f"more than {MAX_VALUES:,} values", "write a smaller file")
        for value in level:
            _check_scalar(value, source)
        level = [item for value in level for item in _items(value)]
        if not level:
            return
    raise refuse(source, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _check_scalar(value: Any, source: str) -> None:
    if isinstance(value, int) and abs(value) >= 10 ** (MAX_NUMBER_LENGTH - 1):
        raise refuse(source, "a number with too many digits", "write a smaller one")
    if isinstance(value, float) and value - value != 0:
        raise refuse(source, "a number that is too large", "write a finite one")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise refuse(source, "half of a surrogate pair", "write the character itself")
