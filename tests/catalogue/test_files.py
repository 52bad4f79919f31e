"""Files of weights that a broken copy cut short are found by their headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalogue.samples import gguf_file, model_folder, safetensors
from vllm_circus.catalogue.files import cut_short, files_of
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk


def only(folder: Path) -> LocalModel:
    (model,) = find_models([folder], {"HF_HOME": "/nowhere"}, Disk())
    return model


def weights(folder: Path, header: object, extra: int) -> LocalModel:
    """A model whose weights have that header, and so many bytes behind it."""
    data = json.dumps(header).encode()
    model_folder(folder)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(extra))
    return only(folder)


TENSORS = {"__metadata__": {"format": "pt"}, "a": {"data_offsets": [0, 60]}, "b": {"data_offsets": [60, 100]}}


def test_a_whole_file_is_fine_and_a_short_one_is_told(tmp_path: Path) -> None:
    assert cut_short(weights(tmp_path / "whole", TENSORS, 100), Disk()) == ()
    (fault,) = cut_short(weights(tmp_path / "short", TENSORS, 99), Disk())
    header = 8 + len(json.dumps(TENSORS))
    assert fault == f"model.safetensors is damaged: it has {header + 99} bytes, and by its header {header + 100}"


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        struct.pack("<Q", 10**6) + b"{}",
        b"nonsense" * 10,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{{",
        struct.pack("<Q", 16) + b'{"a": {"b": 12}}',
        struct.pack("<Q", 30) + b'{"a": {"data_offsets": [0, ""]}}',
    ],
)
def test_what_has_no_header_is_told(data: bytes, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(data)
    assert cut_short(only(folder), Disk()) == ("model.safetensors has no header: it is damaged",)


def test_a_header_that_is_huge_is_not_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    safetensors(folder / "model.safetensors", 1 << 30)
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", 1 << 29))
    assert cut_short(only(folder), Disk()) == ()


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage_harms_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = model_folder(tmp_path_factory.mktemp("m"))
    (folder / "model.safetensors").write_bytes(data)
    cut_short(only(folder), Disk())


def test_files_are_those_below_the_folder_or_the_parts_of_a_gguf_file(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", size=4096)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert [name for name, _ in files_of(only(folder), Disk())] == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    gguf_file(tmp_path / "g" / "m-Q4_0.gguf", 5000)
    (tmp_path / "g" / "readme").touch()
    assert files_of(only(tmp_path / "g"), Disk()) == (("m-Q4_0.gguf", 5000),)
