"""`vllm-circus fit`: what it answers on machines with GPUs, and on one without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import Machine, MakeMachine
from tests.plan.fit.samples import NAMES, config
from vllm_circus.paths import find_instance
from vllm_circus.supervise.lock import hold_lock

GIB = 1 << 30
CARDS = {"count": 2, "memory_total": 80 * GIB, "memory_used": GIB}
AT = "2026-11-23T18:34:33.733+00:00 O"
LOG = f"""\
{AT} (APIServer pid=5) INFO 11-23 18:34:33 [api_utils.py:286] non-default args: {{'model': 'MODEL'}}
{AT} (Worker pid=9) INFO 11-23 18:34:43 [x.py:5150] Model loading took 15.5 GiB memory and 3.1 seconds
{AT} (Worker pid=9) INFO 11-23 18:34:44 [gpu_worker.py:760] Available KV cache memory: 50.0 GiB
{AT} (EngineCore pid=7) INFO 11-23 18:34:44 [x.py:2327] GPU KV cache size: 409,600 tokens, Maximum concurrency …
"""


def write_model(folder: Path, name: str, gib: float, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(name, **changes)))
    (folder / "model.safetensors").touch()
    os.truncate(folder / "model.safetensors", int(gib * GIB))
    return folder


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """Llama 3 8B, as far as one can see from outside."""
    return str(write_model(tmp_path / "llama", "llama-3-8b", 15))


@pytest.fixture
def with_cards(machine: MakeMachine, tmp_path: Path) -> Machine:
    """Two cards of 80 GiB, and a home of one's own."""
    made = machine(CARDS)
    return Machine({**made.environ, "VLLM_CIRCUS_HOME": str(tmp_path / "home")})


