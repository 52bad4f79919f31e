"""Where a model has room: on the fewest GPUs, at its whole length if that goes, and as they are used now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.catalogue.samples import GIB, LLAMA, adapter_folder, gguf_file, model_folder
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.room import Room, room_for
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk
from vllm_circus.gpu import Gpu


def card(index: int, total: int, used: int | None = 0, fault: str = "") -> Gpu:
    return Gpu(index, f"GPU-{index}", "NVIDIA H100", total * GIB, None if used is None else used * GIB, 0, 40, fault)


def only(folder: Path) -> LocalModel:
    (model,) = find_models([folder], {"HF_HOME": "/nowhere"}, Disk())
    return model


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    """Llama 3 8B: 16 GiB of weights, and 1 GiB of cache for its 8192 tokens."""
    return only(model_folder(tmp_path / "m", shards=4))


@pytest.mark.parametrize(
    ("cards", "room"),
    [
        ((card(0, 80),), Room((0,), None, now=True)),
        ((card(0, 80, used=79), card(1, 80)), Room((1,), None, now=True)),
        ((card(0, 80, used=20),), Room((0,), None, now=False)),
        ((card(0, 80, used=None),), Room((0,), None, now=True)),
        ((card(0, 16), card(1, 16)), Room((0, 1), None, now=True)),
        ((card(0, 8), card(1, 8)), Room()),
        ((card(0, 80, fault="fell off the bus"), card(1, 8)), Room()),
        ((card(0, 80, used=30), card(1, 16, used=4)), Room((0,), None, now=False)),
    ],
)
def test_the_fewest_gpus_that_have_room_now(cards: tuple[Gpu, ...], room: Room, model: LocalModel) -> None:
    assert room_for(model, cards) == room


def test_where_only_a_shorter_context_has_room_that_is_told(tmp_path: Path) -> None:
    long = only(model_folder(tmp_path / "m", shards=4, max_position_embeddings=131_072))
    room = room_for(long, (card(0, 24),))
    assert room is not None
    assert (room.gpus, room.now) == ((0,), True)
    assert room.context is not None
    assert 4096 < room.context < 131_072
    assert room_for(long, (card(0, 24), card(1, 24))) == Room(
        (0, 1), None, now=True
    )  # all of it goes before fewer GPUs


def test_heads_are_not_cut_in_two(tmp_path: Path) -> None:
    odd = only(model_folder(tmp_path / "m", shards=4, num_attention_heads=33, num_key_value_heads=33))
    assert room_for(odd, (card(0, 16), card(1, 16))) == Room()


def test_a_gguf_file_is_judged_by_its_header(tmp_path: Path) -> None:
    assert room_for(only(gguf_file(tmp_path / "m-Q4_K_M.gguf").parent), (card(0, 24),)) == Room((0,), None, now=True)


@pytest.mark.parametrize("what", ["no gpu", "no size", "adapter", "incomplete", "unknown", "short header"])
def test_where_nobody_can_say_nothing_is_said(what: str, tmp_path: Path) -> None:
    cards: tuple[Gpu, ...] = (card(0, 80),)
    folder = tmp_path / "m"
    if what == "adapter":
        adapter_folder(folder, "o/m")
    elif what == "short header":
        gguf_file(folder / "m.gguf", values={key: LLAMA[key] for key in list(LLAMA)[:3]})
    else:
        changes: dict[str, Any] = {"num_hidden_layers": "x"} if what == "unknown" else {}
        model_folder(folder, shards=2, **changes)
    if what == "incomplete":
        (folder / "model-00001-of-00002.safetensors").unlink()
    if what == "no gpu":
        cards = ()
    if what == "no size":
        cards = (Gpu(0, "", "", None, None, None, None),)
    assert room_for(only(folder), cards) is None
