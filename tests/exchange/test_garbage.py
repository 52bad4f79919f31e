"""Whatever the bytes are: documents that our schema takes, or faults that can be shown, in little time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.conftest import FakeDisk, Planner
from vllm_circus.config.load import parse_config
from vllm_circus.config.models import Profile
from vllm_circus.errors import ConfigError
from vllm_circus.exchange.read import read_foreign
from vllm_circus.exchange.tell import tell_import
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.writing import dump_models_file
from vllm_circus.stores.yamltext import dump_block

SAMPLES = sorted((Path(__file__).parent / "samples").iterdir())
PIECES = [
    *[
        "\n",
        "\r",
        "\x00",
        "\u2028",
        "\ufeff",
        "\t",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        "#",
        "&a ",
        "*a",
        ": ",
        "- ",
        "\x1b[31m",
    ],
    *[
        "null",
        "true",
        "-1",
        "1e400",
        "NaN",
        ".inf",
        "9" * 60,
        "[]",
        "{}",
        "''",
        "name",
        "model",
        "profile",
        "models",
        "config",
    ],
    *[
        '"model_path": ',
        "gpu_ids: [",
        "vllm_circus_export: 1",
        "config_overrides: ",
        "\\ud800",
        "é",
        "🎪",
        "/",
        "..",
        "$HOME",
    ],
]


def fails(data: bytes, source: str = "x") -> bool:
    """Whether the faults that are told cannot be shown; what could be read has to be usable and printable."""
    try:
        imported = read_foreign(data, source)
    except ConfigError as error:
        return error.faults[0].file != source or not str(error).replace("\n", "").isprintable()
    for name, document in imported.configurations.items():
        parse_config(imported.texts.get(name, dump_models_file(document)).encode(), Path(name))
    for kind, entries in ((Profile, imported.profiles), (Shortcut, imported.shortcuts)):
        for document in entries.values():
            kind.model_validate(document)
            dump_block(document)
    return not all(line.isprintable() for line in tell_import(imported))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"7", "this is no mapping"),
        (b"[1]", "this is no mapping"),
        (b"{}", "nobody can tell what this file is"),
        (b"a: b", "nobody can tell what this file is"),
        (b"\xff\xfe", "not UTF-8: byte 0xff"),
        (b"{" * 100_000, "nested deeper than 50 levels"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested deeper than 50 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 50 levels"),
        (b'{"a": NaN}', "NaN is no number that JSON knows"),
        (b'{"a": 1e999}', "a number that is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number with too many digits"),
        (b'{"a": ' + b"9" * 60 + b"}", "a number with too many digits"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": [' + b"1," * 200_000 + b"1]}", "more than 100,000 values"),
        (b" " * (1 << 20) + b"{}", "larger than 1 MiB"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9))
         for c in range(ord("c"), ord("n"))), "values, aliases counted"),
        (b'{"models": [' + b'{"model_path": "a"},' * 1000 + b'{"model_path": "a"}]}', "more than 1,000 entries"),
        (b'{"profiles": {' + b",".join(b'"%d": {"config": {}}' % n for n in range(1001)) + b"}}", "more than 1,000"),
        (b"a: !!python/name:os.system x", "the tag"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(data: bytes, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError, match=message):
        read_foreign(data, "x")
    assert time.process_time() - begun < 20  # a slow machine takes a few seconds for a megabyte


def test_broken_json_is_told_as_json_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"a\.json:2: not valid JSON"):
        read_foreign(b'{"profiles": {\n  "a" 1}}', "a.json")


def test_the_name_of_the_file_cannot_do_harm() -> None:
    with pytest.raises(ConfigError) as caught:
        read_foreign(b"7", "a\x1b[31m\n.json")
    assert "\x1b" not in str(caught.value)
    assert list(read_foreign(b"args: {seed: 1}", "/x/\u00c4rger & \x1b.yaml").profiles) == ["arger"]
    assert list(read_foreign(b"args: {seed: 1}", "\u6f22.yaml").profiles) == ["imported"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=4),
)
def test_mutated_samples_are_read_or_refused(sample: Path, changes: list[tuple[float, int, str]]) -> None:
    text = sample.read_text()
    for where, length, piece in changes:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + length :]
    assert not fails(text.encode("utf-8", "surrogatepass"))


_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_ENGINE_KEYS = """seed max_model_len gpu_memory_utilization tensor_parallel_size pipeline_parallel_size host port
    lora_modules lora_adapters served_model_name device extra_args profile_environment model ssl_keyfile
    enable_sleep_mode api_key quantization no-x env"""
_CONFIG_KEYS = st.sampled_from([*_ENGINE_KEYS.split(), "A b"])
_CONFIGS = st.dictionaries(_CONFIG_KEYS, _TREES | st.sampled_from(["a=b c=d", "0,1", "--x 1", "'"]), max_size=5)


def _record(**keys: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: _TREES | value for key, value in keys.items()})


_NAMES = st.sampled_from(["a", "A", "proxy", "org/a", "a b", "\x1b", "é" * 70])
_MODELS = _record(
    name=_NAMES,
    model_path=st.sampled_from(["org/a", "/m", "a"]),
    port=st.integers(0, 70_000),
    gpu_ids=st.lists(st.integers(-1, 9), max_size=4),
    profile=_NAMES,
    config_overrides=_CONFIGS,
    enabled=st.booleans(),
    loading_priority=st.integers(-3, 3),
)
_PROXIES = _record(host=_NAMES, port=st.integers(0, 70_000), enable_cors=st.booleans(), log_requests=st.booleans())
_PROFILES = _record(name=_NAMES, description=st.text(), config=_CONFIGS, environment=_CONFIGS, lora_adapters=_TREES)
_SHORTCUTS = _record(
    name=_NAMES, model=_NAMES | st.fixed_dictionaries({"model": _NAMES, "lora_modules": _TREES}), profile=_NAMES,
    config_overrides=_CONFIGS, description=st.text(),
)  # fmt: skip
_FILES = st.one_of(
    st.fixed_dictionaries({"proxy": _PROXIES, "models": st.lists(_MODELS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"profiles": st.dictionaries(_NAMES, _PROFILES, max_size=3)}),
    st.fixed_dictionaries({"shortcuts": st.dictionaries(_NAMES, _SHORTCUTS, max_size=3)}),
    _record(profile=_PROFILES),
    _record(shortcut=_SHORTCUTS),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(_FILES)
def test_files_of_the_right_shape_with_any_values_are_read_or_refused(document: dict[str, Any]) -> None:
    assert not fails(json.dumps(document).encode())


class _Anything(FakeDisk):
    """A disk with every file."""

    def exists(self, path: Path) -> bool:
        return True


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.fixed_dictionaries({"proxy": _PROXIES, "models": st.lists(_MODELS, min_size=1, max_size=3)}))
def test_what_was_read_can_be_planned_but_for_gpus_and_profiles_of_elsewhere(document: dict[str, Any]) -> None:
    try:
        imported = read_foreign(json.dumps(document).encode(), "x")
    except ConfigError:
        return
    (found,) = imported.configurations.values()
    for model in found["models"][1:]:
        model["enabled"] = False  # else two may want one GPU, which is told of
    names = {model.get("profile") for model in found["models"]} - {None}
    profiles = {name: {"args": {"seed": 1}} for name in names}
    planner = Planner(disk=_Anything()).given(gpus=None)
    planner.plan(dump_models_file({**found, "profiles": profiles}))
