"""What we know of the options of `vllm serve`, beside its own parser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.real_vllm.fleet import Engine
from vllm_circus.plan.options import words
from vllm_circus.plan.optiontable import KNOWN, NAMES, Choice, Flag, Json, Kind, Number, Whole
from vllm_circus.plan.optionvalues import object_to

pytestmark = pytest.mark.timeout(300)

PARSE = Path(__file__).parent / "parse.py"
#: Values of the right kind, and those that the parser itself refuses. What is too large or too small is told later.
GOOD: dict[type[Kind], tuple[Any, ...]] = {
    Whole: (8, "8", " 8 ", "+8", ["8"]),
    Number: (1, 0.5, "0.5", "1e-1"),
    Flag: (True, False),
    Json: ({}, {"a": 1}, '{"a": 1}'),
}
BAD: dict[type[Kind], tuple[Any, ...]] = {
    Whole: (True, 8192.0, 2.5, "abc", "8_k", [1, 2], {"a": 1}),
    Number: (True, "abc", "90%", [1, 2]),
    Flag: ("yes", "true", 1, ["a"]),
    Json: (True, "abc", "a=1", [1, 2]),
    Choice: (True, False, "float17", 3, ["a", "b"]),
}
SHORT = ("32k", "25.6k", "32K", "1M", "2t")
#: The fields of these are checked by the parser already.
STRICT = frozenset(
    {"eplb-config", "structured-outputs-config", "pooler-config", "kv-events-config", "kv-transfer-config"}
)


@pytest.fixture(scope="module")
def told(engine: Engine) -> dict[str, Any]:
    """The names of its options, and which of the values it takes."""
    argv = [words(flag, value) for flag, value in (*pairs(GOOD), *pairs(BAD), *short())]
    python = engine.program.with_name("python")
    asked = subprocess.run([python, PARSE], input=json.dumps(argv), capture_output=True, text=True, check=True)
    return dict(json.loads(asked.stdout))


def pairs(values: dict[type[Kind], tuple[Any, ...]]) -> list[tuple[str, Any]]:
    return [
        (flag, value)
        for flag, kind in KNOWN.items()
        for value in values.get(type(kind), ())
        if not (flag in STRICT and isinstance(value, dict | str))
    ]


def short() -> list[tuple[str, Any]]:
    return [(flag, value) for flag, kind in KNOWN.items() if isinstance(kind, Whole) and kind.short for value in SHORT]


def test_both_know_the_same_names(told: dict[str, Any]) -> None:
    assert {name[2:] for name in told["names"] if name.startswith("--") and not name.startswith("--no-")} == NAMES


def test_both_take_and_refuse_the_same_values(told: dict[str, Any]) -> None:
    good, bad = (*pairs(GOOD), *short()), pairs(BAD)
    taken = dict(zip(map(str, (*pairs(GOOD), *bad, *short())), told["taken"], strict=True))
    assert [pair for pair in good if object_to(*pair) is not None or not taken[str(pair)]] == []
    assert [pair for pair in bad if object_to(*pair) is None or taken[str(pair)]] == []
