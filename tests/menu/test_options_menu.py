"""Engine options and variables as they are typed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.menu.options import parse_option, parse_variable, show_option
from vllm_circus.menu.typed import pasted


@pytest.mark.parametrize(
    ("typed", "option"),
    [
        ("max-model-len=8192", ("max-model-len", 8192)),
        ("--max-model-len 8192", ("max-model-len", 8192)),
        ("max_model_len: 8192", ("max-model-len", 8192)),
        ("enforce-eager", ("enforce-eager", True)),
        ("enable-prefix-caching=false", ("enable-prefix-caching", False)),
        ("quantization=null", ("quantization", None)),
        ('hf-overrides={"rope": {"factor": 2.0}}', ("hf-overrides", {"rope": {"factor": 2.0}})),
        ("allowed-origins=[a, b]", ("allowed-origins", ["a", "b"])),
        ("seed='7'", ("seed", "7")),
    ],
)
def test_an_option_is_read_as_the_models_file_reads_it(typed: str, option: tuple[str, Any]) -> None:
    assert parse_option(typed) == option


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "write an option and its value"),
        ("=5", "write an option and its value"),
        ("__a0", "write an option and its value"),
        ("port=9", "write the model's `port`"),
        ("api-key=x", "a random key of its own"),
        ("no-enforce-eager", "write `enforce-eager: false`"),
        ("max-model-len=32 k", "needs a whole number from 1, not '32 k': write 32768, 32k (32,000)"),
        ("max-model-len", "needs a value"),
        ("stop=[", "not valid YAML"),
        ("stop=[]", "an empty list"),
        ("stop=[-x]", "cannot begin with '-'"),
        ("since=2026-11-23", "is a date for YAML"),
        ("seed=5 # five", "quote the value"),
        ("x=!!python/object:os.system y", "is not allowed"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(typed: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_option(typed)
    assert said in str(raised.value)


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_options_and_variables(text: str) -> None:
    for parse in (parse_option, parse_variable):
        try:
            name, value = parse(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - most texts are refused, and each refusal says why
        else:
            assert name
            assert parse is parse_variable or parse(f"{name}={show_option(value)}") == (name, value)


def test_a_command_that_is_pasted_with_its_line_ends_is_one_line() -> None:
    assert pasted("A=1 vllm serve \\\n  Qwen/Qwen3-8B \\\r\n\t--max-model-len 8192\n") == (
        "A=1 vllm serve Qwen/Qwen3-8B --max-model-len 8192"
    )
    assert pasted("two\nlines") == "two\nlines"
