"""Where a model's files are, and what they weigh. Real files, which have a size and nothing in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.plan.fit.samples import architecture
from vllm_circus.facts import Disk
from vllm_circus.plan.fit.fields import BadModel
from vllm_circus.plan.fit.weights import Weights, find_model, hub_folder, read_config, weigh

LLAMA = architecture("llama-3-8b")
PARTS = {"model-00001-of-00002.safetensors": 900, "model-00002-of-00002.safetensors": 100}


def write(folder: Path, files: dict[str, int], index: object = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in files.items():
        (folder / name).touch()
        os.truncate(folder / name, size)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


INDEX = {"metadata": {"total_size": 5000}, "weight_map": dict.fromkeys("ab", "model-00001-of-00002.safetensors")}


@pytest.mark.parametrize(
    ("files", "index", "weights"),
    [
        (PARTS, INDEX, Weights(900, "the files' sizes")),  # what the index does not name is not loaded
        ({}, INDEX, Weights(5000, "the index of its files")),
        (PARTS, None, Weights(1000, "the files' sizes")),
        (
            PARTS | {"consolidated.safetensors": 7, "adapter_model.safetensors": 7},
            None,
            Weights(1000, "the files' sizes"),
        ),
        (PARTS, {"weight_map": 3}, Weights(1000, "the files' sizes")),
        (PARTS, [], Weights(1000, "the files' sizes")),
        ({}, {"weight_map": {"a": "b"}, "metadata": {"total_size": "x"}}, None),
        ({"a-Q4.gguf": 4, "a-Q8.gguf": 8}, None, Weights(8, "the largest file's size")),
        ({"a-00001-of-00002.gguf": 4, "a-00002-of-00002.gguf": 8}, None, Weights(12, "the files' sizes")),
        ({"pytorch_model.bin": 8, "training_args.bin": 1}, None, Weights(8, "the files' sizes")),
        ({}, None, None),
    ],
)
def test_files_are_weighed(tmp_path: Path, files: dict[str, int], index: object, weights: Weights | None) -> None:
    write(tmp_path, files, index)
    reckoned = Weights(LLAMA.parameters * 2, "reckoned from config.json")
    assert weigh(tmp_path, str(tmp_path), LLAMA, Disk()) == (weights or reckoned)


def test_a_file_that_is_named_is_the_one(tmp_path: Path) -> None:
    write(tmp_path, {"a-Q4.gguf": 4, "a-Q8.gguf": 8})
    value = str(tmp_path / "a-Q4.gguf")
    assert find_model(value, Path("/"), {}, Disk()) == tmp_path
    assert weigh(tmp_path, value, LLAMA, Disk()) == Weights(4, "the file's size")


def test_a_snapshot_in_hugging_faces_cache_is_found(tmp_path: Path) -> None:
    home = tmp_path / "hub" / "models--org--name"
    write(home / "snapshots" / "c0ffee", PARTS)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c0ffee\n")
    environ = {"HF_HOME": str(tmp_path)}
    assert find_model("org/name", tmp_path, environ, Disk()) == home / "snapshots" / "c0ffee"
    assert find_model("org/name", tmp_path, environ, Disk(), "c0ffee") == home / "snapshots" / "c0ffee"
    assert find_model("org/name", tmp_path, environ, Disk(), "../../x") is None
    assert find_model("org/other", tmp_path, environ, Disk()) is None
    assert find_model("./nothing", tmp_path, environ, Disk()) is None


def test_the_cache_is_where_huggingface_hub_looks() -> None:
    disk = Disk()
    assert hub_folder({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, disk) == Path("/c")
    assert hub_folder({"XDG_CACHE_HOME": "/x"}, disk) == Path("/x/huggingface/hub")
    assert hub_folder({}, disk) == disk.home() / ".cache/huggingface/hub"
    assert hub_folder({"HF_HOME": "~/hf"}, disk) == disk.home() / "hf/hub"


@pytest.mark.parametrize(
    ("text", "words"), [(None, "holds no config.json"), ("{", "is no JSON"), ("[" * 99_999, "no JSON")]
)
def test_a_missing_or_torn_config_is_told(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadModel, match=words):
        read_config(tmp_path, Disk())
