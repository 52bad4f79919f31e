"""The menus of models, service and doctor, and the choice among several running sets, answered from a script."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.menu.conftest import LLAMA, QWEN, Room, fill_cache
from tests.menu.scripted import Scripted
from vllm_circus import checkup
from vllm_circus.cli.common import build_plan
from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.menu.configurations import open_configurations
from vllm_circus.menu.doctor import open_doctor
from vllm_circus.menu.models import open_models
from vllm_circus.menu.running import choose_instance, open_running, running_instances
from vllm_circus.menu.saved import open_saved
from vllm_circus.menu.service import open_service
from vllm_circus.paths import Instance, find_instance
from vllm_circus.plan.types import dump_plan
from vllm_circus.stores.shelf import configuration_shelf
from vllm_circus.supervise.lock import hold_lock

Menu = Callable[..., Scripted]

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> "$JOURNAL"
case "$*" in *is-active*) echo inactive; exit 3;; *is-enabled*) echo disabled; exit 1;; esac
"""


@pytest.fixture
def hub(home: Path) -> Path:
    """Hugging Face's cache with two models and an adapter."""
    return fill_cache(home / "hf" / "hub")


def test_models_are_listed_with_details_and_removed_after_saying_what_goes(menu: Menu, hub: Path) -> None:
    asked = menu(open_models, LLAMA, "Details", "Remove", False, "Remove", True, "Back")
    assert {LLAMA, QWEN, "ann/sql-lora"} <= set(asked.questions[0].labels)
    shown = "\n".join(asked.shown)
    assert "ann/sql-lora" in shown  # the adapter for it
    assert "would be free" in shown
    assert "It is not on this disk any more." in shown
    assert LLAMA not in asked.questions[-1].labels
    assert not (hub / "models--meta-llama--Meta-Llama-3-8B").exists()


def test_a_model_in_a_folder_of_ones_own_has_to_be_named_before_it_goes(menu: Menu, home: Path, hub: Path) -> None:
    own = home / "own" / "tiny"
    own.mkdir(parents=True)
    (own / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    menu(open_models, "Folders", "Add a folder", str(home / "own"), "Back", "Back")
    menu(open_models, str(own), "Remove", "yes", "Remove", "tiny", "Back")
    assert not own.exists()


def test_a_fit_that_nobody_can_tell_is_explained(menu: Menu, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_circus.gpu.list_gpus", lambda: ())
    asked = menu(open_models, QWEN, "Fit", "Back", "Back")
    assert "error: this machine has no GPU" in asked.shown


def test_a_fit_is_told_with_what_to_change(room: Room) -> None:
    os.environ["HF_HUB_CACHE"] = room.environ["HF_HUB_CACHE"]
    try:
        open_models(room.context(LLAMA, "Fit", "Back", "Back"))
    finally:
        del os.environ["HF_HUB_CACHE"]
    assert LLAMA in room.said
    assert "GPU" in room.said


def test_a_download_without_a_hub_is_explained(menu: Menu, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = menu(open_models, "Download", "qwen", "Qwen/Qwen3-8B", "Back")
    assert any("OWNER/NAME" in complaint for complaint in asked.complaints)
    assert any(line.startswith("error: ") for line in asked.shown)


@pytest.fixture
def systemctl(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked; returns that journal."""
    (home / "bin").mkdir()
    (home / "bin" / "systemctl").write_text(SYSTEMCTL)
    (home / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("JOURNAL", str(home / "journal"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    return home / "journal"


def test_the_service_is_shown_installed_and_uninstalled(menu: Menu, home: Path, systemctl: Path) -> None:
    unit = home / "config/systemd/user/vllm-circus.service"
    asked = menu(open_service, "Of this user", "Show", "Install", False, "Install", True, "Back", "Back")
    assert any(line.endswith("vllm-circus.service: is not installed") for line in asked.shown)
    assert "systemctl --user is-active vllm-circus.service: inactive" in asked.shown
    assert any(line.startswith("ExecStart=") for line in asked.shown)
    assert unit.exists()
    assert "--user daemon-reload" in systemctl.read_text()
    asked = menu(open_service, "Of this user", "Uninstall", False, "Uninstall", True, "Back", "Back")
    assert any(line.endswith("vllm-circus.service: is installed") for line in asked.shown)
    assert not unit.exists()


def test_units_that_somebody_else_wrote_are_left_alone(menu: Menu, home: Path, systemctl: Path) -> None:
    unit = home / "config/systemd/user/vllm-circus.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    asked = menu(open_service, "Of this user", "Install", True, "Back", "Back")
    assert any(line.endswith("vllm-circus.service: is not ours") for line in asked.shown)
    assert any("was not written by us" in line for line in asked.shown)
    assert unit.read_text() == "[Unit]\n"


def test_where_there_is_no_systemd_that_is_said(menu: Menu, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    asked = menu(open_service, "Of this user", "Back", "Back")
    assert any("systemctl is not installed here" in line for line in asked.shown)


def test_the_doctor_lists_what_is_wrong_the_worst_first(menu: Menu, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (
        checkup.Finding("Machine", "driver", checkup.Verdict.OK, "fine"),
        checkup.Finding("Room", "disk", checkup.Verdict.NOTE, "nearly full", "look at it"),
        checkup.Finding("Network", "ports", checkup.Verdict.FAULT, "8000 is taken", "kill 4711"),
    )
    monkeypatch.setattr(checkup, "run", lambda *_, **__: findings)
    asked = menu(open_doctor, "fault: ports", "Show everything", "Look again", "Back")
    assert asked.questions[0].labels[:2] == ["fault: ports", "note: disk"]
    shown = "\n".join(asked.shown)
    assert "what to do: kill 4711" in shown
    assert "fine" in shown


def test_ctrl_c_ends_the_doctors_looking(menu: Menu, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkup, "run", interrupted)
    assert "stopped looking; nothing was changed" in menu(open_doctor).shown


def test_where_several_sets_run_somebody_is_asked_which(room: Room) -> None:
    with ExitStack() as stack:
        for name in ("default", "lab"):
            stack.enter_context(hold_lock(find_instance(name)))
        context = room.context("lab")
        assert [one.name for one in running_instances(context)] == ["default", "lab"]
        assert choose_instance(context) == find_instance("lab")
    assert room.asker.titles == ["Several sets run. Which one?"]


def test_a_configuration_that_runs_is_neither_renamed_nor_removed(room: Room) -> None:
    shelf = configuration_shelf(room.instance)
    path = shelf.write_text("mine", "models: [{name: a, model: sim/a, engine: simulator}]\n")
    plan = build_plan(room.instance, path)
    with hold_lock(room.instance):
        room.instance.plan.write_bytes(dump_plan(plan))
        open_configurations(room.context("mine", "Rename", "Remove", "Back", "Back"))
        assert room.said.count("error: mine runs now") == 2
        with pytest.raises(CircusError, match="mine runs now"):
            open_saved(room.context("mine", "Delete"))
    assert shelf.names() == ("mine",)


def test_the_only_one_that_runs_is_meant_whatever_its_name(room: Room) -> None:
    with hold_lock(find_instance("lab")):
        assert choose_instance(room.context()).name == "lab"


def test_where_none_runs_that_is_said_with_what_to_do(room: Room, instance: Instance) -> None:
    with pytest.raises(NotRunning) as raised:
        open_running(room.context())
    assert "up -d" in raised.value.hint
