"""The GPU selector: what it shows, what it explains, and how models share a card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.catalogue.samples import GIB
from tests.menu.conftest import LLAMA, QWEN, Room, gpu_of
from tests.menu.scripted import BACK, DEFAULT
from tests.menu.wizard.answers import ADD, DONE, SIMULATED, hub_model
from vllm_circus import gpu
from vllm_circus.config.models import Profile
from vllm_circus.gpu import Gpu, NoDriver
from vllm_circus.menu.wizard import decided, machine
from vllm_circus.menu.wizard.gpus import needs_share
from vllm_circus.menu.wizard.proxy import first_values
from vllm_circus.menu.wizard.run import configure_new
from vllm_circus.menu.wizard.setup import Entry, Setup
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.shelf import configuration_shelf, profile_shelf, shortcut_shelf
from vllm_circus.view.outline import Outline, OutlineModel

LOCAL = "Select from local models"
SAVE = ["Save for later use", "mine"]


def models(room: Room, *answers: Any) -> list[dict[str, Any]]:
    configure_new(room.context(*SIMULATED, *answers, DONE, *SAVE))
    assert room.asker.answers == []
    found: list[dict[str, Any]] = yaml.safe_load(configuration_shelf(room.instance).read_text("mine"))["models"]
    return found


def test_it_shows_name_memory_load_and_who_uses_a_card(room: Room, cards: list[Gpu]) -> None:
    cards[0] = gpu_of(0, memory_used=12 * GIB, utilisation=37)
    cards.append(gpu_of(2, fault="GPU 2 fell off the bus", name="", memory_total=None, memory_used=None))
    models(room, *hub_model()[:3], ["GPU 2"], [], ["No GPU", "GPU 0"], ["GPU 0"], "Automatic", "No profile", "")
    asked = room.asker.question("GPU Assignment for alpha")
    assert "GPU selection overrides profile parallelism settings" in asked.title
    assert asked.hints["GPU 0"].startswith("H100 80GB HBM3  12.0G of 80.0G  37% busy  used by ")
    assert "process" in asked.hints["GPU 0"]
    assert asked.hints["GPU 1"] == "H100 80GB HBM3  0B of 80.0G     0% busy"
    assert room.asker.complaints == [
        "GPU 2 fell off the bus",
        "choose GPUs with space, or 'No GPU'",
        "either GPUs, or none",
    ]


def test_it_explains_the_parallelism_that_the_choice_overrides(room: Room) -> None:
    profile_shelf(room.instance).write("wide", Profile(args={"tensor-parallel-size": 4}))
    shortcut_shelf(room.instance).write("big", Shortcut(model=LLAMA, profile="wide"))
    models(room, "Use saved shortcut", "big", "", ["GPU 0", "GPU 1"], "Automatic", "")
    assert room.asker.explained == [
        "2 GPUs: tensor-parallel-size 4 of the profile becomes 2. It fits. 61.1G of each GPU are left for its cache."
    ]


def test_the_choice_of_a_profile_says_what_the_gpus_override(room: Room) -> None:
    profile_shelf(room.instance).write("wide", Profile(args={"tensor-parallel-size": 4}))
    models(room, *hub_model(gpus=["GPU 0", "GPU 1"], profile="wide"))
    hint = room.asker.question("Profile").hints["wide"]
    assert hint == "tensor-parallel-size 4 of the profile becomes 2"


def test_a_card_that_another_model_has_can_be_shared(room: Room) -> None:
    both = models(
        room, LOCAL, LLAMA, "", ["GPU 0"], "Automatic", "No profile", "",
        ADD, LOCAL, QWEN, "", ["GPU 0"], "Share", "Automatic", "No profile", "much", "0.5", "20 GiB", "",
    )  # fmt: skip
    assert [(one["name"], one["gpu_memory"]) for one in both] == [
        ("meta-llama-3-8b", 0.5),
        ("qwen3-0-6b", "20 GiB"),
    ]
    conflict = room.asker.question("Conflict").title
    assert "GPU 0 belongs to meta-llama-3-8b" in conflict
    assert "belongs to meta-llama-3-8b" in room.asker.question("GPU Assignment for qwen").hints["GPU 0"]
    share = room.asker.question("GPU memory for qwen").title
    assert "GPU 0 (80 GiB): meta-llama-3-8b has 0.5. It fits." in share
    assert "no part of a GPU" in room.asker.complaints[0]


def test_a_conflict_can_be_avoided_by_another_card(room: Room) -> None:
    both = models(
        room, *hub_model(gpus=["GPU 0"]), ADD, *hub_model("sim/beta")[:3], ["GPU 0"], BACK, ["GPU 0"],
        "Choose other GPUs", ["GPU 1"], "Automatic", "No profile", "",
    )  # fmt: skip
    assert [one["gpus"] for one in both] == [[0], [1]]
    assert not any("gpu_memory" in one for one in both)


def test_a_share_that_is_too_small_is_told_before_it_is_taken(room: Room) -> None:
    both = models(
        room, *hub_model(gpus=["GPU 0"]),
        ADD, LOCAL, LLAMA, "", ["GPU 0"], "Share", "Automatic", "No profile", "0.3", "0.05", False, "0.4", "",
    )  # fmt: skip
    assert both[1]["gpu_memory"] == 0.4
    assert "does not fit" in room.asker.question("Take it all the same?").title


def test_without_a_driver_the_reason_is_said_and_the_questions_go_on(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> tuple[Gpu, ...]:
        raise NoDriver("no NVIDIA driver: its library libnvidia-ml.so.1 is not installed")

    monkeypatch.setattr(gpu, "list_gpus", none)
    (one,) = models(room, *hub_model()[:3], "Automatic", "No profile", "")
    assert "gpus" not in one
    assert "no GPU to choose from: no NVIDIA driver" in room.said


def test_without_a_driver_escape_goes_back_to_the_question_before(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[Gpu, ...]:
        raise NoDriver("no NVIDIA driver: its library libnvidia-ml.so.1 is not installed")

    monkeypatch.setattr(gpu, "list_gpus", none)
    (one,) = models(room, *hub_model()[:3], BACK, "named", "Automatic", "No profile", "")
    assert one["aliases"] == ["named"]


def test_cards_of_the_running_set_are_named_by_its_models() -> None:
    def listed() -> tuple[Gpu, ...]:
        return (gpu_of(0), gpu_of(1))

    model = OutlineModel("chat", "m", ("chat",), (1,), 8001, True, "model-chat", "chat")
    outline = Outline("default", "models.yaml", "127.0.0.1", 8000, 1, (model,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "list_gpus", listed)
        patch.setattr(gpu, "list_holders", dict)
        found = machine.look_at_cards(outline)
    assert (found.used_by(0), found.used_by(1)) == ("", "chat")


def test_sizes_that_cannot_be_met_are_part_of_the_explanation(room: Room) -> None:
    entry = Entry({"name": "a", "model": "x/y", "args": {"tensor-parallel-size": 4}})
    setup = Setup(first_values({}), pending=entry)
    words = decided.spread_words(setup, room.context(), gpus=[0, 1])
    assert words.startswith("tensor-parallel-size 4 needs 4 GPUs, `gpus` lists 2")


def test_what_is_not_on_this_disk_has_no_verdict(room: Room) -> None:
    setup = Setup(first_values({}), pending=Entry({"name": "a", "model": "x/y", "gpus": [0]}))
    assert decided.fit_words(setup, room.context(), machine.look_at_cards(None)) == ("", True)


def test_the_default_of_a_second_visit_is_the_first_choice(room: Room) -> None:
    (one,) = models(room, *hub_model(gpus=["GPU 1"])[:4], BACK, DEFAULT, "Automatic", "No profile", "")
    assert one["gpus"] == [1]


def test_models_that_take_turns_have_nothing_to_share() -> None:
    first = Entry({"name": "a", "model": "x/a", "gpus": [0], "exclusive": "one"})
    second = Entry({"name": "b", "model": "x/b", "gpus": [0], "exclusive": "one"})
    setup = Setup(first_values({}), (first, second))
    assert not needs_share(setup.opened(1))
    other = setup.opened(1).with_entry(second.with_values(exclusive="two"))
    assert needs_share(other)


def test_going_back_does_not_ask_about_a_settled_conflict_again(room: Room) -> None:
    both = models(
        room, *hub_model(gpus=["GPU 0"]), ADD, *hub_model("sim/beta")[:3], ["GPU 0"], "Share", "Automatic",
        "No profile", "0.5", "0.4", BACK, DEFAULT, BACK, BACK, BACK, BACK, DEFAULT, "Automatic", "No profile",
        DEFAULT, "",
    )  # fmt: skip
    assert [one["gpu_memory"] for one in both] == [0.5, 0.4]
    assert room.asker.titles.count("Conflict: what shall be done?") == 1
