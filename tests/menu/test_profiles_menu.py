"""The menu of profiles, answered from a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.menu.scripted import BACK, DEFAULT, INTERRUPT, Scripted
from vllm_circus.config.models import Profile
from vllm_circus.menu.profiles import open_profiles
from vllm_circus.paths import Instance
from vllm_circus.stores.shelf import profile_shelf
from vllm_circus.stores.yamltext import plain

Menu = Callable[..., Scripted]


def test_built_in_profiles_are_listed_and_shown(menu: Menu) -> None:
    asked = menu(open_profiles, "high_throughput", "Show", "Back", "Back")
    assert "max-model-len: 8192" in "\n".join(asked.shown)
    assert asked.question("The profile 'high_throughput'").labels == ["Show", "Copy", "Back"]


def test_a_new_profile_begins_with_another_one_and_is_edited(menu: Menu, instance: Instance) -> None:
    asked = menu(
        open_profiles,
        *("New profile", "low_memory", "small"),
        *("Options", "max-model-len=4096", "max-model-len=2048", "Add one", "port=9000", "enforce-eager", "Done"),
        *("Description", "for the small card"),
        *("Environment", "Add one", "1X=2", "HF_TOKEN=x", "CUDA_VISIBLE_DEVICES=1", "VLLM_LOGGING_LEVEL=DEBUG", "Done"),
        *("Keep", "Back"),
    )
    assert plain(profile_shelf(instance).read("small")) == {
        "description": "for the small card",
        "args": {"gpu-memory-utilization": 0.7, "quantization": "fp8", "max-model-len": 2048, "enforce-eager": True},
        "env": {"VLLM_LOGGING_LEVEL": "DEBUG"},
    }
    assert "the program sets this itself: write the model's `port`" in asked.complaints
    for what in ("begins with no digit", "looks like a secret", "the program sets this itself: "):
        assert any(what in complaint for complaint in asked.complaints)


def test_giving_up_writes_nothing(menu: Menu, instance: Instance) -> None:
    menu(open_profiles, "New profile", "None", "mine", "Description", "x", "Give up", "Back")
    menu(open_profiles, "New profile", "None", "mine", "Description", "x", BACK, True, "Back")
    assert profile_shelf(instance).names() == ()


@pytest.mark.parametrize("key", [BACK, INTERRUPT])
def test_no_change_is_thrown_away_unasked(menu: Menu, instance: Instance, key: type[BaseException]) -> None:
    menu(
        open_profiles,
        *("New profile", "None", "mine", "Description", "x", key, False),
        *("Options", "Add one", "seed=1", key, False, "Add one", BACK, "Done"),
        *("Environment", "Add one", "A=b", "Add one", *([BACK] if key is BACK else [INTERRUPT, BACK]), "Done"),
        *("Keep", "Back"),
    )
    assert plain(profile_shelf(instance).read("mine")) == {"description": "x", "args": {"seed": 1}, "env": {"A": "b"}}


def test_a_name_that_is_taken_or_unusable_is_explained_and_asked_again(menu: Menu, instance: Instance) -> None:
    profile_shelf(instance).write("mine", Profile())
    asked = menu(open_profiles, "New profile", "None", "mine", "My Profile", "other", "Keep", "Back")
    assert asked.complaints[0] == "there is a profile 'mine' already"
    assert asked.complaints[1].startswith("use up to 64 of a-z")
    assert profile_shelf(instance).names() == ("mine", "other")


def test_an_edit_keeps_what_another_menu_changed_meanwhile(menu: Menu, instance: Instance) -> None:
    shelf = profile_shelf(instance)
    shelf.write("mine", Profile(args={"max-model-len": 1024, "dtype": "half"}))

    def meanwhile() -> str:
        shelf.change("mine", lambda one: Profile(args={**one.args, "max-num-seqs": 7}, env=one.env))
        return "own"

    menu(open_profiles, "mine", "Edit", "Description", meanwhile, "Keep", "Back", "Back")
    assert plain(shelf.read("mine")) == {
        "args": {"max-model-len": 1024, "dtype": "half", "max-num-seqs": 7},
        "env": {},
        "description": "own",
    }


def test_renaming_goes_on_with_the_new_name_and_removing_comes_back_to_the_list(menu: Menu, instance: Instance) -> None:
    profile_shelf(instance).write("mine", Profile(description="one of mine"))
    asked = menu(open_profiles, "mine", "Rename", "better", "Remove", False, "Remove", True, "Back")
    assert asked.question("The profile 'better'")
    assert profile_shelf(instance).names() == ()


def test_what_somebody_else_removed_is_told_and_the_list_is_new(menu: Menu, instance: Instance) -> None:
    shelf = profile_shelf(instance)
    shelf.write("mine", Profile())

    def meanwhile() -> str:
        shelf.remove("mine")
        return "Show"

    asked = menu(open_profiles, "mine", meanwhile, "Back")
    assert "error: no profile 'mine'" in asked.shown
    assert "There is no profile 'mine' any more." in asked.shown
    assert "mine" not in asked.questions[-1].labels


def test_a_broken_profile_is_listed_with_its_fault_and_can_be_removed(menu: Menu, instance: Instance) -> None:
    folder = instance.config_dir / "profiles"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text("argz: {}\n")
    asked = menu(open_profiles, "bad", "Show", "Remove", True, "Back")
    assert "unknown key" in asked.questions[0].hints["bad"]
    assert any("bad.yaml:1: argz: unknown key" in line for line in asked.shown)
    assert not (folder / "bad.yaml").exists()


def test_a_profile_goes_to_another_machine_and_back(menu: Menu, instance: Instance, home: Path) -> None:
    shelf = profile_shelf(instance)
    shelf.write("mine", Profile(args={"dtype": "half"}, env={"OMP_PROC_BIND": "close"}))
    target = home / "out.yaml"
    asked = menu(open_profiles, "mine", "Export", str(home), str(home / "no/out.yaml"), str(target), "Back", "Back")
    assert len(asked.complaints) == 2
    assert target.stat().st_mode & 0o777 == 0o600
    shelf.remove("mine")
    asked = menu(open_profiles, "Import a file", str(home / "missing"), str(target), "Back")
    assert shelf.read("mine").args == {"dtype": "half"}
    asked = menu(open_profiles, "Import a file", str(target), "Back")
    assert "The profile 'mine' is here already, and the same." in asked.shown


def test_an_import_under_a_taken_name_asks(menu: Menu, instance: Instance, home: Path) -> None:
    shelf = profile_shelf(instance)
    shelf.write("mine", Profile(args={"dtype": "half"}))
    menu(open_profiles, "mine", "Export", str(home / "out.yaml"), "Back", "Back")
    shelf.change("mine", lambda one: Profile(args={"dtype": "float16"}))
    menu(open_profiles, "Import a file", str(home / "out.yaml"), "Keep both", DEFAULT, "Back")
    assert shelf.names() == ("mine", "mine-2")
    menu(open_profiles, "Import a file", str(home / "out.yaml"), "Leave", "Back")
    assert shelf.read("mine").args == {"dtype": "float16"}
    menu(open_profiles, "Import a file", str(home / "out.yaml"), "Replace", "Back")
    assert shelf.read("mine").args == {"dtype": "half"}
