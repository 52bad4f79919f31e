"""What is found on a disk, and that nothing on it stops the search."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.catalogue.samples import GIB, adapter_folder, gguf_file, in_cache, model_folder, names_in, safetensors
from vllm_circus.catalogue.find import find_models, survey
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The cache of an empty home."""
    return tmp_path / "hf" / "hub"


def found(tmp_path: Path, *folders: Path) -> tuple[LocalModel, ...]:
    return find_models(folders, {"HF_HOME": str(tmp_path / "hf")}, Disk())


def test_a_model_of_the_cache_goes_by_its_id(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "meta-llama/Llama-3-8B", model_folder(tmp_path / "source", shards=4), "abc")
    (model,) = found(tmp_path)
    assert (model.id, model.kind, model.source, model.complete) == ("meta-llama/Llama-3-8B", "model", "hub", True)
    assert (model.architecture, model.context, model.quantization) == ("LlamaForCausalLM", 8192, "bfloat16")
    assert (model.revision, model.commit, model.home) == ("main", "abc", home)
    assert model.folder == home / "snapshots" / "abc"
    assert 16 * GIB <= model.weights <= model.size < 17 * GIB


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"HF_HUB_CACHE": "a"}, "a"),
        ({"HUGGINGFACE_HUB_CACHE": "a"}, "a"),
        ({"HF_HOME": "b"}, "b/hub"),
        ({"XDG_CACHE_HOME": "c"}, "c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_variables_say(environ: dict[str, str], place: str, tmp_path: Path) -> None:
    in_cache(tmp_path / place, "o/m", model_folder(tmp_path / "source"))
    variables = {name: str(tmp_path / value) for name, value in environ.items()}
    assert names_in(find_models((), variables, Disk())) == ["o/m"]


def test_only_the_revision_that_main_names_is_shown(tmp_path: Path, hub: Path) -> None:
    in_cache(hub, "o/m", model_folder(tmp_path / "old"), "old", ref="")
    in_cache(hub, "o/m", model_folder(tmp_path / "new"), "new")
    assert [(model.revision, model.commit) for model in found(tmp_path)] == [("main", "new")]


def test_without_main_other_revisions_are_shown(tmp_path: Path, hub: Path) -> None:
    in_cache(hub, "o/m", model_folder(tmp_path / "one"), "one", ref="v1")
    in_cache(hub, "o/n", model_folder(tmp_path / "two"), "two", ref="")
    assert [(model.id, model.revision, model.commit) for model in found(tmp_path)] == [
        ("o/m", "v1", "one"),
        ("o/n", "two", "two"),
    ]


def test_a_download_that_was_broken_off_is_incomplete(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "o/m", model_folder(tmp_path / "source"))
    (home / "blobs" / "deadbeef.incomplete").touch()
    (model,) = found(tmp_path)
    assert not model.complete
    assert model.lacks == "a download was broken off, or still goes on"
    (home / "blobs" / "deadbeef").touch()  # it came by another way
    (home / "blobs" / "deadbeef.0a1b2c3d.incomplete").touch()
    assert found(tmp_path)[0].complete


def test_a_download_that_has_just_begun_is_shown(tmp_path: Path, hub: Path) -> None:
    home = hub / "models--o--m"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / "ab.incomplete").touch()
    (model,) = found(tmp_path)
    assert (model.id, model.complete, model.size) == ("o/m", False, 0)


