"""`list_gpus` through the real binding, against a driver library that does as it is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.gpu.conftest import Machine, MakeMachine

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND = 3, 4, 9, 13
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, UNKNOWN = 15, 16, 18, 999


def test_eight_cards_are_read_whole_and_in_order(machine: MakeMachine) -> None:
    state = {
        "name.5": "NVIDIA A100-SXM4-40GB",
        "memory_total.5": 40 << 30,
        "memory_used.5": 123456789,
        "utilisation.5": 97,
        "temperature.5": 71,
    }
    gpus = machine(state).list_gpus()
    assert [gpu["index"] for gpu in gpus] == list(range(8))
    assert gpus[0]["memory_total"] == 80 << 30
    assert gpus[5] == {
        "index": 5,
        "uuid": "GPU-00000000-0000-0000-0000-000000000005",
        "name": "NVIDIA A100-SXM4-40GB",
        "memory_total": 40 << 30,
        "memory_used": 123456789,
        "utilisation": 97,
        "temperature": 71,
        "fault": "",
    }


def test_a_driver_without_cards_is_an_empty_list(machine: MakeMachine) -> None:
    assert machine({"count": 0}).list_gpus() == []


@pytest.mark.parametrize("key", ["utilisation", "temperature"])
def test_a_value_that_one_card_does_not_tell_is_none_there_alone(machine: MakeMachine, key: str) -> None:
    gpus = machine({"count": 3, f"{key}.1": f"error {NOT_SUPPORTED}", key: 42}).list_gpus()
    assert [gpu[key] for gpu in gpus] == [42, None, 42]
    assert [gpu["fault"] for gpu in gpus] == ["", "", ""]


def test_a_card_without_memory_of_its_own_has_none(machine: MakeMachine) -> None:
    (gpu,) = machine({"count": 1, "memory_total": f"error {NOT_SUPPORTED}"}).list_gpus()
    assert (gpu["memory_total"], gpu["memory_used"], gpu["fault"]) == (None, None, "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (GPU_IS_LOST, "GPU 1 fell off the bus: reboot"),
        (RESET_REQUIRED, "GPU 1 must be reset"),
        (NO_PERMISSION, "GPU 1 may not be used by this user"),
        (UNKNOWN, "GPU 1 does not answer the driver: Unknown Error"),
    ],
)
def test_a_broken_card_is_listed_with_its_fault_and_hides_no_other(machine: MakeMachine, code: int, words: str) -> None:
    gpus = machine({"count": 3, "handle.1": f"error {code}"}).list_gpus()
    assert [gpu["index"] for gpu in gpus] == [0, 1, 2]
    assert gpus[1]["fault"].startswith(words)
    assert (gpus[1]["uuid"], gpus[1]["memory_total"]) == ("", None)
    assert not gpus[0]["fault"]
    assert gpus[2]["uuid"]


def test_a_card_lost_while_it_is_read_keeps_what_it_told(machine: MakeMachine) -> None:
    gpu = machine({"count": 1, "utilisation.0": f"error {GPU_IS_LOST}"}).list_gpus()[0]
    assert gpu["uuid"].endswith("0")
    assert gpu["memory_total"] == 80 << 30
    assert "fell off the bus" in gpu["fault"]
    assert gpu["temperature"] is None


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (DRIVER_NOT_LOADED, "not loaded", "modprobe nvidia"),
        (VERSION_MISMATCH, "different versions", "reboot"),
        (NO_PERMISSION, "may not use", "/dev/nvidia*"),
        (FUNCTION_NOT_FOUND, "too old", "newer driver"),
        (UNKNOWN, "Unknown Error", "nvidia-smi"),
        (77, "stub error 77", "nvidia-smi"),
    ],
)
def test_no_driver_says_why_and_what_to_do(machine: MakeMachine, code: int, message: str, hint: str) -> None:
    answer = machine({"init": f"error {code}"}).list_gpus()
    assert message in answer["message"]
    assert hint in answer["hint"]


def test_a_driver_that_cannot_count_its_cards_is_no_driver(machine: MakeMachine) -> None:
    assert "does not answer" in machine({"count": f"error {UNKNOWN}"}).list_gpus()["message"]


def test_a_machine_without_the_library_has_no_driver(machine_without_library: Machine) -> None:
    answer = machine_without_library.list_gpus()
    assert "libnvidia-ml.so.1 is not installed" in answer["message"]
    assert "install the driver" in answer["hint"]


@pytest.mark.parametrize("fault", [{}, {"handle.0": "error 15"}, {"count": "error 999"}])
def test_nvml_is_let_go_whatever_happens(machine: MakeMachine, tmp_path: Path, fault: dict[str, str]) -> None:
    journal = tmp_path / "journal"
    machine({"journal": journal, **fault}).list_gpus()
    assert journal.read_text().split() == ["init", "shutdown"]


def test_nvml_can_be_used_again_after_a_failure(machine: MakeMachine, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from vllm_circus.gpu import NoDriver, list_gpus
try:
    list_gpus()
except NoDriver:
    Path({str(tmp_path / "nvml-state")!r}).write_text("count=2")
    print(len(list_gpus()), len(list_gpus()))
"""
    assert machine({"init": f"error {DRIVER_NOT_LOADED}"}).python(code).split() == ["2", "2"]


def test_a_slow_driver_is_waited_for(machine: MakeMachine) -> None:
    begin = time.monotonic()
    assert len(machine({"count": 1, "delay_ms": 100}).list_gpus()) == 1
    assert time.monotonic() - begin > 0.6  # init, count, handle and what the card is asked


def test_nothing_of_nvml_is_loaded_before_somebody_asks(machine: MakeMachine) -> None:
    code = "import sys, vllm_circus.gpu; print('pynvml' in sys.modules)"
    assert machine({}).python(code).strip() == "False"
