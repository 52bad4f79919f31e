"""Names of elsewhere become names that can be used here."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_circus.config.models import NAME_PATTERN, RESERVED_NAMES
from vllm_circus.exchange.names import model_name, unique_name, usable_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chat", "chat"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("/srv/models/bge-m3/", "bge-m3"),
        ("My  Model (v2)", "my-model-v2"),
        ("low_memory", "low_memory"),
        ("Übung", "ubung"),
        ("-x-", "x"),
        ("漢字", "model"),
        ("", "model"),
        ("a" * 70, "a" * 64),
        ("proxy", "proxy-model"),
        ("ALL", "all-model"),
    ],
)
def test_names_of_models(text: str, name: str) -> None:
    assert model_name(text) == name


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(max_size=80))
def test_every_text_becomes_a_usable_name_that_stays_what_it_is(text: str) -> None:
    name = model_name(text)
    assert re.fullmatch(NAME_PATTERN, name)
    assert name not in RESERVED_NAMES
    assert model_name(name) == name
    assert usable_name(usable_name(text)) == usable_name(text)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(["a", "a-2", "b" * 64]), max_size=14))
def test_unique_names_are_usable_and_each_once(names: list[str]) -> None:
    taken: set[str] = set()
    for name in names:
        found = unique_name(name, taken)
        assert found not in taken
        assert re.fullmatch(NAME_PATTERN, found)
        taken.add(found)
