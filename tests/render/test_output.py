"""The rendered files: what they are, how they are written, how they differ from what is there."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.supervise.plans import make_instance, make_model, make_plan
from vllm_circus.plan.types import Plan, load_plan
from vllm_circus.render import difference, render_files, write_files


@pytest.fixture
def plan(short_dir: Path) -> Plan:
    plan = make_plan(make_instance(short_dir), make_model("a"))
    plan.instance.run_dir.mkdir(parents=True)
    return plan


def test_two_files_are_rendered_and_the_plan_reads_back(plan: Plan) -> None:
    rendered = {file.name: file for file in render_files(plan)}
    assert set(rendered) == {"circus.ini", "plan.json"}
    assert load_plan(rendered["plan.json"].content) == plan


def test_files_are_private(plan: Plan) -> None:
    write_files(render_files(plan), plan.instance.run_dir)
    for path in (plan.instance.ini, plan.instance.plan):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_plan_renders_the_same_bytes(plan: Plan) -> None:
    assert tuple(render_files(plan)) == tuple(render_files(plan))


def test_nothing_differs_after_writing(plan: Plan) -> None:
    write_files(render_files(plan), plan.instance.run_dir)
    assert difference(plan) == ""


def test_before_the_first_start_everything_is_new(plan: Plan) -> None:
    lines = difference(plan).splitlines()
    assert lines[0] == "--- /dev/null"
    assert "+[watcher:model-a]" in lines


def test_a_change_is_shown_as_a_unified_diff(plan: Plan) -> None:
    write_files(render_files(plan), plan.instance.run_dir)
    changed = replace(plan, models=(replace(plan.models[0], stop_timeout=99.0),))
    lines = difference(changed).splitlines()
    assert f"--- {plan.instance.ini}" in lines
    assert "-graceful_timeout = 3" in lines
    assert "+graceful_timeout = 99" in lines
