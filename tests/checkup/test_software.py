"""Packages of the wrong version, and engines that do not tell theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkup.conftest import MakePlan
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.scene import Scene
from vllm_circus.checkup.software import (
    check_engines,
    check_packages,
    engine_version,
    judge_engine,
    judge_packages,
    parse_requirement,
    satisfies,
)
from vllm_circus.config.load import parse_config


@pytest.mark.parametrize(
    ("version", "limits", "fits"),
    [
        ("0.19.0", "==0.19.*", True),
        ("0.20", "==0.19.*", False),
        ("6.5.7", ">=6.5.7", True),
        ("6.5.6", ">=6.5.7", False),
        ("6.10", ">=6.5.7", True),
        ("7", ">=6.5.7,<7", False),
        ("2.0.1", "~=2.0", True),
        ("3.0", "~=2.0", False),
        ("1.0", "==1.0.0", True),
        ("1.5", "!=1.5", False),
        ("2.1", "<=2.1,>2.0", True),
        ("unknown", ">=1", True),
        ("1.2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, limits: str, fits: bool) -> None:
    assert satisfies(version, limits) is fits


def test_a_requirement_has_a_name_and_limits() -> None:
    assert parse_requirement("circus==0.19.*") == ("circus", "==0.19.*")
    assert parse_requirement("pydantic (>=2.7, <3)") == ("pydantic", ">=2.7,<3")
    assert parse_requirement("ruamel.yaml>=0.18; python_version > '3'") == ("ruamel.yaml", ">=0.18")


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_requirement_is_read_without_an_error(version: str, text: str) -> None:
    satisfies(version, parse_requirement(text)[1])


def test_missing_and_old_packages_are_faults_with_their_cure() -> None:
    versions = {"circus": "0.18.0", "click": "8.1"}
    needed = ["circus==0.19.*", "tornado>=6.5.7", "click>=8.1", "pytest>=8; extra == 'test'"]
    old, missing = judge_packages(needed, versions.get, "/v/bin/python")
    assert (old.verdict, missing.verdict) == (Verdict.FAULT, Verdict.FAULT)
    assert old.what == "circus 0.18.0 is installed, and circus==0.19.* is needed"
    assert missing.fix == "`/v/bin/python -m pip install 'tornado>=6.5.7'`"


def test_this_installation_is_well(scene: Scene) -> None:
    (found,) = check_packages(scene)
    assert found.verdict is Verdict.OK
    assert "circus 0.19" in found.what
    assert found.what.endswith(" relay")


def program(folder: Path, script: str) -> Path:
    """An executable of these lines."""
    path = folder / "bin/vllm"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_version_beside_a_program_is_read_without_running_it(tmp_path: Path) -> None:
    path = program(tmp_path, "exit 1")
    (tmp_path / "lib/python3.12/site-packages/vllm-0.11.2.dist-info").mkdir(parents=True)
    assert engine_version(path) == "0.11.2"


def test_a_program_without_packages_is_asked(tmp_path: Path) -> None:
    assert engine_version(program(tmp_path, "echo INFO loading; echo 0.12.0")) == "0.12.0"


def test_a_program_that_fails_tells_nothing(tmp_path: Path) -> None:
    assert engine_version(program(tmp_path, "echo 0.12.0; exit 3")) == ""
    assert judge_engine("/x/vllm", "").verdict is Verdict.NOTE


def test_an_old_engine_is_noted() -> None:
    assert judge_engine("/x/vllm", "0.6.3").verdict is Verdict.NOTE
    assert judge_engine("/x/vllm", "0.11.0").verdict is Verdict.OK


def test_an_engine_that_is_gone_is_a_fault(scene: Scene, plan_of: MakePlan, tmp_path: Path) -> None:
    (model,) = plan_of("models: [{name: a, model: org/a}]").models
    plan = plan_of("models: [{name: a, model: org/a}]")
    gone = replace(plan, models=(replace(model, argv=(str(tmp_path / "vllm"), "serve")),))
    (found,) = check_engines(replace(scene, planned=Answer(gone)))
    assert found.verdict is Verdict.FAULT
    assert f"{tmp_path / 'vllm'} is not there" in found.what


def test_simulated_models_need_no_engine(scene: Scene, plan_of: MakePlan) -> None:
    planned = Answer(plan_of("models: [{name: a, model: sim/a, engine: simulator}]"))
    (found,) = check_engines(replace(scene, planned=planned))
    assert (found.verdict, found.what) == (Verdict.OK, "every model is simulated, so no engine is needed")


@pytest.mark.parametrize(
    ("text", "simulated"),
    [
        ("defaults: {engine: simulator}\nmodels: [{name: a, model: sim/a}]", True),
        ("defaults: {engine: simulator}\nmodels: [{name: a, model: sim/a, engine: vllm}]", False),
        ("models: [{name: a, model: sim/a}]", False),
    ],
)
def test_a_file_with_faults_tells_whether_vllm_is_meant(text: str, simulated: bool, scene: Scene) -> None:
    loaded = parse_config(text.encode(), Path("models.yaml"))
    (found,) = check_engines(replace(scene, loaded=loaded))
    assert found.what.startswith("every model is simulated") is simulated
