"""Names, aliases and adapters: each leads to one model."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner


def test_a_model_answers_to_its_name_its_aliases_and_its_adapters(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, aliases: [b, c/D], lora: [{name: d, path: org/y}]}]")
    assert model.names == ("a", "b", "c/D", "d")
    assert model.aliases == ("b", "c/D")
    assert model.watcher == "model-a"


@pytest.mark.parametrize(
    ("second", "place"),
    [
        ("name: a", "models[1].name: 'a' is also models[0].name (line 2)"),
        ("name: b, aliases: [a]", "models[1].aliases[0]: 'a' is also models[0].name (line 2)"),
        ("name: b, aliases: [x]", "models[1].aliases[0]: 'x' is also models[0].aliases[0] (line 2)"),
        ("name: b, aliases: [b]", "models[1].aliases[0]: 'b' is also models[1].name (line 3)"),
        (
            "name: b, lora: [{name: y, path: org/y}]",
            "models[1].lora[0].name: 'y' is also models[0].lora[0].name (line 2)",
        ),
        ("name: x", "models[0].aliases[0]: 'x' is also models[1].name (line 3)"),
        ("name: b, enabled: false, aliases: [a]", "models[1].aliases[0]: 'a' is also models[0].name (line 2)"),
    ],
)
def test_a_name_that_stands_twice_is_refused(planner: Planner, second: str, place: str) -> None:
    first = "{name: a, model: org/x, aliases: [x], lora: [{name: y, path: org/y}]}"
    (fault,) = planner.faults(f"models:\n- {first}\n- {{model: org/x, {second}}}\n")
    assert fault.partition(" ")[2] == f"{place} (every name, alias and adapter must differ)"


@pytest.mark.parametrize("name", ["proxy", "health", "stats", "notify", "circusd", "all"])
def test_names_of_parts_are_refused(planner: Planner, name: str) -> None:
    (fault,) = planner.faults(f"models: [{{name: {name}, model: org/x}}]")
    assert f"'{name}' is a name that commands and logs use" in fault


@pytest.mark.parametrize("name", ["a", "b", "d"])
def test_the_default_model_may_be_any_name(planner: Planner, name: str) -> None:
    text = "models: [{name: a, model: org/x, aliases: [b], lora: [{name: d, path: org/y}]}, {name: c, model: org/x}]"
    assert planner.plan(f"proxy: {{default_model: {name}}}\n{text}").proxy.default_model == name


def test_an_unknown_default_model_is_refused_with_a_suggestion(planner: Planner) -> None:
    (fault,) = planner.faults("proxy: {default_model: chta}\nmodels: [{name: chat, model: org/x}]")
    assert fault == "1: proxy.default_model: no model is called 'chta' (did you mean 'chat'?)"


def test_a_single_model_is_the_default(planner: Planner) -> None:
    assert planner.plan("models: [{name: a, model: org/x}]").proxy.default_model == "a"
    two = "models: [{name: a, model: org/x}, {name: b, model: org/x}]"
    assert planner.plan(two).proxy.default_model is None
