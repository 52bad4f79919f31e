"""A warning of `check` where a model's files alone are more than it may take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.plan.conftest import FACTS
from tests.plan.fit.samples import config
from vllm_circus.config.load import parse_config
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan

GIB = 1 << 30


def warnings(folder: Path, rest: str, size: float = 15.0, **changes: Any) -> tuple[str, ...]:
    """Those of a plan of one model that lies in `folder`, on GPUs of 80 GiB."""
    model = folder / "llama"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config("llama-3-8b", **changes)))
    (model / "model.safetensors").touch()
    os.truncate(model / "model.safetensors", int(size * GIB))
    text = f"proxy: {{host: localhost}}\nmodels:\n- {{name: a, model: ./llama, gpus: [0], {rest}}}\n"
    loaded = parse_config(text.encode(), folder / "models.yaml")
    return make_plan(loaded, Instance("default", folder, folder, folder, folder), FACTS).warnings


def test_weights_that_are_more_than_its_share_are_told(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "gpu_memory: 12 GiB")
    assert warning == (
        "models[0].model: cannot start: its weights are 15.0 GiB, and it may take 12.0 GiB of each GPU; "
        "`vllm-circus fit a` says what to change"
    )


def test_a_context_that_has_no_room_is_told(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "gpu_memory: 20 GiB", max_position_embeddings=131_072)
    assert "one sequence of 131,072 tokens takes 16.0 GiB beside 15.0 GiB of weights" in warning


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "gpu_memory: 20 GiB",
        "gpu_memory: 20 GiB, args: {max-model-len: auto}",
        "gpu_memory: 12 GiB, args: {quantization: fp8}",
        "gpu_memory: 12 GiB, engine: simulator",
    ],
)
def test_what_may_fit_is_not_spoken_of(tmp_path: Path, rest: str) -> None:
    assert warnings(tmp_path, rest) == ()


def test_files_that_cannot_be_read_are_the_engines_to_tell(tmp_path: Path) -> None:
    assert warnings(tmp_path, "gpu_memory: 1 GiB", num_hidden_layers="many") == ()


def test_without_files_nothing_is_sure(tmp_path: Path) -> None:
    assert warnings(tmp_path, "gpu_memory: 1 GiB", size=0) == ()
