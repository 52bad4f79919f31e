"""vllm-cli's settings and the folders of hf-model-tool, written by these programs themselves."""

from __future__ import annotations

from pathlib import Path

from vllm_circus.config.models import Profile
from vllm_circus.exchange.found import Imported
from vllm_circus.exchange.read import read_foreign
from vllm_circus.exchange.tell import tell_import

SAMPLES = Path(__file__).parent / "samples"


def test_variables_of_every_server_become_a_profile() -> None:
    imported = read_foreign((SAMPLES / "config.yaml").read_bytes(), "config.yaml")
    ((name, profile),) = imported.profiles.items()
    assert name == "universal"
    assert profile["env"] == {"NCCL_P2P_DISABLE": "1", "VLLM_LOGGING_LEVEL": "DEBUG"}
    Profile.model_validate(profile)
    assert [loss.where for loss in imported.losses] == [
        "hf_token",
        "universal_environment.HF_TOKEN",
        "universal_environment",
    ]
    assert "not_for_you" not in str(imported)
    assert any(note.startswith("recent_models: ") for note in imported.notes)


def test_folders_of_models_are_taken_over() -> None:
    imported = read_foreign((SAMPLES / "hf_model_tool.json").read_bytes(), "config.json")
    assert imported == Imported(model_folders=("/srv/models", "/srv/lora"))
    assert tell_import(imported) == ("model folders /srv/models, /srv/lora", "nothing was lost")


def test_folders_that_are_none_are_named() -> None:
    text = b'{"custom_directories": ["/a", "/a", 7, {"path": ""}], "ollama_directories": ["/o"]}'
    imported = read_foreign(text, "config.json")
    assert imported.model_folders == ("/a",)
    assert [str(loss) for loss in imported.losses] == [
        "custom_directories[2]: 7 names no folder",
        "custom_directories[3]: {'path': ''} names no folder",
        "ollama_directories: '/o': files of Ollama are not searched here",
    ]


def test_settings_without_variables_leave_nothing_to_write() -> None:
    imported = read_foreign(b"ui_preferences: {refresh: 1}\n", "config.yaml")
    assert not imported.profiles
    assert imported.notes == ("ui_preferences: vllm-cli's own, and of no meaning here",)
