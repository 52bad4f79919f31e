"""What single answers can be wrong in: a sentence, or nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from vllm_circus.config.models import ALIAS_PATTERN, NAME_PATTERN, RESERVED_NAMES
from vllm_circus.plan.ports import LAST_PORT

_SHARE = re.compile(r"\d{1,5}(?:\.\d{1,3})? ?GiB")
_LONGEST = 120  # of an answer that is told back


def bad_port(text: str, *, taken: Iterable[tuple[int, str]] = (), busy: Collection[int] = ()) -> str:
    """A TCP port that is free; `taken` are those of this set, with whose they are."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or not 1 <= int(text) <= LAST_PORT:
        return f"{short(text)} is no port: write a whole number from 1 to {LAST_PORT}"
    port = int(text)
    whose = next((owner for number, owner in taken if number == port), "")
    if whose:
        return f"port {port} is {whose}: every port can be used once"
    return f"port {port} is in use by another process: choose another one" if port in busy else ""


def bad_name(text: str, taken: Collection[str]) -> str:
    """What a model is called."""
    if not re.fullmatch(NAME_PATTERN, text):
        return f"{short(text)} cannot be used: up to 64 of a-z, 0-9, '_' and '-', and a letter or digit first"
    if text in RESERVED_NAMES:
        return f"{text!r} is a name that commands and logs use: choose another one"
    return f"{text!r} is taken: every name, alias and adapter must differ" if text in taken else ""


def bad_alias(text: str, taken: Collection[str]) -> str:
    """What clients may call a model."""
    if not re.fullmatch(ALIAS_PATTERN, text):
        return f"{short(text)} cannot be used: up to 128 letters, digits and . _ : / @ + -, a letter or digit first"
    return f"{text!r} is taken: every name, alias and adapter must differ" if text in taken else ""


def split_aliases(text: str) -> list[str]:
    """`a, b c` as its parts."""
    return [part for part in re.split(r"[,\s]+", text) if part]


def bad_aliases(text: str, taken: Collection[str]) -> str:
    """Several aliases, or none."""
    parts = split_aliases(text)
    twice = next((part for part in parts if parts.count(part) > 1), "")
    if twice:
        return f"{short(twice)} stands twice"
    return next((wrong for part in parts if (wrong := bad_alias(part, taken))), "")


def read_share(text: str) -> float | str | None:
    """`0.4`, `40 %` or `20 GiB` as a models file has it; None where it is none of these."""
    if _SHARE.fullmatch(text):
        return text
    percent = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", text)
    try:
        share = round(float(percent[1]) / 100, 6) if percent else float(text)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


def bad_share(text: str) -> str:
    """A part of a GPU's memory."""
    if read_share(text) is not None:
        return ""
    return f"{short(text)} is no part of a GPU: write a fraction such as 0.4, 40 %, or an amount such as 20 GiB"


def short(text: str) -> str:
    """An answer as it is told back; a long one is cut, and its length told."""
    return repr(text) if len(text) <= _LONGEST else f"{repr(text[:_LONGEST])[:-1]}… ({len(text):,} characters)"
