"""Who needs a model: configurations, shortcuts, sets and processes that name it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalogue.samples import adapter_folder, gguf_file, in_cache, model_folder
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.catalogue.usage import Use, means, process_uses, saved_uses, served_uses
from vllm_circus.facts import Disk
from vllm_circus.paths import Instance, find_instance


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    return find_instance("default", {"VLLM_CIRCUS_HOME": str(short_dir)})


@pytest.fixture
def models(tmp_path: Path) -> dict[str, LocalModel]:
    """One of the cache, one of a folder, an adapter, and a GGUF file of each."""
    hub, base = tmp_path / "hf" / "hub", tmp_path / "models"
    in_cache(hub, "Org/Model", model_folder(tmp_path / "source"))
    in_cache(hub, "Org/Files", gguf_file(tmp_path / "files" / "m-Q4_0.gguf").parent)
    model_folder(base / "own")
    adapter_folder(base / "lora", "Org/Model")
    gguf_file(base / "files" / "m-Q8_0.gguf")
    return {model.id: model for model in find_models([base], {"HF_HOME": str(tmp_path / "hf")}, Disk())}


def test_values_that_mean_a_model_of_the_cache(models: dict[str, LocalModel], tmp_path: Path) -> None:
    model = models["Org/Model"]
    same = ["Org/Model", "org/model", "/x/models--Org--Model/snapshots/abc", str(model.folder), str(model.folder / "x")]
    assert all(means(value, tmp_path, model) for value in same)
    assert not any(
        means(value, tmp_path, model) for value in ["Org/Model2", "Model", "Org/Files", str(tmp_path), "a\0"]
    )


def test_values_that_mean_a_model_of_a_folder(models: dict[str, LocalModel], tmp_path: Path) -> None:
    model = models[str(tmp_path / "models" / "own")]
    (tmp_path / "link").symlink_to(model.folder)
    assert all(means(value, tmp_path, model) for value in [model.id, "models/own", "./models/own/", "link"])
    assert not any(means(value, tmp_path, model) for value in ["own", "models", "models/lora"])


def test_values_that_mean_a_gguf_file(models: dict[str, LocalModel], tmp_path: Path) -> None:
    own = models[str(tmp_path / "models" / "files" / "m-Q8_0.gguf")]
    assert means("models/files/m-Q8_0.gguf", tmp_path, own)
    assert not means("models/files", tmp_path, own)
    cached = models["Org/Files:Q4_0"]
    assert means("Org/Files:Q4_0", tmp_path, cached)
    assert means("Org/Files", tmp_path, cached)  # it may be that one
    assert not means("Org/Files:Q8_0", tmp_path, cached)


def test_what_is_saved_is_looked_through(instance: Instance, models: dict[str, LocalModel], tmp_path: Path) -> None:
    for folder in (instance.configs, instance.shortcuts):
        folder.mkdir(parents=True)
    (instance.configs / "team.yaml").write_text("models: [{name: a, model: Org/Model}, {name: b, model: o/other}]\n")
    (instance.configs / "broken.yaml").write_text("models: [{name: a, model: Org/Model, nonsense: 1}]\n")
    (instance.configs / "other.yaml").write_text("models: [{name: a, model: o/other}]\n")
    lora = str(tmp_path / "models" / "lora")
    (instance.shortcuts / "chat.yaml").write_text(f"model: o/other\nlora: [{{name: l, path: {lora}}}]\n")
    instance.config_file.write_text(f"models: [{{name: a, model: {tmp_path / 'models' / 'own'}}}]\n")
    assert saved_uses(models["Org/Model"], instance) == (
        Use("configuration", "saved configuration broken"),
        Use("configuration", "saved configuration team"),
    )
    assert saved_uses(models[lora], instance) == (Use("shortcut", "chat"),)
    own = models[str(tmp_path / "models" / "own")]
    assert saved_uses(own, instance) == (Use("configuration", f"models file {instance.config_file}"),)
    instance.config_file.write_text(f"{own.id}: [")
    assert saved_uses(own, instance) == (Use("configuration", f"models file {instance.config_file}"),)


def test_without_anything_saved_nobody_needs_it(instance: Instance, models: dict[str, LocalModel]) -> None:
    assert saved_uses(models["Org/Model"], instance) == ()


def test_a_set_names_what_it_loads(models: dict[str, LocalModel]) -> None:
    served = {"chat": ("Org/Model", "/adapter"), "other": ("o/other",)}
    assert served_uses(models["Org/Model"], served) == (Use("set", "chat"),)


@pytest.fixture
def process() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


WAITS = "import sys; f = open(sys.argv[1]) if len(sys.argv) == 2 else 0; print(1, flush=True); sys.stdin.read()"


@pytest.mark.parametrize("how", ["id", "option", "path", "open"])
def test_processes_are_found_by_their_words_and_open_files(
    how: str, process: list[subprocess.Popen[bytes]], models: dict[str, LocalModel], tmp_path: Path
) -> None:
    model = models["Org/Model"] if how != "open" else models[str(tmp_path / "models" / "own")]
    (tmp_path / "weights").symlink_to(model.folder / "config.json")
    words = {
        "id": ["serve", "Org/Model"],
        "option": ["serve", "--model=Org/Model"],
        "path": ["serve", str(model.folder)],
        "open": [str(tmp_path / "weights")],
    }
    assert process_uses(model) == ()
    command = [sys.executable, "-c", WAITS, *words[how]]
    process.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    assert process[0].stdout is not None
    process[0].stdout.readline()
    (use,) = process_uses(model)
    assert use.name.startswith(f"{process[0].pid} (")