def answer(run: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(run.stdout)


def test_what_fits_is_told_with_its_figures(with_cards: Machine, llama: str) -> None:
    run = with_cards.command("fit", llama)
    assert (run.returncode, run.stderr) == (0, "")
    assert "weights       15.0G  the files' sizes" in run.stdout
    assert "A token takes 128.0K of cache, a sequence of 8,192 tokens 1.0G" in run.stdout
    assert run.stdout.endswith("It fits.\n")


def test_what_does_not_fit_ends_with_1_and_what_to_change(with_cards: Machine, llama: str) -> None:
    run = with_cards.command("fit", llama, "--gpu-memory", "18 GiB", "--context", "8192")
    assert run.returncode == 1
    assert "It does not fit: " in run.stdout
    assert "What to change, one of these:\n  gpu_memory: 0.2" in run.stdout


def test_the_json_has_the_same(with_cards: Machine, llama: str) -> None:
    run = with_cards.command("fit", llama, "--json", "--gpus", "0,1", "--gpu-memory", "0.1")
    found = answer(run)
    assert (run.returncode, found["fits"], found["budget"]) == (1, False, 8 * GIB)
    assert found["parts"]["weights"]["bytes"] == 15 * GIB // 2
    assert found["gpus"][1] == {"index": 1, "total": 80 * GIB, "free": 79 * GIB}
    assert {"change", "effect"} == set(found["advice"][0])


def test_a_model_of_the_file_is_judged_by_what_is_written_for_it(
    with_cards: Machine, llama: str, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    rest = "gpus: [0, 1], gpu_memory: 0.3, args: {max-model-len: 4096, kv-cache-dtype: fp8}"
    file.write_text(f"models:\n- {{name: chat, model: ./llama, {rest}}}\n- {{name: other, model: org/x, gpus: [0]}}\n")
    found = answer(with_cards.command("fit", "chat", "--config", str(file), "--json"))
    assert (found["share"], found["context"]["wanted"], len(found["gpus"])) == (0.3, 4096, 2)
    assert found["cache"]["token"] == 131_072 // 4  # half the heads, half the bits
    other = answer(with_cards.command("fit", "chat", "--config", str(file), "--json", "--gpus", "1", "--context", "99"))
    assert ([card["index"] for card in other["gpus"]], other["context"]["wanted"]) == ([1], 99)


def test_a_model_of_the_running_set_is_judged_by_that_sets_file(
    with_cards: Machine, llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = f"model: {llama}, engine: simulator, gpus: [0], args: {{max-model-len: 4096}}"
    file = tmp_path / "models.yaml"
    file.write_text(f"proxy: {{host: 127.0.0.1}}\nmodels:\n- {{name: chat, {rest}}}\n")
    monkeypatch.setenv("VLLM_CIRCUS_HOME", with_cards.environ["VLLM_CIRCUS_HOME"])
    instance = find_instance()
    assert with_cards.command("render", str(file), "--output", str(instance.run_dir)).returncode == 0
    before = with_cards.command("fit", "chat")
    other = "`--config FILE` names another models file, and MODEL may be a folder"
    assert before.returncode == 4
    assert before.stderr == f"error: no model 'chat'\nhint: there is no {instance.config_file}; {other}\n"
    with hold_lock(instance):
        assert answer(with_cards.command("fit", "chat", "--json"))["context"]["wanted"] == 4096
        unknown = with_cards.command("fit", "coder").stderr
        assert f"hint: {file} has chat; {other}\n" in unknown
        file.unlink()  # a path is judged all the same
        assert with_cards.command("fit", llama).returncode == 0


def test_its_log_tells_better(with_cards: Machine, llama: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    (home / "config" / "models.yaml").write_text(f"models:\n- {{name: chat, model: {llama}, gpus: [0]}}\n")
    (home / "log" / "default").mkdir(parents=True)
    (home / "log" / "default" / "chat.log").write_text(LOG.replace("MODEL", llama))
    found = answer(with_cards.command("fit", "chat", "--json"))
    assert found["parts"]["weights"] == {"bytes": int(15.5 * GIB), "origin": "told by its last load"}
    assert list(found["parts"]) == ["weights", "while it runs"]
    assert found["cache"]["learnt"] is False  # 128 KiB, as was reckoned
    text = with_cards.command("fit", "chat").stdout
    assert "told by its last load" in text


def test_a_share_that_is_not_free_now_ends_with_1(machine: MakeMachine, llama: str) -> None:
    run = machine({**CARDS, "memory_used": 40 * GIB}).command("fit", llama)
    assert run.returncode == 1
    assert "It fits its share, but not now" in " ".join(run.stdout.split())


def test_without_a_gpu_its_size_can_be_stated(machine: MakeMachine, llama: str) -> None:
    nowhere = machine({"init": "error 12"})
    run = nowhere.command("fit", llama)
    assert (run.returncode, run.stdout) == (1, "")
    assert "`--memory 80GiB` states a GPU's size" in run.stderr
    stated = nowhere.command("fit", llama, "--memory", "24GiB")
    assert (stated.returncode, stated.stderr) == (0, "")
    assert answer(nowhere.command("fit", llama, "--memory", "24GiB", "--json"))["free_now"] is None


def test_a_snapshot_in_hugging_faces_cache_is_found_by_its_id(with_cards: Machine, tmp_path: Path) -> None:
    home = tmp_path / "hf" / "hub" / "models--org--name"
    write_model(home / "snapshots" / "c0ffee", "qwen2.5-7b", 15)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c0ffee")
    there = Machine({**with_cards.environ, "HF_HOME": str(tmp_path / "hf")})
    assert answer(there.command("fit", "org/name", "--json"))["cache"]["token"] == 57_344
    run = there.command("fit", "org/other")
    assert run.returncode == 1
    assert "fetch it first: `vllm-circus models pull org/other`\n" in run.stderr


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("nobody",), 4, "no model 'nobody'"),
        (("x/y", "--gpus", "a"), 2, "write indices with commas between"),
        (("x/y", "--gpu-memory", "2"), 2, "write a fraction such as 0.4"),
        (("x/y", "--memory", "big"), 2, "write an amount such as 80GiB"),
        (("LLAMA", "--gpus", "7"), 2, "there is no GPU 7"),
        (("LLAMA", "--gpu-memory", "99 GiB"), 2, "GPU 0 has 80.0 GiB"),
    ],
)
def test_what_cannot_be_is_told(with_cards: Machine, llama: str, words: tuple[str, ...], code: int, error: str) -> None:
    run = with_cards.command("fit", *(llama if word == "LLAMA" else word for word in words))
    assert (run.returncode, run.stdout) == (code, "")
    assert error in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_fits_80_columns(name: str, tmp_path: Path) -> None:
    folder = tmp_path / ("a-folder-with-a-long-name-" * 3) / name
    write_model(folder, name, 30, architectures=["A" * 200])
    environ = {**os.environ, "VLLM_CIRCUS_HOME": str(tmp_path / "home")}
    argv = [sys.executable, "-m", "vllm_circus", "fit", str(folder), "--memory", "24GiB", "--context", "90000"]
    run = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode in {0, 1}, run.stderr
    _, *rest = run.stdout.splitlines()  # the first line names the folder
    assert max(map(len, rest)) <= 80
