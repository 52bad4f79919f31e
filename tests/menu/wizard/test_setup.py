"""What was answered as data: names, the models file that it is, and the draft."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.view.test_outline import PLAN
from vllm_circus.config.models import NAME_PATTERN, RESERVED_NAMES, Config
from vllm_circus.menu.wizard.checks import bad_port
from vllm_circus.menu.wizard.model import ports_of_running
from vllm_circus.menu.wizard.proxy import first_values
from vllm_circus.menu.wizard.setup import Entry, Setup, document, dump_draft, load_draft, name_for, whole_document
from vllm_circus.view.outline import read_outline

CHAT = Entry({"model": "Qwen/Qwen3-8B", "name": "chat", "gpus": [0], "aliases": ["a"]})
CODER = Entry({"model": "/models/coder", "name": "coder", "gpus": []}, "short")


def setup(**changes: object) -> Setup:
    return Setup(**{"proxy": first_values({}), "models": (CHAT, CODER), **changes})  # type: ignore[arg-type]


def test_the_models_file_says_what_differs_from_the_defaults() -> None:
    assert document(setup()) == {
        "proxy": {"host": "0.0.0.0", "port": 8000},
        "models": [
            {"name": "chat", "model": "Qwen/Qwen3-8B", "aliases": ["a"], "gpus": [0]},
            {"name": "coder", "model": "/models/coder", "gpus": []},
        ],
    }
    changed = setup().with_proxy(metrics=False, cors=["https://a.example"], workers=2)
    assert document(changed)["proxy"] == {
        "host": "0.0.0.0", "port": 8000, "cors": ["https://a.example"], "metrics": False, "workers": 2,
    }  # fmt: skip


def test_the_models_file_is_one() -> None:
    Config.model_validate(document(setup(defaults={"engine": "simulator"})))


def test_the_model_in_question_is_part_of_the_whole() -> None:
    asked = setup().opened(0).with_entry(CHAT.with_values(name="other"))
    assert [one["name"] for one in whole_document(asked)["models"]] == ["other", "coder"]
    assert [one["name"] for one in document(asked)["models"]] == ["chat", "coder"]
    assert asked.others == (CODER,)


def test_a_model_that_is_done_takes_its_place() -> None:
    changed = setup().opened(0).with_entry(CHAT.with_values(name="other")).settled()
    assert [one.name for one in changed.models] == ["other", "coder"]
    added = setup().opened(None).with_entry(Entry({"name": "new"})).settled()
    assert [one.name for one in added.models] == ["chat", "coder", "new"]
    assert added.pending is None


def test_empty_values_are_left_out_but_no_gpu_is_a_value() -> None:
    assert CHAT.with_values(aliases=[], gpus=[], port=None).values == {
        "model": "Qwen/Qwen3-8B", "name": "chat", "gpus": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("/models/My Model.gguf", "my-model"),
        ("~/x/", "x"),
        ("org/Model:Q4_K_M", "model"),
        ("###", "model"),
        ("org/all", "all-2"),
    ],
)
def test_a_name_follows_from_the_model(model: str, name: str) -> None:
    assert name_for(model, ()) == name


@given(st.text(min_size=1, max_size=300), st.sets(st.sampled_from(["model", "model-2", "a"])))
def test_every_model_gets_a_name_that_can_be_used(model: str, taken: set[str]) -> None:
    import re

    name = name_for(model, taken)
    assert re.fullmatch(NAME_PATTERN, name)
    assert name not in taken
    assert name not in RESERVED_NAMES


def test_a_draft_is_read_back_as_it_was() -> None:
    whole = setup(pending=Entry({"model": "x/y", "args": {"a": [1, "b"]}}), position=1, name="n", text="# t\n")
    whole = whole.with_choice("source", "hub")
    assert load_draft(dump_draft(whole)) == whole


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"proxy": 1}', '{"models": [1]}', "null", "1"])
def test_what_is_no_draft_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_draft(text)


def test_nothing_is_begun_before_something_was_answered() -> None:
    assert not Setup(first_values({})).is_begun()
    assert not Setup(first_values({}), pending=Entry({})).is_begun()
    assert setup().is_begun()


def test_the_file_can_be_read_as_yaml_and_says_the_same() -> None:
    from vllm_circus.menu.wizard.written import text_of

    assert yaml.safe_load(text_of(setup())) == document(setup())


def test_a_port_on_which_another_one_of_the_set_runs_is_not_free() -> None:
    running = read_outline(json.dumps(PLAN).encode())  # `a` runs on port 8001
    other = Entry({"model": "x/a", "name": "a"})
    asked = setup(models=(other,), pending=Entry({"model": "x/b", "name": "b", "port": 8001}))
    assert bad_port("8001", taken=ports_of_running(asked, running)) == (
        "port 8001 is where a runs: every port can be used once"
    )
    assert ports_of_running(setup(models=(CHAT,)), running) == [], "another set, which is not to run beside it"
    assert ports_of_running(replace(asked, models=(other.with_values(port=9000),)), running) == []
    assert ports_of_running(asked, None) == []
