"""The command that starts a set is one that works as it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.view.test_outline import PLAN
from vllm_circus.paths import Instance, find_instance
from vllm_circus.view.starting import start_command, start_words


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """An instance with nothing in its folders."""
    instance = find_instance(environ={"VLLM_CIRCUS_HOME": str(tmp_path)})
    for folder in (instance.run_dir, instance.configs):
        folder.mkdir(parents=True)
    return instance


def ran(instance: Instance, source: Path) -> None:
    source.touch()
    instance.plan.write_text(json.dumps({**PLAN, "source": str(source)}))


def test_without_anything_it_is_the_instances_own_file(instance: Instance) -> None:
    assert start_command(instance) == "vllm-circus up -d"


def test_what_ran_last_is_named_unless_it_is_the_instances_own_file(instance: Instance, tmp_path: Path) -> None:
    ran(instance, instance.configs / "mine.yaml")
    assert start_command(instance) == "vllm-circus up -d mine"
    ran(instance, tmp_path / "my models.yaml")
    assert start_command(instance) == f"vllm-circus up -d '{tmp_path}/my models.yaml'"
    ran(instance, instance.config_file)
    assert start_command(instance) == "vllm-circus up -d"


def test_a_saved_configuration_is_named_where_there_is_no_other_file(instance: Instance, tmp_path: Path) -> None:
    ran(instance, tmp_path / "gone.yaml")
    (tmp_path / "gone.yaml").unlink()
    (instance.configs / "mine.yaml").touch()
    assert start_command(instance) == "vllm-circus up -d mine"
    instance.config_file.touch()
    assert start_command(instance) == "vllm-circus up -d"


def test_of_several_saved_configurations_none_is_picked(instance: Instance, tmp_path: Path) -> None:
    for name in ("night", "hall"):
        (instance.configs / f"{name}.yaml").touch()
    assert start_command(instance) == "vllm-circus up -d NAME"
    assert start_words(instance) == "`vllm-circus up -d NAME` (NAME is one of hall, night)"
    for number in range(9):
        (instance.configs / f"m{number}.yaml").touch()
    assert start_words(instance).endswith("(NAME is one of hall, m0, m1, m2, m3, m4 …)")
    ran(instance, instance.configs / "night.yaml")
    assert start_words(instance) == "`vllm-circus up -d night`"


def test_the_file_that_is_meant_wins(instance: Instance, tmp_path: Path) -> None:
    ran(instance, instance.configs / "hall.yaml")
    assert start_words(instance, tmp_path / "low.yaml") == f"`vllm-circus up -d {tmp_path}/low.yaml`"
    assert start_words(instance, instance.configs / "night.yaml") == "`vllm-circus up -d night`"
    assert start_words(instance, instance.config_file) == "`vllm-circus up -d`"
