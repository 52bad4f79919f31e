"""Adapters find the model that they belong on, and it is said how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.catalogue.samples import adapter_folder, gguf_file, in_cache, model_folder, names_in
from vllm_circus.catalogue.adapters import adapters_of, bases_of, how_sure, match_adapters
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk


def base_model(folder: Path, name: str = "Qwen/Qwen3-8B") -> LocalModel:
    return LocalModel(name, folder, "model", 0, "", None, "", "", None, "hub", complete=True, revision="main")


@pytest.mark.parametrize(
    ("base", "sure"),
    [
        ("Qwen/Qwen3-8B", "same"),
        ("qwen/qwen3-8b", "same"),
        ("/root/.cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/9c925d64", "same"),
        ("/root/.cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/9c925d64/", "same"),
        ("/data/models/Qwen3-8B", "name"),
        ("../Qwen3-8B/", "name"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "kin"),
        ("Qwen/Qwen3-8B-AWQ", "kin"),
        ("Qwen/Qwen3-8B-Base", None),
        ("Qwen/Qwen3-80B", None),
        ("", None),
        ("/", None),
        ("~nobody-of-that-name/x", None),
        ("/\x00", None),
    ],
)
def test_how_sure_a_base_is_meant(base: str, sure: str | None, tmp_path: Path) -> None:
    assert how_sure(base, base_model(tmp_path)) == sure


def test_a_path_means_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    assert how_sure(str(tmp_path / "link"), base_model(tmp_path / "model")) == "same"


def test_adapters_are_matched_among_all_that_was_found(tmp_path: Path) -> None:
    hub, base = tmp_path / "hf" / "hub", tmp_path / "loras"
    in_cache(hub, "Qwen/Qwen3-8B", model_folder(tmp_path / "source"))
    gguf_file(base / "files" / "Qwen3-8B-Q4_0.gguf")
    adapter_folder(base / "sql", "/elsewhere/Qwen3-8B", rank=64)
    adapter_folder(base / "chat", "Qwen/Qwen3-8B")
    adapter_folder(base / "other", "Qwen/Qwen3-4B")
    models = find_models([base], {"HF_HOME": str(tmp_path / "hf")}, Disk())
    model = next(one for one in models if one.id == "Qwen/Qwen3-8B")
    assert names_in(adapters_of(model, models)) == [str(base / "chat"), str(base / "sql")]
    assert [match.confidence for match in match_adapters(model, models)] == ["same", "name"]
    sql = next(one for one in models if one.folder == base / "sql")
    assert (sql.rank, sql.base, sql.targets) == (64, "/elsewhere/Qwen3-8B", ("q_proj", "v_proj"))
    assert bases_of(sql, models) == ((model, "name"),)
    assert adapters_of(sql, models) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "16", "base_model_name_or_path": None, "target_modules": None},
        {"r": True, "base_model_name_or_path": ["x"], "target_modules": {"a": 1}},
        {"r": -1, "base_model_name_or_path": 7, "target_modules": "", "peft_type": 3},
    ],
)
def test_fields_that_cannot_be_are_left_empty(changes: dict[str, Any], tmp_path: Path) -> None:
    adapter_folder(tmp_path / "a", "", **changes)
    (adapter,) = find_models([tmp_path], {"HF_HOME": "/nowhere"}, Disk())
    assert (adapter.kind, adapter.rank, adapter.base, adapter.targets) == ("adapter", None, "", ())


def test_targets_may_be_one_word(tmp_path: Path) -> None:
    adapter_folder(tmp_path / "a", "o/m", target_modules="all-linear")
    (adapter,) = find_models([tmp_path], {"HF_HOME": "/nowhere"}, Disk())
    assert adapter.targets == ("all-linear",)


def test_an_adapter_without_weights_is_incomplete(tmp_path: Path) -> None:
    (adapter_folder(tmp_path / "a", "o/m") / "adapter_model.safetensors").unlink()
    (adapter,) = find_models([tmp_path], {"HF_HOME": "/nowhere"}, Disk())
    assert not adapter.complete
