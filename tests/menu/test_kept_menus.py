"""The menus of shortcuts, saved configurations and settings, answered from a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.menu.scripted import BACK, DEFAULT, Scripted
from vllm_circus.config.models import Profile
from vllm_circus.menu.configurations import open_configurations
from vllm_circus.menu.settings import open_settings
from vllm_circus.menu.shortcuts import open_shortcuts
from vllm_circus.paths import Instance
from vllm_circus.stores.schema import Settings
from vllm_circus.stores.settings import change_settings, read_settings
from vllm_circus.stores.shelf import configuration_shelf, profile_shelf, shortcut_shelf
from vllm_circus.stores.yamltext import plain

Menu = Callable[..., Scripted]

ONE = """\
# what stands here stays here
proxy: {host: 127.0.0.1, port: 8111}
models:
  - {name: chat, model: sim/chat, engine: simulator, profile: mine}
"""


def keep(instance: Instance, name: str = "one", text: str = ONE) -> None:
    """A saved configuration, and the profile that it names."""
    if "mine" not in profile_shelf(instance).names():
        profile_shelf(instance).write("mine", Profile(args={"max-model-len": 512}))
    configuration_shelf(instance).write_text(name, text)


def test_a_shortcut_is_a_model_a_profile_and_what_differs(menu: Menu, instance: Instance) -> None:
    asked = menu(
        open_shortcuts,
        *("New shortcut", "Another", "no id", "Qwen/Qwen3-8B", DEFAULT),
        *("Profile", "low_memory"),
        *("Options", "Add one", "max-model-len=1024", "Done"),
        *("Aliases", "gpt 4o!", "gpt-4o, best", "Description", "the small one"),
        *("LoRA", ["Another"], "ann/sql-lora", "sql"),
        *("Keep", "Back"),
    )
    assert asked.question("Name of the shortcut").default == "qwen3-8b"
    assert plain(shortcut_shelf(instance).read("qwen3-8b")) == {
        "model": "Qwen/Qwen3-8B",
        "profile": "low_memory",
        "args": {"max-model-len": 1024},
        "aliases": ["gpt-4o", "best"],
        "description": "the small one",
        "lora": [{"name": "sql", "path": "ann/sql-lora"}],
    }
    assert any("no name that a client could ask for" in complaint for complaint in asked.complaints)


def test_a_shortcut_keeps_what_the_menu_does_not_ask_for(menu: Menu, instance: Instance) -> None:
    shelf = shortcut_shelf(instance)
    shelf.write_text("one", "model: sim/one\nidle: {after: 60}\nargs: {dtype: half}\n")
    asked = menu(open_shortcuts, "one", "Edit", "Options", "dtype", "", "Done", "Keep", "Back", "Back")
    assert plain(shelf.read("one")) == {"model": "sim/one", "idle": {"after": 60}}
    assert "What else its file says stays as it is: idle: after=60.0" in asked.shown


def test_a_configuration_is_checked_copied_renamed_and_removed(menu: Menu, instance: Instance) -> None:
    keep(instance)
    asked = menu(
        open_configurations,
        *("one", "Show", "Check", "Copy", "two", "Rename", "three", "Remove", True),
        *("two", "Back", "Back"),
    )
    shown = "\n".join(asked.shown)
    assert "# what stands here stays here" in shown
    assert any("simulator" in line and "sim/chat" in line for line in asked.shown)
    assert configuration_shelf(instance).names() == ("two",)


def test_a_configuration_whose_profile_has_gone_is_listed_with_that(menu: Menu, instance: Instance) -> None:
    keep(instance)
    assert menu(open_configurations, "Back").question("Saved").hints["one"] == "1 model on port 8111: chat"
    profile_shelf(instance).remove("mine")
    hint = menu(open_configurations, "Back").question("Saved").hints["one"]
    assert hint.startswith("broken: ")
    assert "one.yaml:4: models[0].profile: there is no profile 'mine'" in hint


def test_a_configuration_goes_into_a_file_and_comes_back_with_its_profile(
    menu: Menu, instance: Instance, home: Path
) -> None:
    keep(instance)
    menu(open_configurations, "one", "Export", "~/out.yaml".replace("~", str(home)), "Back", "Back")
    configuration_shelf(instance).remove("one")
    profile_shelf(instance).remove("mine")
    asked = menu(open_configurations, "Import a file", str(home / "out.yaml"), "Back")
    text = configuration_shelf(instance).read_text(configuration_shelf(instance).names()[0])
    assert "max-model-len: 512" in text
    assert any(line.startswith("configuration ") for line in asked.shown)


def test_a_pasted_command_becomes_a_configuration_and_losses_are_told(menu: Menu, instance: Instance) -> None:
    command = "CUDA_VISIBLE_DEVICES=7 vllm serve Qwen/Qwen3-8B --max-model-len 8192 --host 0.0.0.0"
    asked = menu(open_configurations, "Import a command", "", command, "Back")
    (name,) = configuration_shelf(instance).names()
    (model,) = configuration_shelf(instance).read(name).loaded.config.models
    assert (model.model, model.args["max-model-len"], model.gpus) == ("Qwen/Qwen3-8B", 8192, [7])
    assert "not on this machine:" in asked.shown


def test_what_is_no_command_and_no_file_is_explained(menu: Menu, home: Path) -> None:
    (home / "odd.yaml").write_text("[1, 2]\n")
    asked = menu(open_configurations, "Import a command", "rm -rf /", "Import a file", str(home / "odd.yaml"), "Back")
    assert sum(line.startswith("error: ") for line in asked.shown) == 2


def test_a_file_is_edited_with_the_operators_own_editor_and_checked(
    menu: Menu, instance: Instance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(instance)
    editor = home / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/8111/8222/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    menu(open_configurations, "one", "Edit the file", "Back", "Back")
    assert configuration_shelf(instance).read("one").loaded.config.proxy.port == 8222
    editor.write_text("#!/bin/sh\necho 'models: 7' > \"$1\"\n")
    asked = menu(open_configurations, "one", "Edit the file", "Back", "Back")
    assert any("models: needs a list" in line for line in asked.shown)
    assert configuration_shelf(instance).read("one").loaded.config.proxy.port == 8222


def test_settings_are_set_checked_and_taken_back(menu: Menu, instance: Instance, home: Path) -> None:
    token = home / "token"
    token.write_text("hf_x")
    token.chmod(0o644)
    (home / "models").mkdir()

    def tighter() -> str:
        token.chmod(0o600)
        return str(token)

    asked = menu(
        open_settings,
        *("Model folders", "Add a folder", str(home / "none"), str(home / "models"), "Back"),
        *("Token file", str(home / "none"), str(token), tighter),
        *("port:", "70000", "eighty", "8080"),
        *("Plain prompts", True, "Back"),
    )
    settings = read_settings(instance)
    assert settings.model_folders == [str(home / "models")]
    assert (settings.token_file, settings.proxy.port, settings.plain) == (str(token), 8080, True)
    assert any("chmod 600" in complaint for complaint in asked.complaints)
    assert any("65,535" in complaint for complaint in asked.complaints)
    menu(
        open_settings,
        *("Model folders", str(home / "models"), True, "Back"),
        *("Token file", "", "port:", "", "Plain prompts", False, "Back"),
    )
    assert read_settings(instance) == Settings()


def test_settings_of_two_menus_at_once_both_stay(menu: Menu, instance: Instance) -> None:
    def meanwhile() -> str:
        change_settings(instance, lambda one: Settings.model_validate({**plain(one), "plain": True}))
        return "9000"

    menu(open_settings, "port:", meanwhile, "Back")
    settings = read_settings(instance)
    assert (settings.proxy.port, settings.plain) == (9000, True)


def test_escape_goes_one_step_back_everywhere(menu: Menu, instance: Instance) -> None:
    keep(instance)
    asked = menu(open_configurations, "one", "Rename", BACK, "Back", "Back")
    assert asked.titles[-2:] == ["The configuration 'one'", "Saved configurations"]
