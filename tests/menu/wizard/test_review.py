"""The review: the real plan, every fault at once, and the way to what mends it; the list of models before it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.menu.conftest import LLAMA, Room
from tests.menu.scripted import BACK, DEFAULT
from tests.menu.wizard.answers import ADD, DONE, PROXY, SIMULATED, hub_model
from vllm_circus.cli import common
from vllm_circus.gpu import Gpu
from vllm_circus.menu.wizard.run import configure_new, edit_saved
from vllm_circus.stores.shelf import configuration_shelf
from vllm_circus.view.outline import Outline

SAVE = ["Save for later use", "mine"]


def saved(room: Room) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(configuration_shelf(room.instance).read_text("mine"))
    return document


def configure(room: Room, *answers: Any) -> None:
    configure_new(room.context(*answers))
    assert room.asker.answers == []


def test_it_shows_the_plan_and_what_a_narrow_table_has_no_room_for(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(aliases="gpt-4o", profile="low_memory")[:-1], "seed=1", "", DONE, *SAVE)
    assert "alpha  simulator" in room.said
    assert "alpha: also called gpt-4o, profile low_memory, seed=1" in room.said
    assert "proxy on 127.0.0.1:8000, 1 worker; CORS on, metrics on, request logging off, API keys off" in room.said


def test_every_fault_is_named_with_the_question_that_mends_it(room: Room, cards: list[Gpu], busy: set[int]) -> None:
    text = """\
proxy: {host: 127.0.0.1, port: 8000}
defaults: {engine: simulator}
models:
  - {name: a, model: sim/a, gpus: [7], port: 8001}
  - {name: b, model: sim/b, gpus: [0], profile: lost}
