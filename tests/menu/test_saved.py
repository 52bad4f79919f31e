"""Start from saved configuration: what is there, what this machine lacks for it, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.menu.conftest import Room
from tests.menu.scripted import BACK, DEFAULT
from vllm_circus.menu.ask import Back
from vllm_circus.menu.saved import open_saved
from vllm_circus.stores.shelf import configuration_shelf

TEXT = """\
proxy: {host: 127.0.0.1, port: 8000}
defaults: {engine: simulator}
models:
  - {name: chat, model: sim/chat, gpus: [0]}
  - {name: coder, model: sim/coder, gpus: []}
"""


@pytest.fixture
def kept(room: Room) -> Room:
    """A room in which two configurations are saved: one that works, and one for another machine."""
    shelf = configuration_shelf(room.instance)
    shelf.write_text("mine", TEXT)
    shelf.write_text("theirs", TEXT.replace("[0]", "[6]").replace("sim/chat", "/models/chat"))
    return room


def leave(room: Room, *answers: Any) -> None:
    """Answers, then Escape from the list."""
    with pytest.raises(Back):
        open_saved(room.context(*answers, BACK))
    assert room.asker.answers == []


def test_the_list_shows_models_and_gpus(kept: Room) -> None:
    leave(kept)
    assert kept.asker.question("Saved").hints["mine"] == "chat (GPU 0), coder; port 8000"


def test_what_would_run_is_shown_before_anything_is_asked(kept: Room) -> None:
    leave(kept, "mine", BACK)
    assert "chat   simulator  0    8001" in kept.said
    assert kept.asker.question("mine").labels == ["Start", "Edit", "Export", "Delete"]
    assert kept.asker.question("mine").barred == {}


def test_what_does_not_exist_here_is_pointed_out_and_bars_the_start(kept: Room) -> None:
    leave(kept, "theirs", "Start", BACK)
    assert "not on this machine:\n  models[0].model: there is no /models/chat" in kept.said
    assert "there is no GPU 6" in kept.said
    assert "/models/chat" in kept.said
    assert kept.asker.complaints == ["it has faults: see above"]


def test_a_broken_file_is_listed_with_its_fault_and_can_be_deleted(kept: Room) -> None:
    (kept.instance.config_dir / "configs" / "broken.yaml").write_text("models: [}\n")
    leave(kept, "broken", "Edit", "Delete", False, "broken", "Delete", True)
    assert kept.asker.questions[0].hints["broken"] == "has faults: choose it to see them"
    assert "error: " in kept.said
    assert configuration_shelf(kept.instance).names() == ("mine", "theirs")


def test_one_whose_profile_has_gone_is_said_to_have_faults(kept: Room) -> None:
    text = TEXT.replace("gpus: [0]", "gpus: [0], profile: gone")
    (kept.instance.config_dir / "configs" / "mine.yaml").write_text(text)
    leave(kept)
    assert kept.asker.question("Saved").hints["mine"] == "has faults: choose it to see them"


def test_one_can_be_edited_in_the_wizard(kept: Room) -> None:
    leave(
        kept, "mine", "Edit", "Change models", "coder", "Model Alias", "code", BACK, "Done", "Save for later", DEFAULT
    )
    text = configuration_shelf(kept.instance).read_text("mine")
    assert yaml.safe_load(text)["models"][1]["aliases"] == ["code"]


def test_one_can_be_exported_to_a_file(kept: Room, short_dir: Path) -> None:
    target = short_dir / "export.yaml"
    leave(kept, "mine", "Export", "export.yaml", str(short_dir / "no" / "x"), str(target))
    assert len(kept.asker.complaints) == 2
    assert [one["name"] for one in yaml.safe_load(target.read_text())["models"]] == ["chat", "coder"]
    target.write_text("other")
    leave(kept, "mine", "Export", str(target), False)
    assert target.read_text() == "other"


def test_without_a_saved_one_that_is_said(room: Room) -> None:
    open_saved(room.context())
    assert "no configuration is saved" in room.said
