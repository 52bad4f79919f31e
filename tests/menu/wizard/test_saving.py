"""What the wizard writes: what was reviewed, in the place of what it was made from, and of nobody else's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.menu.conftest import Room
from tests.menu.scripted import BACK, DEFAULT, INTERRUPT
from tests.menu.wizard.answers import DONE, HUB, SIMULATED, hub_model
from vllm_circus.errors import CircusError
from vllm_circus.menu.configurations import open_configurations
from vllm_circus.menu.saved import open_saved
from vllm_circus.menu.wizard import starting
from vllm_circus.menu.wizard.drafts import Draft
from vllm_circus.menu.wizard.run import configure_new, edit_saved
from vllm_circus.stores.shelf import configuration_shelf

TEXT = """\
# ours
proxy: {host: 127.0.0.1, port: 8000}
defaults: {executable: /nowhere/vllm, drain_timeout: 5}
models:
  - {name: a, model: sim/a, gpus: []}
"""
ALIAS = ["Change models", "a", "Model Alias", "first", BACK, DONE]
SAVE = ["Save for later", DEFAULT]


@pytest.fixture
def edit(room: Room) -> Callable[..., None]:
    """Edits the configuration `mine` with answers, all of which have to be taken."""
    configuration_shelf(room.instance).write_text("mine", TEXT)

    def run(*answers: Any) -> None:
        edit_saved(room.context(*answers), "mine")
        assert room.asker.answers == []

    return run


def saved(room: Room, name: str = "mine") -> Any:
    return yaml.safe_load(configuration_shelf(room.instance).read_text(name))


def change(room: Room) -> None:
    """As another menu does, or an editor."""
    configuration_shelf(room.instance).write_text("mine", TEXT.replace("sim/a", "sim/other"), replace=True)


def test_an_engine_that_was_mended_is_saved(room: Room, edit: Callable[..., None]) -> None:
    edit("Mend", "Simulated engines", *SAVE)
    assert saved(room)["defaults"] == {"engine": "simulator", "drain_timeout": 5}
    assert "# ours" in configuration_shelf(room.instance).read_text("mine")


def test_what_is_shown_is_what_is_saved(room: Room, edit: Callable[..., None]) -> None:
    edit(*ALIAS, "Show the configuration file", *SAVE)
    assert configuration_shelf(room.instance).read_text("mine") in room.said + "\n"


def test_what_somebody_else_saved_meanwhile_is_replaced_only_when_that_is_said(
    room: Room, edit: Callable[..., None]
) -> None:
    def meanwhile() -> str:
        change(room)
        return "Save for later"

    edit(*ALIAS, meanwhile, DEFAULT, False, "Save for later", DEFAULT, True)
    assert "was changed meanwhile" in room.asker.question("Replace what").title
    assert saved(room)["models"] == [{"name": "a", "model": "sim/a", "aliases": ["first"], "gpus": []}]


def test_a_change_of_somebody_else_stays_where_nothing_is_said(room: Room, edit: Callable[..., None]) -> None:
    def meanwhile() -> str:
        change(room)
        return "Save for later"

    edit(*ALIAS, meanwhile, DEFAULT, False, "Cancel", True)
    assert saved(room)["models"][0]["model"] == "sim/other"


def test_what_is_null_is_the_default_and_stays_so(room: Room) -> None:
    text = TEXT + "  - {name: b, model: sim/b, port: null, gpus: null}\n"
    configuration_shelf(room.instance).write_text("mine", text)
    answers = ["Change models", "a", "Port", "Automatic", BACK, "b", "Model Alias", "second", BACK, DONE, *SAVE]
    edit_saved(room.context(*answers), "mine")
    assert room.asker.answers == []
    assert saved(room)["models"] == [
        {"name": "a", "model": "sim/a", "gpus": []},
        {"name": "b", "model": "sim/b", "aliases": ["second"]},
    ]


# -- drafts ------------------------------------------------------------------------------------------------------------


def test_looking_at_a_saved_one_leaves_the_draft_of_a_new_one(room: Room, edit: Callable[..., None]) -> None:
    configure_new(room.context(*SIMULATED, HUB, "sim/new", INTERRUPT, "Leave, and keep it"))
    edit(*[BACK] * 2, *[BACK] * 5)
    edit(*ALIAS, *SAVE)
    draft = Draft(room.instance).read()
    assert draft is not None
    assert draft.entry.values["model"] == "sim/new"


def test_what_was_changed_of_a_saved_one_is_offered_when_it_is_edited_again(
    room: Room, edit: Callable[..., None]
) -> None:
    edit(*ALIAS, INTERRUPT, "Leave, and keep it")
    assert Draft(room.instance).read() is None
    assert "it is offered when mine is edited again" in room.said
    edit("Go on with the draft", *SAVE)
    assert saved(room)["models"][0]["aliases"] == ["first"]
    edit(INTERRUPT, "Throw it away")


def test_a_saved_one_can_be_edited_as_it_stands_in_its_file(room: Room, edit: Callable[..., None]) -> None:
    edit(*ALIAS, INTERRUPT, "Leave, and keep it")
    edit("Begin anew", "Cancel", True)
    assert "aliases" not in saved(room)["models"][0]
    edit("Cancel", True)


def test_options_that_were_typed_are_part_of_what_is_kept(room: Room) -> None:
    configure_new(room.context(*SIMULATED, *hub_model()[:-1], "seed=1", INTERRUPT, "Leave, and keep it"))
    draft = Draft(room.instance).read()
    assert draft is not None
    assert draft.entry.values["args"] == {"seed": 1}


def test_a_start_that_is_refused_keeps_the_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise CircusError("the port is taken")

    monkeypatch.setattr(starting, "start", refuse)
    answers = [*SIMULATED, *hub_model(), DONE, "Save and start", "mine", "Save for later", DEFAULT]
    configure_new(room.context(*answers))
    assert room.asker.answers == []
    assert "error: the port is taken" in room.said
    assert room.asker.question("Name of the configuration").default == "mine"


def test_escape_out_of_a_draft_that_was_gone_on_with_keeps_it(room: Room) -> None:
    configure_new(room.context(*SIMULATED, *hub_model(), INTERRUPT, "Leave, and keep it"))
    configure_new(room.context("Go on with the draft", *[BACK] * 8))
    assert room.asker.answers == []
    assert Draft(room.instance).read() is not None


def test_two_menus_that_set_up_a_new_proxy_at_once_have_a_draft_each(room: Room) -> None:
    other = Room(room.instance, room.environ)

    def leave() -> Any:
        configure_new(other.context(*SIMULATED, HUB, "sim/theirs", INTERRUPT, "Leave, and keep it"))
        raise KeyboardInterrupt

    configure_new(room.context(*SIMULATED, HUB, "sim/ours", leave, "Leave, and keep it"))
    assert "another menu is setting up a new proxy as well: each has a draft of its own" in other.said
    drafts = [Draft(room.instance, "", number).read() for number in (1, 2)]
    assert [draft.entry.values["model"] for draft in drafts if draft] == ["sim/ours", "sim/theirs"]

    configure_new(room.context("Go on with draft 2", BACK))
    assert room.asker.answers == []
    assert all(Draft(room.instance, "", number).path.exists() for number in (1, 2))
    configure_new(room.context("Begin anew", INTERRUPT, "Throw it away"))
    assert "the drafts are thrown away" in room.asker.question("What was entered").hints["Begin anew"]
    assert list(room.instance.state_dir.iterdir()) == []


def test_two_menus_that_change_the_same_one_have_a_draft_each(room: Room, edit: Callable[..., None]) -> None:
    other = Room(room.instance, room.environ)

    def leave() -> Any:
        edit_saved(other.context(*ALIAS, INTERRUPT, "Leave, and keep it"), "mine")
        raise KeyboardInterrupt

    edit(*ALIAS[:-1], leave, "Leave, and keep it")
    assert "another menu is changing mine as well" in other.said
    assert sorted(path.name for path in room.instance.state_dir.iterdir()) == ["draft-mine.2.json", "draft-mine.json"]


def test_a_draft_goes_with_its_configuration(room: Room, edit: Callable[..., None]) -> None:
    edit(*ALIAS, INTERRUPT, "Leave, and keep it")
    open_configurations(room.context("mine", "Rename", "hall", "Back", "Back"))
    assert not Draft(room.instance, "mine").path.exists()
    edit_saved(room.context("Go on with the draft", *SAVE), "hall")
    assert room.asker.answers == []
    assert saved(room, "hall")["models"][0]["aliases"] == ["first"]

    edit_saved(room.context(*ALIAS[:2], "Model Alias", "second", BACK, DONE, INTERRUPT, "Leave, and keep it"), "hall")
    open_configurations(room.context("hall", "Remove", False, "Back", "Back"))
    assert room.asker.question("Remove the configuration").title == (
        "Remove the configuration 'hall' and the draft of changes to it for good?"
    )
    assert Draft(room.instance, "hall").path.exists()
    open_saved(room.context("hall", "Delete", True))
    assert "hall and the draft of changes to it" in room.asker.question("Delete").title
    assert not Draft(room.instance, "hall").path.exists()
