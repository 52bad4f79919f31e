"""The seed's wizard from end to end: each source, each option, each ending, Escape and Ctrl-C."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.menu.conftest import LLAMA, QWEN, Room
from tests.menu.scripted import BACK, DEFAULT, INTERRUPT
from tests.menu.wizard.answers import ADD, DONE, HUB, PROXY, SIMULATED, hub_model
from vllm_circus.config.models import Profile
from vllm_circus.menu.wizard.drafts import Draft
from vllm_circus.menu.wizard.run import configure_new, edit_saved
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.shelf import configuration_shelf, profile_shelf, shortcut_shelf

SAVE = ["Save for later use", "mine"]


def saved(room: Room, name: str = "mine") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(configuration_shelf(room.instance).read_text(name))
    return document


def configure(room: Room, *answers: Any) -> None:
    configure_new(room.context(*answers))
    assert room.asker.answers == []


# -- step 1 ------------------------------------------------------------------------------------------------------------


def test_step_1_asks_for_host_port_cors_metrics_and_request_logging(room: Room) -> None:
    configure(room, "127.0.0.1", "9000", False, False, True, "Simulated", *hub_model(), DONE, *SAVE)
    assert room.asker.titles[:5] == [
        "Host",
        "Port",
        "CORS",
        "Metrics",
        "Request Logging",
    ]
    assert [question.default for question in room.asker.questions[:5]] == ["0.0.0.0", "8000", True, True, False]
    assert saved(room)["proxy"] == {
        "host": "127.0.0.1", "port": 9000, "cors": False, "metrics": False, "request_logging": True,
    }  # fmt: skip


def test_an_open_proxy_without_keys_is_warned_of_and_can_be_closed(room: Room) -> None:
    configure(room, "0.0.0.0", *PROXY[1:], "Listen on this machine", "Simulated", *hub_model(), DONE, *SAVE)
    assert "everybody who reaches 0.0.0.0:8000 may use the models" in room.asker.question("What shall the proxy").title
    assert saved(room)["proxy"]["host"] == "127.0.0.1"


def test_a_file_of_keys_is_made_for_its_owner_alone(room: Room) -> None:
    configure(room, "0.0.0.0", *PROXY[1:], "Ask for an API key", "Simulated", *hub_model(), DONE, *SAVE)
    path = Path(saved(room)["proxy"]["keys"]["file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text().splitlines()[-1]
    assert key.startswith("sk-")
    assert key not in room.said


def test_wrong_answers_of_step_1_are_explained_and_asked_again(room: Room, busy: set[int]) -> None:
    busy.add(8001)
    configure(
        room, "", "not a host", "999.1.1.1", "127.0.0.1", "abc", "0", "8001", "8000", *PROXY[2:],
        "Simulated", *hub_model(), DONE, *SAVE,
    )  # fmt: skip
    assert [complaint.split(":")[0] for complaint in room.asker.complaints] == [
        "write an address such as 0.0.0.0, 127.0.0.1 or ",
        "'not a host' is no network address",
        "'999.1.1.1' is no network address",
        "'abc' is no port",
        "'0' is no port",
        "port 8001 is in use by nginx (process 7)",
    ]


def test_the_settings_say_what_step_1_proposes(room: Room) -> None:
    room.instance.config_dir.mkdir(parents=True)
    (room.instance.config_dir / "settings.yaml").write_text("proxy: {host: 127.0.0.1, port: 9100, metrics: false}\n")
    configure(room, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, "Simulated", *hub_model(), DONE, *SAVE)
    assert saved(room)["proxy"] == {"host": "127.0.0.1", "port": 9100, "metrics": False}


# -- step 2: each source of a model ------------------------------------------------------------------------------------


def test_a_local_model_with_all_options(room: Room) -> None:
    configure(
        room, *SIMULATED, "Select from local models", LLAMA, "gpt-4o-mini, llama", ["GPU 0", "GPU 1"], "Custom port",
        "8105", "high_throughput", "max-model-len=4096", "", DONE, *SAVE,
    )  # fmt: skip
    assert saved(room) == {
        "proxy": {"host": "127.0.0.1", "port": 8000},
        "defaults": {"engine": "simulator"},
        "models": [
            {
                "name": "meta-llama-3-8b",
                "model": LLAMA,
                "aliases": ["gpt-4o-mini", "llama"],
                "gpus": [0, 1],
                "port": 8105,
                "profile": "high_throughput",
                "args": {"max-model-len": 4096},
            }
        ],
    }
    listed = room.asker.question("Local models")
    assert listed.hints[LLAMA] == "16.0G, 8,192 tokens, bfloat16, fits 1 GPU"
    assert "max-model-len 8192" in room.asker.question("Profile").hints["high_throughput"]


def test_a_model_from_a_saved_shortcut_skips_the_profile(room: Room) -> None:
    shortcut = Shortcut(model=QWEN, profile="low_memory", aliases=["small"], args={"seed": 1})
    shortcut_shelf(room.instance).write("tiny", shortcut)
    configure(room, *SIMULATED, "Use saved shortcut", "tiny", DEFAULT, ["No GPU"], "Automatic", "", DONE, *SAVE)
    assert not [title for title in room.asker.titles if title.startswith("Profile")]
    assert saved(room)["models"] == [
        {
            "name": "tiny", "model": QWEN, "aliases": ["small"], "gpus": [], "profile": "low_memory",
            "args": {"seed": 1},
        }
    ]  # fmt: skip


def test_without_a_shortcut_there_is_none_to_choose(room: Room) -> None:
    configure(room, *SIMULATED, "Use saved shortcut", *hub_model(), DONE, *SAVE)
    assert room.asker.complaints == ["none is saved"]


def test_a_model_with_lora_adapters(room: Room, short_dir: Path) -> None:
    own = short_dir / "own"
    own.mkdir()
    (own / "adapter_config.json").write_text("{}")
    configure(
        room, *SIMULATED, "Serve with LoRA adapters", LLAMA, [], ["ann/sql-lora", "Another one"],
        str(short_dir), str(own), "meta-llama-3-8b", "sql", BACK, DEFAULT, "sql", "mine",
        "", ["No GPU"], "Automatic", "No profile", "", DONE, *SAVE,
    )  # fmt: skip
    assert saved(room)["models"][0]["lora"] == [
        {"name": "sql", "path": "ann/sql-lora"},
        {"name": "mine", "path": str(own)},
    ]
    assert [complaint.split(":")[0] for complaint in room.asker.complaints] == [
        "choose at least one with space, or go back",
        f"{str(short_dir)!r} holds no adapter_config.json",
        "'meta-llama-3-8b' is taken",
        "'sql' is taken",
    ]


def test_a_huggingface_model_that_is_not_here_is_said_to_be_downloaded(room: Room) -> None:
    configure(room, *SIMULATED, HUB, "", "no id", "/nowhere", "a", "org/new", *hub_model()[2:], DONE, *SAVE)
    assert len(room.asker.complaints) == 4
    assert "org/new is not on this disk: vLLM downloads it when it starts" in room.said
    assert saved(room)["models"][0]["model"] == "org/new"


def test_several_models_get_names_of_their_own(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), ADD, *hub_model(aliases="one"), DONE, *SAVE)
    assert [model["name"] for model in saved(room)["models"]] == ["alpha", "alpha-2"]


def test_stored_profiles_stand_before_the_built_in_ones(room: Room) -> None:
    profile_shelf(room.instance).write("short", Profile(args={"max-model-len": 2048}))
    configure(room, *SIMULATED, *hub_model(profile="short"), DONE, *SAVE)
    assert room.asker.question("Profile").labels[:3] == ["No profile", "short", "standard"]
    assert saved(room)["models"][0]["profile"] == "short"


# -- step 3 ------------------------------------------------------------------------------------------------------------


def test_the_name_of_another_configuration_is_replaced_only_when_that_is_said(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), DONE, *SAVE)
    configure(
        room, *SIMULATED, *hub_model("sim/beta"), DONE, "Save for later", "Not Usable", "mine", False, "mine", True
    )
    assert "cannot be used" in room.asker.complaints[0]
    assert saved(room)["models"][0]["name"] == "beta"


def test_cancel_asks_and_throws_everything_away(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), DONE, "Cancel", True)
    assert configuration_shelf(room.instance).names() == ()
    assert not Draft(room.instance).path.exists()


def test_cancel_without_throwing_away_keeps_the_draft(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), DONE, "Cancel", False)
    draft = Draft(room.instance).read()
    assert draft is not None
    assert [one.name for one in draft.models] == ["alpha"]


def test_the_configuration_and_its_command_can_be_looked_at(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), DONE, "Show the configuration file", *SAVE)
    assert "  - name: alpha" in room.said
    assert "vllm-circus up models.yaml -d --wait" in room.said


# -- Escape and Ctrl-C -------------------------------------------------------------------------------------------------


def test_escape_goes_back_through_every_question_and_keeps_all_answers(room: Room) -> None:
    first = ["127.0.0.1", "8000", True, True, True, "Simulated", "Select from local models", LLAMA, "llama"]
    rest = [["GPU 1"], "Custom port", "8105", "low_memory", "seed=1", ""]
    configure(room, *first, *rest[:4], *[BACK] * 13, *[DEFAULT] * 13, "seed=1", "", DONE, *SAVE)
    assert saved(room)["proxy"]["request_logging"] is True
    assert saved(room)["models"] == [
        {
            "name": "meta-llama-3-8b", "model": LLAMA, "aliases": ["llama"], "gpus": [1], "port": 8105,
            "profile": "low_memory", "args": {"seed": 1},
        }
    ]  # fmt: skip


def test_escape_in_the_first_question_leaves_the_wizard(room: Room) -> None:
    configure(room, BACK)
    assert not Draft(room.instance).path.exists()


def test_options_that_were_typed_survive_escape(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model()[:-1], "seed=1", BACK, DEFAULT, "", DONE, *SAVE)
    assert saved(room)["models"][0]["args"] == {"seed": 1}


@pytest.mark.parametrize("where", range(12))
def test_ctrl_c_in_any_question_asks_and_goes_on(room: Room, where: int) -> None:
    answers: list[Any] = [*SIMULATED, *hub_model(), DONE, *SAVE]
    answers[where:where] = [INTERRUPT, "Go on"]
    configure(room, *answers)
    assert [model["name"] for model in saved(room)["models"]] == ["alpha"]


def test_ctrl_c_may_throw_everything_away(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), INTERRUPT, "Throw it away")
    assert not Draft(room.instance).path.exists()


def test_a_second_ctrl_c_leaves_and_the_draft_is_offered_the_next_time(room: Room) -> None:
    with pytest.raises(KeyboardInterrupt):
        configure_new(room.context(*SIMULATED, *hub_model()[:3], INTERRUPT, INTERRUPT))
    assert stat.S_IMODE(Draft(room.instance).path.stat().st_mode) == 0o600
    proxy: list[Any] = [DEFAULT] * 6
    configure(room, "Go on with the draft", *proxy, DEFAULT, DEFAULT, DEFAULT, *hub_model()[3:], DONE, *SAVE)
    assert saved(room)["models"][0]["model"] == "sim/alpha"
    assert not Draft(room.instance).path.exists()


def test_a_draft_may_be_thrown_away_for_a_new_one(room: Room) -> None:
    configure(room, *SIMULATED, *hub_model(), INTERRUPT, "Leave, and keep it")
    configure(room, "Begin anew", *SIMULATED, *hub_model("sim/beta"), DONE, *SAVE)
    assert saved(room)["models"][0]["name"] == "beta"


def test_a_draft_that_cannot_be_read_is_no_obstacle(room: Room) -> None:
    room.instance.state_dir.mkdir(parents=True)
    Draft(room.instance).path.write_text("{")
    configure(room, *SIMULATED, *hub_model(), DONE, *SAVE)


# -- a saved one -------------------------------------------------------------------------------------------------------


def test_an_edited_configuration_keeps_its_comments_and_its_other_keys(room: Room) -> None:
    text = """\
# ours
proxy: {host: 127.0.0.1, port: 8000, workers: 2}
defaults: {engine: simulator, drain_timeout: 5}
models:
  # the first
  - {name: a, model: sim/a, gpus: [], queue: {size: 5}}
  - {name: b, model: sim/b, gpus: []}
"""
    configuration_shelf(room.instance).write_text("mine", text)
    edit_saved(
        room.context(
            "Change models",
            "a",
            "Model Alias",
            "first",
            BACK,
            "b",
            "Remove",
            ADD,
            *hub_model(),
            DONE,
            "Save for later",
            DEFAULT,
        ),
        "mine",
    )
    after = configuration_shelf(room.instance).read_text("mine")
    assert "# ours" in after
    assert "# the first" in after
    assert yaml.safe_load(after) == {
        "proxy": {"host": "127.0.0.1", "port": 8000, "workers": 2},
        "defaults": {"engine": "simulator", "drain_timeout": 5},
        "models": [
            {"name": "a", "model": "sim/a", "aliases": ["first"], "gpus": [], "queue": {"size": 5}},
            {"name": "alpha", "model": "sim/alpha", "gpus": []},
        ],
    }
