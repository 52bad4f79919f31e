"""`models list` on machines with GPUs: the same answer as `fit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.catalogue.samples import GIB, model_folder
from tests.gpu.conftest import Machine, MakeMachine

MODELS = {"llama-3-8b": 16, "qwen2.5-7b": 15, "gemma-3-27b": 51, "llama-3-70b": 131}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose settings name a folder with these models."""
    for name, size in MODELS.items():
        model_folder(tmp_path / "models" / name, name, shards=2, size=size * GIB)
    (tmp_path / "home" / "config").mkdir(parents=True)
    (tmp_path / "home" / "config" / "settings.yaml").write_text(f"model_folders: [{tmp_path / 'models'}]\n")
    return tmp_path


def on(made: Machine, home: Path) -> Machine:
    return Machine({**made.environ, "VLLM_CIRCUS_HOME": str(home / "home"), "HF_HOME": str(home / "hf")})


def test_the_list_and_fit_agree(machine: MakeMachine, home: Path) -> None:
    with_cards = on(machine({"count": 1, "memory_total": 40 * GIB, "memory_used": 0}), home)
    listed = json.loads(with_cards.command("models", "list", "--json").stdout)["models"]
    rooms = {Path(model["id"]).name: model["fits"] for model in listed}
    assert set(rooms) == set(MODELS)
    for name in MODELS:
        fits = with_cards.command("fit", str(home / "models" / name)).returncode == 0
        room = rooms[name]
        assert fits == (room["gpus"] == [0] and room["now"] and room["context"] >= 8192)


def test_gpus_that_are_taken_are_passed_over(machine: MakeMachine, home: Path) -> None:
    with_cards = on(
        machine({"count": 4, "memory_total": 80 * GIB, "memory_used": GIB, "memory_used.0": 70 * GIB}), home
    )
    rows = {
        line.split()[0].rpartition("/")[2]: line for line in with_cards.command("models", "list").stdout.splitlines()
    }
    assert "fits GPU 1" in rows["llama-3-8b"]
    assert "fits 2 GPUs" in rows["llama-3-70b"]
