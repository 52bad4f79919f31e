"""`vllm-circus gpus`: what it prints, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import nvml_stub
from tests.gpu.conftest import Machine, MakeMachine
from vllm_circus.cli.gpus import table
from vllm_circus.gpu import Gpu

GIB = 1 << 30
UUID = "GPU-0123abcd-4567-89ab-cdef-0123456789ab"


def card(index: int = 0, name: str = "NVIDIA H100 80GB HBM3") -> Gpu:
    return Gpu(index, UUID, name, 80 * GIB, 3 * GIB // 2, 7, 45)


def test_the_table_has_a_line_for_each_card() -> None:
    assert table([card(0), card(1, "NVIDIA A100")], 80).splitlines() == [
        "GPU  NAME                   USED  TOTAL  USE  TEMP  UUID",
        "  0  NVIDIA H100 80GB HBM3  1.5G  80.0G   7%   45C  GPU-0123abcd",
        "  1  NVIDIA A100            1.5G  80.0G   7%   45C  GPU-0123abcd",
    ]


def test_a_wide_terminal_gets_the_whole_uuid() -> None:
    assert UUID in table([card()], 120)


@pytest.mark.parametrize("width", [1, 80, 100, 200])
def test_the_table_fits_the_terminal_or_80_columns(width: int) -> None:
    names = ["NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition" * times for times in (1, 2)]
    cards = [Gpu(127, UUID, name, 1 << 44, 1 << 44, 100, 100) for name in names]
    lines = table(cards, width).splitlines()
    assert max(map(len, lines)) <= max(width, 80)
    assert all("NVIDIA RTX" in line for line in lines[1:])


def test_what_a_card_does_not_tell_is_a_dash() -> None:
    lost = Gpu(3, "", "", None, None, None, None, fault="gone")
    assert table([lost], 80).splitlines()[1].split() == ["3", "-", "-", "-", "-", "-", "-"]


def test_a_name_cannot_act_on_the_terminal() -> None:
    assert "\x1b" not in table([card(name="\x1b[31mred\x07")], 80)


def test_plain_output_is_the_table(machine: MakeMachine) -> None:
    run = machine({"count": 2, "memory_used.1": 4 * GIB}).command("gpus")
    assert (run.returncode, run.stderr) == (0, "")
    assert "4.0G  80.0G" in run.stdout.splitlines()[2]


def test_a_lost_card_is_warned_of_beside_the_table(machine: MakeMachine) -> None:
    run = machine({"count": 2, "handle.0": "error 15"}).command("gpus")
    assert run.returncode == 0
    assert "warning: GPU 0 fell off the bus" in run.stderr
    assert len(run.stdout.splitlines()) == 3


def test_no_card_at_all_is_said(machine: MakeMachine) -> None:
    run = machine({"count": 0}).command("gpus")
    assert (run.returncode, run.stdout) == (0, "")
    assert "shows no GPU" in run.stderr


def test_json_has_every_value(machine: MakeMachine) -> None:
    run = machine({"count": 1, "temperature": 33}).command("gpus", "--json")
    answer = json.loads(run.stdout)
    assert (run.returncode, answer["error"]) == (0, None)
    assert answer["gpus"][0]["temperature"] == 33
    assert answer["gpus"][0]["memory_total"] == 80 * GIB


def test_without_a_driver_it_fails_with_a_plain_word_and_no_data(machine_without_library: Machine) -> None:
    run = machine_without_library.command("gpus")
    assert (run.returncode, run.stdout) == (1, "")
    assert "no NVIDIA driver" in run.stderr
    assert "install the driver" in run.stderr
    assert "Traceback" not in run.stderr


def test_without_a_driver_json_says_so_as_data(machine_without_library: Machine) -> None:
    run = machine_without_library.command("gpus", "--json")
    answer = json.loads(run.stdout)
    assert (run.returncode, answer["gpus"]) == (1, [])
    assert "no NVIDIA driver" in answer["error"]
    assert "install the driver" in answer["hint"]


def test_a_driver_of_another_version_is_told_from_a_missing_one(nvml_library: Path, tmp_path: Path) -> None:
    state = nvml_stub.write_state(tmp_path / "state", {"init": "error 18"})
    run = Machine(nvml_stub.environment(nvml_library, state)).command("gpus")
    assert run.returncode == 1
    assert "different versions" in run.stderr
