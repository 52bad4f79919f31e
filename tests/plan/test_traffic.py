"""Affinity, limits, and what is changed in requests."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner

HOST = "proxy: {host: 127.0.0.1, workers: 4}\n"


def model(rest: str) -> str:
    return f"{HOST}models:\n- {{name: a, model: org/x, {rest}}}\n"


@pytest.mark.parametrize(
    ("written", "planned"),
    [("prefix", "(prefix)"), ("{header: X-Session-Id}", "x-session-id"), ("null", None)],
)
def test_affinity_is_a_header_in_lower_case_or_the_prefix(planner: Planner, written: str, planned: str | None) -> None:
    first, second = planner.plan(model(f"replicas: 2, affinity: {written}")).models
    assert first.affinity == second.affinity == planned


@pytest.mark.parametrize(
    ("rest", "warning"),
    [
        ("affinity: prefix", "models[0].affinity: does nothing without `replicas`: there is one engine to choose"),
        (
            "queue: {timeout: 3}",
            (
                "models[0].queue.timeout: does nothing without `max_in_flight`; "
                "how long requests wait for a model on its way is `hold`"
            ),
        ),
        (
            "max_in_flight: 3",
            "models[0].max_in_flight: 3 is less than one for each of the 4 workers: up to 4 may be in flight",
        ),
        (
            "request: {defaults: {max_tokens: 512}, limits: {max_tokens: 256}}",
            "models[0].request.defaults.max_tokens: 512 is more than the limit 256, which holds",
        ),
    ],
)
def test_what_does_less_than_it_seems_is_told(planner: Planner, rest: str, warning: str) -> None:
    assert planner.plan(model(rest)).warnings == (warning,)


@pytest.mark.parametrize(
    "rest",
    [
        "affinity: prefix, replicas: 2",
        "queue: {size: 3, timeout: 3}, max_in_flight: 4",
        "queue: {size: 3, hold: 3, comments: 3}",
        "max_in_flight: 4",
        "request: {defaults: {max_tokens: 256, top_k: null, stop: [a], x: true}, limits: {max_tokens: 256, x: 0}}",
    ],
)
def test_what_does_what_it_says_is_not_told(planner: Planner, rest: str) -> None:
    assert planner.plan(model(rest)).warnings == ()


def test_affinity_by_default_is_told_of_where_no_model_has_replicas(planner: Planner) -> None:
    above = f"{HOST}defaults: {{affinity: prefix, queue: {{size: 3}}}}\nmodels:\n- {{name: a, model: org/x}}\n"
    assert planner.plan(above).warnings == ("defaults.affinity: does nothing, since no model has `replicas`",)
    assert planner.plan(above + "- {name: b, model: org/x, replicas: 2}\n").warnings == ()


@pytest.mark.parametrize("part", ["defaults", "limits"])
@pytest.mark.parametrize("member", ["model", "messages", "prompt", "input", "stream", "stream_options"])
def test_members_that_make_the_request_are_not_changed(planner: Planner, part: str, member: str) -> None:
    (fault,) = planner.faults(model(f"request: {{{part}: {{{member}: 1}}}}"))
    assert fault.startswith(f"3: models[0].request.{part}.{member}: '{member}' cannot be changed: ")


def test_a_rule_that_comes_from_the_defaults_is_found_there(planner: Planner) -> None:
    above = f"{HOST}defaults:\n  request:\n    limits: {{model: 1}}\n"
    models = "models:\n- {name: a, model: org/x, request: {defaults: {top_k: 1}}}\n- {name: b, model: org/x}\n"
    (fault,) = planner.faults(above + models)
    assert fault.startswith("4: defaults.request.limits.model: ")


def test_rules_of_the_defaults_and_of_a_model_come_together_part_by_part(planner: Planner) -> None:
    above = f"{HOST}defaults: {{request: {{limits: {{max_tokens: 9}}, defaults: {{a: 1}}}}, queue: {{size: 5}}}}\n"
    plan = planner.plan(
        f"{above}models:\n- {{name: a, model: org/x, request: {{defaults: {{b: 2}}}}, max_in_flight: 4,"
        " queue: {timeout: 3}}\n"
    )
    (made,) = plan.models
    assert (made.request.limits, made.request.defaults) == ({"max_tokens": 9}, {"b": 2})
    assert (made.queue.size, made.queue.timeout, made.max_in_flight) == (5, 3, 4)
