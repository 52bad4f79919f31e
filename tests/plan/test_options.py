"""Options of the engine: layers, spelling, and what the program sets itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.conftest import Planner
from vllm_circus.plan.options import words

Options = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", ["--x"]),
        ("false", ["--no-x"]),
        ("null", []),
        ("8192", ["--x", "8192"]),
        ("0.9", ["--x", "0.9"]),
        ("auto", ["--x", "auto"]),
        ('""', ["--x", ""]),
        ("-1", ["--x=-1"]),
        ("--host", ["--x=--host"]),
        ("[a, 1, true]", ["--x", "a", "1", "true"]),
        ("{a: {b: 1}, c: [null]}", ["--x", '{"a": {"b": 1}, "c": [null]}']),
    ],
)
def test_values_are_spelled_as_the_schema_says(options: Options, value: str, expected: list[str]) -> None:
    assert options(f"  args: {{x: {value}}}\n") == expected


@given(
    st.one_of(st.booleans(), st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.text()))
)
def test_a_value_never_becomes_another_option(value: object) -> None:
    flag, *rest = words("x", value)
    assert flag.partition("=")[0] in {"--x", "--no-x"}
    assert not any(word.startswith("-") and isinstance(value, str) for word in rest)


def test_the_models_own_options_win_over_the_profiles_and_these_over_the_defaults(options: Options) -> None:
    text = """\
  profile: p
  args: {z: own}
defaults: {args: {x: default, y: default, z: default}}
profiles: {p: {args: {y: profile, z: profile}}}
"""
    assert options(text) == ["--x", "default", "--y", "profile", "--z", "own"]


def test_null_takes_an_option_of_the_profile_away(options: Options) -> None:
    found = options("  profile: low_memory\n  args: {quantization: null}\n")
    assert found == ["--max-model-len", "4096", "--gpu-memory-utilization", "0.7"]


def test_both_spellings_are_one_option(options: Options) -> None:
    assert options("  profile: low_memory\n  args: {max_model_len: 1, --quantization: awq}\n") == [
        *["--max-model-len", "1", "--gpu-memory-utilization", "0.7", "--quantization", "awq"]
    ]


def test_fields_behind_a_dot_keep_their_underscores(options: Options) -> None:
    assert options("  args: {compilation_config.cudagraph_mode: NONE}\n") == [
        "--compilation-config.cudagraph_mode",
        "NONE",
    ]


def test_false_for_a_flag_without_a_no_form_is_its_absence(options: Options) -> None:
    assert options("  args: {disable-log-stats: false}\n") == []


def test_both_spellings_in_one_place_are_refused(planner: Planner) -> None:
    (fault,) = planner.faults("models: [{name: a, model: org/x, args: {max-model-len: 1, max_model_len: 2}}]")
    assert "args.max_model_len: the same option as 'max-model-len' (keep one of the two)" in fault


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("host", "loopback only"),
        ("port", "write the model's `port`"),
        ("uds", "loopback only"),
        ("served-model-name", "`name` and `aliases`"),
        ("served_model_name", "`name` and `aliases`"),
        ("--served-model", "`name` and `aliases`"),
        ("api-key", "`proxy.keys`"),
        ("hf-token", "`env_file`"),
        ("lora-modules", "write `lora: [{name"),
        ("ssl-keyfile", "loopback only"),
        ("ssl-cert", "loopback only"),
        ("hos", "loopback only"),
        ("model", "write the model's `model`"),
        ("config", "write the options here"),
        ("help", "vllm serve --help=all"),
        ("no-enable-prefix-caching", "write `enable-prefix-caching: false`"),
    ],
)
@pytest.mark.parametrize("where", ["models[0]", "defaults", "profiles.p"])
def test_what_the_program_sets_itself_is_refused_everywhere(planner: Planner, where: str, name: str, fix: str) -> None:
    args = dict.fromkeys(("models[0]", "defaults", "profiles.p"), "{}") | {where: f"{{{name}: x}}"}
    text = f"""\
defaults: {{args: {args["defaults"]}}}
profiles: {{p: {{args: {args["profiles.p"]}}}}}
models: [{{name: a, model: org/x, args: {args["models[0]"]}}}, {{name: b, model: org/y}}]
"""
    (fault,) = planner.faults(text)
    assert f"{where}.args" in fault
    assert "the program sets this itself" in fault or name.startswith("no-")
    assert fix in fault


@pytest.mark.parametrize(("value", "words"), [("[]", "an empty list"), ("[a, --host]", "read as another option")])
def test_lists_that_would_be_misread_are_refused(planner: Planner, value: str, words: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: a, model: org/x, args: {{x: {value}}}}}]")
    assert words in fault
