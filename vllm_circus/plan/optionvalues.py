"""Whether an option's value is one that `vllm serve` takes, before an engine is started to find that out. Pure.

Rules: what vLLM takes is never refused, in any spelling that reaches it the same; an option of which nothing is known
passes as it is. Only its name is looked at: one that no version has, and that is nearly another one, is warned of.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

from vllm_circus.config.places import show_value
from vllm_circus.plan.optiontable import EARLIER, KNOWN, NAMES, Choice, Flag, Json, Kind, Number, Whole, Word

#: vLLM's short numbers: fractions go with the decimal ones alone.
_SHORT = re.compile(r"\d+(\.\d+)?[kmgt]|\d+[KMGT]", re.ASCII)
#: How like two names have to be.
_NEARLY = 0.8


class Objection(NamedTuple):
    """What is wrong with a value, and what to write."""

    message: str
    fix: str = ""


def object_to(flag: str, value: Any) -> Objection | None:
    """What is wrong with the value of an option by its canonical name; None where nothing is, or nobody knows."""
    kind = KNOWN.get(flag)
    if isinstance(value, list) and len(value) == 1:  # one word, as without the list
        value = str(value[0])
    if kind is None or value is None or value == []:  # a list of nothing is refused for every option
        return None
    if isinstance(kind, Flag):
        return _about_flag(value)
    if value is True:
        return Objection("needs a value", f"write {'it instead of true' if isinstance(kind, Word) else _example(kind)}")
    if value is False:
        return Objection("is no flag that could be turned off", "write null to take it away")
    if isinstance(value, list):
        return Objection("takes one value, not a list", f"write {_example(kind)}")
    return _about(kind, value)


def doubt(flag: str, value: Any) -> str:
    """What the operator should look at: a name or a word that is nearly a known one; empty for nothing."""
    name = flag.partition(".")[0]
    kind = KNOWN.get(flag)
    if isinstance(kind, Word) and kind.words and isinstance(value, str) and value.lower() not in kind.words:
        near = _near(value.lower(), kind.words)
        return f"vLLM 0.32 knows no {show_value(value)}; did you mean {near!r}?" if near else ""
    if any(known.startswith(name) for known in NAMES) or name in EARLIER:  # it may be abbreviated
        return ""
    near = _near(name, NAMES)
    return f"vLLM 0.32 has no such option; did you mean {near!r}?" if near else ""


def _near(word: str, known: frozenset[str]) -> str:
    return next(iter(difflib.get_close_matches(word[:80], sorted(known), n=1, cutoff=_NEARLY)), "")


def _about_flag(value: Any) -> Objection | None:
    if isinstance(value, bool):
        return None
    return Objection(f"is a flag and takes no value, not {show_value(value)}", "write true or false")


def _about(kind: Kind, value: Any) -> Objection | None:
    """A value that is neither true, false nor a list."""
    match kind:
        case Whole() if not _is_whole(kind, value):
            fix = f"write {_example(kind)}" if kind.short else ""
            return Objection(f"needs {_whole(kind)}, not {show_value(value)}", fix)
        case Number() if not _is_number(kind, value):
            reach = "above 0" if kind.positive else "from 0"
            reach += f" and up to {kind.most:g}" if kind.most < float("inf") else ""
            return Objection(f"needs a number {reach}, not {show_value(value)}", f"write {_example(kind)}")
        case Choice(words) if value not in words:
            near = next(iter(difflib.get_close_matches(str(value)[:80], words, n=1)), "")
            fix = f"did you mean {near!r}?" if near else ""
            return Objection(f"{show_value(value)} is none of {', '.join(words)}", fix)
        case Json() if not _is_object(value):
            return Objection(f"needs a JSON object, not {show_value(value)}", f"write {_example(kind)}")
        case _:
            return None


def _is_whole(kind: Whole, value: Any) -> bool:
    text = str(value).strip()
    if text.lower() in kind.also:
        return True
    if isinstance(value, dict):
        return False
    if kind.short and _SHORT.fullmatch(text):
        return float(text[:-1]) > 0
    try:
        number = int(text)
    except ValueError:
        return False
    return kind.least is None or number >= kind.least


def _is_number(kind: Number, value: Any) -> bool:
    try:
        number = float(str(value))
    except ValueError:
        return False
    return (number > 0 if kind.positive else number >= 0) and number <= kind.most


def _is_object(value: Any) -> bool:
    """As far as the braces: what is in it is vLLM's business."""
    if isinstance(value, dict):
        return True
    text = str(value).strip()
    return text.lower() in {"", "none"} or (text.startswith("{") and text.endswith("}"))


def _whole(kind: Whole) -> str:
    return "a whole number" if kind.least is None else f"a whole number from {kind.least}"


def _example(kind: Kind) -> str:
    match kind:
        case Whole(short=True, also=also):
            example = "32768, 32k (32,000), 32K (32,768)" + (" or auto" if "auto" in also else "")
        case Whole():
            example = _whole(kind)
        case Number(positive=positive):
            example = "a fraction such as 0.9" if positive else "a number such as 4"
        case Choice(words):
            example = f"one of {', '.join(words)}"
        case Json():
            example = "a mapping, such as {key: value}"
        case _:
            example = "one value"
    return example
