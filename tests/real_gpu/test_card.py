"""One card, without a set: what the commands say of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plan.fit.samples import config
from tests.real_gpu.card import CONTEXT, GIB, Card
from tests.real_gpu.fleet import write_config

MIB = 1 << 20
HOLDERS = """
import dataclasses, json
from vllm_circus.gpu import list_holders
print(json.dumps([dataclasses.astuple(one) for one in list_holders()[0]]))
"""


def command(card: Card, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**card.whole, "VLLM_CIRCUS_HOME": str(home)}
    argv = [sys.executable, "-m", "vllm_circus", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def write_model(folder: Path, name: str, gib: int) -> Path:
    """A model of that architecture and size, as far as one can see from outside."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config(name)))
    (folder / "model.safetensors").touch()
    os.truncate(folder / "model.safetensors", gib * GIB)
    return folder


def test_the_card_is_listed_as_the_driver_tells_it(card: Card, tmp_path: Path) -> None:
    (gpu, *_) = json.loads(command(card, tmp_path, "gpus", "--json").stdout)["gpus"]
    truth = card.truth()
    print(f"\n{gpu['name']}: {gpu['memory_total'] / GIB:.1f} GiB, {gpu['memory_used'] / MIB:.0f} MiB of it in use")
    assert (gpu["index"], gpu["name"], gpu["uuid"]) == (truth["index"], truth["name"], truth["uuid"])
    assert abs(gpu["memory_total"] - truth["total"]) <= MIB
    assert abs(gpu["memory_used"] - truth["used"]) <= 100 * MIB
    assert gpu["fault"] == ""


def test_a_process_that_has_memory_is_listed_with_it(card: Card, pids_told: bool) -> None:
    with card.held(str(8 * GIB)) as (pid, size):
        assert size == 8 * GIB
        used = card.watch.now().used
        held = dict(json.loads(card.python("-c", HOLDERS)))
    beside = used - card.idle - size
    print(f"\na process that takes 8 GiB has {beside / MIB:.0f} MiB beside it; by NVML: {held}")
    assert 0 < beside < CONTEXT
    card.watch.wait(lambda sample: sample.used < card.idle + GIB // 4)
    if not pids_told:
        pytest.skip("the driver does not tell which process of this machine has what")
    assert size < held[pid] < size + CONTEXT


@pytest.mark.parametrize(("name", "gib", "fits"), [("llama-3-8b", 15, True), ("llama-3-70b", 131, False)])
def test_fit_answers_for_this_card(card: Card, tmp_path: Path, name: str, gib: int, fits: bool) -> None:
    folder = write_model(tmp_path / name, name, gib)
    run = command(card, tmp_path, "fit", str(folder), "--gpus", "0", "--json")
    answer: dict[str, Any] = json.loads(run.stdout)
    print(f"\n{name}, {gib} GiB, on {card.total / GIB:.1f} GiB: {answer['fits']}, {answer['budget'] / GIB:.1f} to have")
    assert (run.returncode, answer["fits"]) == (0 if fits else 1, fits)
    (gpu,) = answer["gpus"]
    assert abs(gpu["total"] - card.total) <= MIB
    assert abs(gpu["free"] - (card.total - card.watch.now().used)) <= 100 * MIB


def test_a_third_model_whose_share_is_above_what_is_left_is_refused(card: Card, tmp_path: Path) -> None:
    shares = {"a": 0.4, "b": 0.35, "c": 0.5}
    file = write_config(tmp_path, [{"name": name, "gpu_memory": share} for name, share in shares.items()])
    run = command(card, tmp_path, "check", str(file))
    words = " ".join(run.stderr.split())
    print(f"\n{words}")
    assert run.returncode != 0
    assert "GPU 0: 1.25 of the memory is promised: 'a' " in words
    assert "take 0.25 away from them, give one another GPU" in words


def test_doctor_finds_no_fault_with_driver_and_card(card: Card, tmp_path: Path) -> None:
    file = write_config(tmp_path, [{"name": "a", "gpu_memory": 0.5}])
    found = json.loads(command(card, tmp_path, "doctor", str(file), "--json").stdout)["findings"]
    cards = [one for one in found if one["check"] in {"driver", "gpus", "gpu-memory", "free-gpu-memory"}]
    for one in cards:
        print(f"\n{one['verdict']}: {one['what']}", end="")
    print()
    assert {"driver", "gpus"} <= {one["check"] for one in cards}
    assert [one for one in cards if one["verdict"] == "fault"] == []
