"""The driver and the GPUs: what is broken, hot or taken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import nvml_stub
from tests.plans import model_plan
from vllm_circus.checkup.cards import judge_driver, judge_free_memory, judge_gpus, judge_holders
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.patience import Answer
from vllm_circus.gpu import Gpu, Holder, NoDriver

GIB = 1 << 30


def gpu(index: int = 0, *, used: int = 0, temperature: int | None = 40, fault: str = "") -> Gpu:
    return Gpu(index, f"GPU-{index}", "NVIDIA H100", 80 * GIB, used, 0, temperature, fault)


def test_no_driver_is_a_fault_only_where_a_model_needs_one() -> None:
    none: Answer[tuple[Gpu, ...]] = Answer(error=NoDriver("no NVIDIA driver", hint="install the driver"))
    needed, idle = judge_driver(none, needed=True), judge_driver(none, needed=False)
    assert (needed.verdict, idle.verdict) == (Verdict.FAULT, Verdict.NOTE)
    assert (idle.what, idle.fix) == ("no NVIDIA driver", "install the driver")


def test_a_driver_that_hangs_is_a_fault() -> None:
    assert judge_driver(Answer(late=True), needed=False).verdict is Verdict.FAULT


def test_a_driver_without_cards_is_told() -> None:
    assert judge_driver(Answer(()), needed=True).verdict is Verdict.FAULT
    assert judge_driver(Answer((gpu(),)), needed=True).verdict is Verdict.OK


def test_a_broken_card_is_a_fault_where_a_model_is_to_have_it() -> None:
    broken = (gpu(0), gpu(1, fault="GPU 1 fell off the bus"))
    (found,) = judge_gpus(broken, {1})
    assert (found.verdict, found.what) == (Verdict.FAULT, "GPU 1 fell off the bus")
    (found,) = judge_gpus(broken, {0})
    assert found.verdict is Verdict.WARNING


@pytest.mark.parametrize(("temperature", "told"), [(84, 0), (85, 1), (99, 1), (None, 0)])
def test_a_hot_card_is_told(temperature: int | None, told: int) -> None:
    found = list(judge_gpus((gpu(temperature=temperature),), set()))
    assert [each.verdict for each in found] == [Verdict.WARNING] * told


def test_memory_of_a_stranger_is_told_and_our_own_is_not() -> None:
    held = {0: (Holder(1, 20 * GIB), Holder(2, 30 * GIB), Holder(3, 100 << 20))}
    (found,) = judge_holders((gpu(used=51 * GIB),), held, {2}, {0})
    assert found.verdict is Verdict.WARNING
    assert "holds 20.0G of GPU 0 and is not ours" in found.what
    assert "`ps -fp 1`" in found.fix
    (found,) = judge_holders((gpu(used=51 * GIB),), held, {2}, set())
    assert found.verdict is Verdict.NOTE


def test_memory_that_nobody_holds_is_noted() -> None:
    (found,) = judge_holders((gpu(used=40 * GIB),), {}, set(), {0})
    assert found.verdict is Verdict.NOTE
    assert "by nobody that can be seen" in found.what
    assert list(judge_holders((gpu(used=GIB),), {}, set(), {0})) == []


@pytest.mark.parametrize(
    ("used", "share", "told"), [(0, 0.92, 0), (6, 0.92, 0), (9, 0.92, 1), (40, 0.5, 0), (43, 0.5, 1)]
)
def test_a_card_that_is_too_full_for_its_model_is_a_fault(used: int, share: float, told: int) -> None:
    found = list(judge_free_memory((gpu(used=used * GIB),), [model_plan(gpus=(0,), memory_share=share)]))
    assert [each.verdict for each in found] == [Verdict.FAULT] * told


def test_how_much_is_free_and_taken_is_told() -> None:
    (found,) = judge_free_memory((gpu(used=60 * GIB),), [model_plan("big", gpus=(0, 7))])
    assert found.what == "GPU 0 has 20.0G of 80.0G free, and big takes 73.6G"


def doctor(environ: Mapping[str, str]) -> list[dict[str, str]]:
    """The findings of `doctor --json` about this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "vllm_circus", "doctor", "--json"],
        env={**environ},
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    return found


def test_the_driver_is_asked_for_all_of_it(short_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        state = {
            "count": 3,
            "temperature.0": 91,
            "handle.1": "error 15",
            "processes.2": f"{stranger.pid}:{20 * GIB}",
        }
        library = nvml_stub.build(short_dir)
        environ = nvml_stub.environment(library, nvml_stub.write_state(short_dir / "state", state))
        found = doctor({**environ, "VLLM_CIRCUS_HOME": str(short_dir)})
        stranger.communicate(b"\n")
    told = {(each["check"], each["verdict"]): each["what"] for each in found}
    assert "GPU 1 fell off the bus" in told["gpus", "fault"]
    assert "GPU 0 is at 91 C" in told["gpus", "warning"]
    assert told["gpu-memory", "note"].startswith(f"process {stranger.pid} (python")
    assert told["driver", "ok"].startswith("the driver works: 3 GPUs")
