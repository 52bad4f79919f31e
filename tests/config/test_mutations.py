"""Whatever the bytes are: a configuration, or faults that can be shown. Nothing else is ever raised."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.conftest import FakeDisk
from vllm_circus.config.load import parse_config
from vllm_circus.errors import ConfigError
from vllm_circus.facts import Facts
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import Plan, dump_plan, load_plan

EXAMPLE = "\n".join(
    line.replace("#", "", 1) if line.lstrip().startswith("#") and not line.lstrip().startswith("# ") else line
    for line in files("vllm_circus.conf").joinpath("example.yaml").read_text().splitlines()
    if not line.lstrip().startswith("# ") and line.strip() not in {"", "#"}
)
#: Pieces that have hurt others: they are put between, over and into the example's own text.
PIECES = [
    *["\n", "\n[circus]\n", "]", " ;", "$(circus.env.HOME)", "((circus.env.HOME))", "%(here)s", "../", "\x1b[31m"],
    *[
        "\r",
        "\x00",
        "\u2028",
        "\ufeff",
        "\t",
        "'",
        '"',
        "`",
        "{",
        "}",
        "[",
        ",",
        "#",
        "%",
        "@",
        "|",
        ">",
        "?",
        "!",
        "!!",
    ],
    *["&a ", "*a", "<<: *a", "<<: 1", "- ", ": ", ":", "---\n", "...\n", "? ", "!!python/name:os.system", "!!binary x"],
    *[
        "no",
        "~",
        "null",
        "0o7",
        "0x",
        "1_0",
        "1e400",
        ".inf",
        ".nan",
        "-1",
        "9" * 5000,
        "2026-13-45",
        "12:61",
        "1" * 50,
    ],
    *[
        "[" * 100,
        "{a: " * 100,
        "x" * 5000,
        '"\\ud800"',
        '"\\UFFFFFFFF"',
        '"\\x00"',
        "é",
        "\U0001f600",
        "=",
        "%YAML 9.9\n",
    ],
]
MACHINE = Facts(gpus=None, busy_ports=frozenset(), cores=8, programs={"vllm": "/bin/vllm"})


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The example with up to six things cut out, doubled, put in or exchanged."""
    text = EXAMPLE
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 60))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.just(""), st.just(text[start:end] * 2), st.text(max_size=8)))
        text = text[:start] + piece + text[end:]
    data = bytearray(text.encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def outcome(data: bytes) -> Plan | ConfigError:
    folder = Path("/run/x")
    try:
        loaded = parse_config(data, Path("/etc/models.yaml"))
        return make_plan(loaded, Instance("x", folder, folder, folder, folder), MACHINE, FakeDisk())
    except ConfigError as error:
        return error


def check(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, ConfigError):
        last = data.count(b"\n") + data.count(b"\r") + 2
        assert found.faults
        assert all(str(fault).isprintable() and 0 <= fault.line <= last for fault in found.faults)
        return
    assert load_plan(dump_plan(found)) == found
    for model in found.models:
        assert not {"\n", "\r", "\0"} & set("".join([*model.argv, *(value for _, value in model.env)]))


@pytest.mark.timeout(300)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutated())
def test_a_mutated_example_is_planned_or_refused_in_words(data: bytes) -> None:
    check(data)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode)))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    check(data)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(PIECES)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["name", "model", "port", "gpus", "args", "env", "engine", "lora", "restart", "probe", "profile", "aliases"]


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_value_anywhere_in_a_model_is_planned_or_refused_in_words(values: dict[str, object]) -> None:
    check(json.dumps({"models": [{"name": "a", "model": "b", **values}]}).encode())