"""
    configuration_shelf(room.instance).write_text("mine", text)
    busy.add(8000)
    edit_saved(
        room.context(
            "Save and start now",
            "Mend proxy.port", "8010",
            "Mend models[0].gpus", ["GPU 1"],
            "Mend models[1].profile", "low_memory",
            "Save for later use", DEFAULT,
        ),  # comments between the parts would say less than the labels do
        "mine",
    )  # fmt: skip
    assert room.asker.complaints == ["mend what is wrong first"]
    assert "error: proxy.port: port 8000 is in use by " in room.said
    assert "error: models[0].gpus[0]: there is no GPU 7" in room.said
    assert "error: models[1].profile: there is no profile 'lost'" in room.said
    assert saved(room)["proxy"]["port"] == 8010
    assert [(one["gpus"], one.get("profile")) for one in saved(room)["models"]] == [([1], None), ([0], "low_memory")]


def test_without_vllm_it_is_said_and_can_be_mended(room: Room) -> None:
    configure(
        room, *PROXY, "Go on without", *hub_model(), DONE, "Mend models[0].engine", BACK, "Mend models[0].engine",
        "Simulated engines", "Change the proxy", *[DEFAULT] * 5, *SAVE,
    )  # fmt: skip
    assert "there is no `vllm` on the PATH" in room.said
    assert saved(room)["defaults"] == {"engine": "simulator"}


def test_a_program_of_ones_own_is_checked_at_once(room: Room) -> None:
    configure(room, *PROXY, "Name vLLM's program", "vllm", "/nowhere/vllm", "/bin/true", *hub_model(), DONE, *SAVE)
    assert saved(room)["defaults"] == {"executable": "/bin/true"}
    assert len(room.asker.complaints) == 2


def test_escape_leads_back_to_the_models_and_from_there_to_the_proxy(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), DONE, BACK, BACK, BACK, True, "Simulated", DONE, *SAVE)
    assert saved(room)["proxy"]["request_logging"] is True
    assert [one["name"] for one in saved(room)["models"]] == ["alpha"]


def test_models_can_be_changed_moved_and_taken_away(room: Room) -> None:
    configure(
        room, *SIMULATED, *hub_model("sim/a"), ADD, *hub_model("sim/b"), ADD, *hub_model("sim/c"),
        "c", "Move down", "Move up", "Name", "a", "last", BACK,
        "a", "Remove", "b", "Port Assignment", "Custom port", "8200", "Engine options", "seed=2", "", BACK, DONE, *SAVE,
    )  # fmt: skip
    assert saved(room)["models"] == [
        {"name": "last", "model": "sim/c", "gpus": []},
        {"name": "b", "model": "sim/b", "gpus": [], "port": 8200, "args": {"seed": 2}},
    ]
    assert room.asker.complaints == ["it is the last", "'a' is taken: every name, alias and adapter must differ"]


def test_a_change_that_is_given_up_leaves_the_model_as_it_was(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model("sim/a"), "a", "Model Selection", "Select", BACK, BACK, BACK, DONE, *SAVE)
    assert saved(room)["models"][0]["model"] == "sim/a"


def test_another_model_can_be_chosen_for_one_that_is_there(room: Room) -> None:
    configure(
        room, *SIMULATED, *hub_model("sim/a"), "a", "Model Selection", "Select from local", LLAMA, BACK, DONE, *SAVE
    )
    assert saved(room)["models"][0]["model"] == LLAMA


def test_when_the_last_model_is_taken_away_the_next_one_is_asked_for(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model("sim/a"), "a", "Remove", *hub_model("sim/b"), DONE, *SAVE)
    assert [one["name"] for one in saved(room)["models"]] == ["b"]


def test_a_wrong_option_is_explained_where_it_is_typed(room: Room) -> None:
    configure(
        room,
        *SIMULATED,
        *hub_model()[:-1],
        "=5",
        "host=1",
        "no-x=1",
        "day=2026-11-23",
        "max_num_seqs=1",
        "max-num-seqs=",
        "--seed 1",
        "enforce-eager",
        "",
        DONE,
        *SAVE,
    )
    assert saved(room)["models"][0]["args"] == {"seed": 1, "enforce-eager": True}
    assert [complaint[:30] for complaint in room.asker.complaints] == [
        "write an option and its value,",
        "the program sets this itself: ",
        "options are turned off by fals",
        "'2026-11-23' is a date for YAM",
    ]


def test_a_custom_port_has_to_be_free(room: Room, busy: set[int]) -> None:
    busy.add(8105)
    configure(
        room, *SIMULATED, *hub_model()[:4], "Custom", "8000", "8105", "x", "8106", "No profile", "", ADD,
        *hub_model("sim/b")[:4], "Custom", "8106", "8107", "No profile", "", DONE, *SAVE,
    )  # fmt: skip
    assert [complaint.split(":")[0] for complaint in room.asker.complaints] == [
        "port 8000 is the proxy's own",
        "port 8105 is in use by another process",
        "'x' is no port",
        "port 8106 is that of alpha",
    ]


def test_while_a_set_runs_it_can_be_saved_and_not_started(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Outline("default", "models.yaml", "127.0.0.1", 8000, 1, ())
    monkeypatch.setattr(common, "running_outline", lambda _instance: running)
    configure(room, *SIMULATED, *hub_model(), DONE, "Save and start", "Start without", *SAVE)
    assert room.asker.complaints == ["a set runs already: stop it first"] * 2


def test_a_set_that_has_ended_meanwhile_is_no_obstacle(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    running = [Outline("default", "models.yaml", "127.0.0.1", 8000, 1, ())]
    monkeypatch.setattr(common, "running_outline", lambda _instance: next(iter(running), None))

    def ends() -> str:
        running.clear()
        return "Show the configuration file"

    configure(room, *SIMULATED, *hub_model(), DONE, "Start without", ends, *SAVE)
    assert room.asker.complaints == ["a set runs already: stop it first"]
    assert room.asker.question("Step 3").barred == {}


def test_the_next_free_port_is_proposed(room: Room, busy: set[int]) -> None:
    busy.add(8001)
    configure(room, *SIMULATED, *hub_model(), ADD, *hub_model("sim/b"), DONE, *SAVE)
    hints = [one.hints["Automatic port"] for one in room.asker.questions if one.title.startswith("Port Assignment")]
    assert [hint.rpartition(": ")[2] for hint in hints] == ["8002 now", "8003 now"]