def test_missing_shards_are_counted_by_their_names(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    (model,) = found(tmp_path, folder)
    assert model.lacks == "1 of its files of weights are not there: model-00002-of-00003.safetensors"


def test_missing_shards_of_other_names_are_read_from_the_index(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", shards=2)
    (folder / "model-00001-of-00002.safetensors").rename(folder / "first.safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()
    index = {"weight_map": {"a": "first.safetensors", "b": "second.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert found(tmp_path, folder)[0].lacks.endswith("second.safetensors")


def test_weights_that_are_not_there_at_all(tmp_path: Path, hub: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    assert found(tmp_path, folder)[0].lacks == "its weights are not there"
    home = in_cache(hub, "o/m", model_folder(tmp_path / "source"))
    for blob in (home / "blobs").iterdir():
        if blob.stat().st_size > GIB:
            blob.unlink()
    assert "its link leads nowhere" in next(model for model in found(tmp_path) if model.id == "o/m").lacks


def test_folders_of_the_settings_are_searched_through(tmp_path: Path) -> None:
    base = tmp_path / "models"
    model_folder(base / "team" / "one")
    adapter_folder(base / "lora" / "a", "o/m")
    gguf_file(base / "files" / "tiny-Q4_K_M.gguf")
    kinds = {model.id: model.kind for model in found(tmp_path, base)}
    assert kinds == {
        str(base / "team" / "one"): "model",
        str(base / "lora" / "a"): "adapter",
        str(base / "files" / "tiny-Q4_K_M.gguf"): "gguf",
    }


def test_a_model_s_inner_folders_are_no_models_but_checkpoints_are(tmp_path: Path) -> None:
    model_folder(tmp_path / "m")
    model_folder(tmp_path / "m" / "1_Pooling")
    adapter_folder(tmp_path / "m" / "checkpoint-500", "o/m")
    assert names_in(found(tmp_path, tmp_path / "m")) == [str(tmp_path / "m"), str(tmp_path / "m" / "checkpoint-500")]


def test_parts_of_one_gguf_file_count_once(tmp_path: Path) -> None:
    for number in (1, 2):
        gguf_file(tmp_path / "m" / f"big-Q8_0-0000{number}-of-00003.gguf", GIB)
    (model,) = found(tmp_path, tmp_path / "m")
    assert (model.size, len(model.parts)) == (2 * GIB, 2)
    assert model.lacks == "1 of its 3 parts are not there"
    gguf_file(tmp_path / "m" / "big-Q8_0-00003-of-00003.gguf", GIB)
    assert found(tmp_path, tmp_path / "m")[0].complete


def test_gguf_files_of_the_cache_go_by_repository_and_kind(tmp_path: Path, hub: Path) -> None:
    source = tmp_path / "source"
    for name in (
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "mmproj-F16.gguf",
        "plain.gguf",
        "m-UD-Q3_K_XL.gguf",
        "Q6_K/m-Q6_K-00001-of-00001.gguf",
    ):
        gguf_file(source / name)
    home = in_cache(hub, "o/m-GGUF", source)
    by_path = [str(home / "snapshots" / ("1" * 40) / name) for name in ("m-UD-Q3_K_XL.gguf", "plain.gguf")]
    assert names_in(found(tmp_path)) == [*by_path, "o/m-GGUF:Q4_K_M", "o/m-GGUF:Q6_K", "o/m-GGUF:Q8_0"]
    (one,) = (model for model in found(tmp_path) if model.id.endswith("Q4_K_M"))
    assert (one.architecture, one.context, one.quantization, one.title) == ("llama", 8192, "Q4_K_M", "Tiny Llama")


def test_pooling_models_are_told_apart(tmp_path: Path) -> None:
    model_folder(tmp_path / "bert", model_type="bert", architectures=["BertModel"])
    model_folder(tmp_path / "embedding")
    (tmp_path / "embedding" / "modules.json").write_text("[]")
    model_folder(tmp_path / "scores", architectures=["Qwen3ForSequenceClassification"])
    model_folder(tmp_path / "talks", architectures=["BertLMHeadModel"], model_type="bert", is_decoder=True)
    kinds = {model.folder.name: model.kind for model in found(tmp_path, tmp_path)}
    assert kinds == {"bert": "pooling", "embedding": "pooling", "scores": "pooling", "talks": "model"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": None, "dtype": "float32"}, "float32"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq 4 bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes 4 bit"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "NVFP4"),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"g": {"weights": {"num_bits": 8}}},
                }
            },
            "compressed-tensors 8 bit",
        ),
        ({"torch_dtype": "evil\x1b[31m"}, "evil"),
        ({"torch_dtype": None}, ""),
    ],
)
def test_how_the_weights_are_kept(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model_folder(tmp_path / "m", **changes)
    assert found(tmp_path, tmp_path / "m")[0].quantization == told


def test_a_folder_that_is_a_cache_itself_gives_paths(tmp_path: Path) -> None:
    home = in_cache(tmp_path / "other", "o/m", model_folder(tmp_path / "source"), "abc")
    (model,) = found(tmp_path, tmp_path / "other")
    assert (model.id, model.source, model.home) == (str(home / "snapshots" / "abc"), "folder", home)


def test_a_link_into_the_cache_is_no_second_model(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "o/m", model_folder(tmp_path / "source"), "abc")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m").symlink_to(home / "snapshots" / "abc")
    assert names_in(found(tmp_path, tmp_path / "links", hub)) == ["o/m"]


def test_circles_of_links_end(tmp_path: Path) -> None:
    base = tmp_path / "base"
    model_folder(base / "a" / "m")
    (base / "a" / "up").symlink_to(base)
    (base / "self").symlink_to(base / "self")
    (base / "a" / "m" / "again").symlink_to(base / "a" / "m")
    assert names_in(found(tmp_path, base)) == [str(base / "a" / "m")]


def test_what_cannot_be_looked_at_is_told(tmp_path: Path, hub: Path) -> None:
    model_folder(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"architectures": ')
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "config.json").write_text("[" * 100_000)
    (tmp_path / "file").touch()
    hub.parent.mkdir()
    hub.touch()
    deep = tmp_path / "deep" / "/".join("abcdefgh")
    model_folder(deep)
    environ = {"HF_HOME": str(tmp_path / "hf")}
    folders = [tmp_path / name for name in ("broken", "nested", "file", "none", "deep")]
    seen = survey(folders, environ, Disk())
    assert seen.notes == (
        f"{hub} cannot be read",
        f"{tmp_path}/broken/config.json is no JSON object",
        f"{tmp_path}/nested/config.json is no JSON object",
        f"{tmp_path}/file is no folder",
        f"{tmp_path}/none is not there",
        f"{tmp_path}/deep/a/b/c/d/e/f: what lies deeper was not looked at",
    )
    assert [model.complete for model in seen.models] == [False, False]


class Locked(Disk):
    """A disk of which one folder cannot be read: root could, where tests run as root."""

    def entries(self, folder):  # type: ignore[no-untyped-def]  # the base has the types
        return None if folder.name == "locked" else super().entries(folder)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    model_folder(tmp_path / "m")
    (tmp_path / "locked").mkdir()
    seen = survey([tmp_path], {"HF_HOME": "/nowhere"}, Locked())
    assert seen.notes == (f"{tmp_path}/locked cannot be read",)
    assert names_in(seen.models) == [str(tmp_path / "m")]


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    os.mkfifo(tmp_path / "m" / "x-Q4_0.gguf")
    assert {model.complete for model in found(tmp_path, folder)} == {False}


def test_two_hundred_models_are_found_at_once(tmp_path: Path, hub: Path) -> None:
    for number in range(150):
        in_cache(hub, f"o/m{number}", model_folder(tmp_path / f"source{number}", shards=4))
    for number in range(50):
        gguf_file(tmp_path / "files" / f"m{number}-Q4_K_M.gguf")
    safetensors(tmp_path / "files" / "lonely.safetensors", 100)
    began = time.process_time()
    assert len(found(tmp_path, tmp_path / "files")) == 200
    assert time.process_time() - began < 1  # of this process's own time: the machine may be busy
