"""What the review says is wrong can be mended where it says so."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.menu.conftest import Room
from tests.menu.scripted import BACK, DEFAULT
from vllm_circus import gpu
from vllm_circus.gpu import NoDriver
from vllm_circus.menu.wizard.run import edit_saved
from vllm_circus.stores.shelf import configuration_shelf

SAVE = ["Save for later", DEFAULT]


def mended(room: Room, model: str, *answers: Any) -> Any:
    """The model of a saved configuration after the wizard was answered so."""
    text = (
        f"proxy: {{host: 127.0.0.1}}\ndefaults: {{engine: simulator}}\nmodels: [{{name: a, model: sim/a, {model}}}]\n"
    )
    configuration_shelf(room.instance).write_text("mine", text)
    edit_saved(room.context(*answers, *SAVE), "mine")
    assert room.asker.answers == []
    return yaml.safe_load(configuration_shelf(room.instance).read_text("mine"))["models"][0]


def test_a_program_that_one_model_names(room: Room) -> None:
    model = mended(room, "gpus: [], engine: vllm, executable: /nowhere", "Mend models[0].executable", "Simulated")
    assert model == {"name": "a", "model": "sim/a", "gpus": [], "engine": "simulator"}
    assert room.asker.question("Step 3").barred == {}


def test_gpus_that_a_machine_without_a_driver_does_not_have(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[()]:
        raise NoDriver("no GPU driver was found")

    monkeypatch.setattr(gpu, "list_gpus", none)
    model = mended(
        room, "gpus: [1], engine: vllm, executable: /bin/true", "Change models", "a", "GPU", True, BACK, "Done"
    )
    assert model["gpus"] == []
    assert room.asker.question("Step 3").barred == {}


def test_a_file_of_keys_that_is_not_there(room: Room) -> None:
    proxy = "proxy: {host: 0.0.0.0, port: 8000, keys: {file: /nowhere/keys}}"
    text = f"{proxy}\ndefaults: {{engine: simulator}}\nmodels: [{{name: a, model: a/a}}]\n"
    configuration_shelf(room.instance).write_text("mine", text)
    edit_saved(room.context("Mend proxy.keys", BACK, "Mend proxy.keys", "Listen on this machine", *SAVE), "mine")
    assert room.asker.question("Step 3").barred == {}
    assert yaml.safe_load(configuration_shelf(room.instance).read_text("mine"))["proxy"] == {
        "host": "127.0.0.1",
        "port": 8000,
    }


def test_what_no_question_is_about_is_said_with_who_can_mend_it(room: Room) -> None:
    model = mended(room, "gpus: [], env_file: /nowhere", "Mend models[0].env_file")
    assert model["env_file"] == "/nowhere"
    assert "`vllm-circus config edit mine` corrects it" in room.said
