"""Who has memory of the cards, through the real binding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.gpu.conftest import Machine, MakeMachine

GIB = 1 << 30
LIST_HOLDERS = """
import dataclasses, json
from vllm_circus.gpu import list_holders
print(json.dumps({index: [dataclasses.astuple(one) for one in held] for index, held in list_holders().items()}))
"""
LOOK = """
from plugins.ground import look_at_cards
print(look_at_cards())
"""


def holders(machine: Machine) -> Any:
    return json.loads(machine.python(LIST_HOLDERS))


def test_the_processes_of_each_card_are_listed(machine: MakeMachine) -> None:
    state = {"count": 2, "processes.0": f"12:{GIB} 13:{2 * GIB}"}
    assert holders(machine(state)) == {"0": [[12, GIB], [13, 2 * GIB]], "1": []}


def test_memory_that_the_card_does_not_tell_is_none(machine: MakeMachine) -> None:
    assert holders(machine({"count": 1, "processes": f"12:{2**64 - 1}"})) == {"0": [[12, None]]}


def test_a_card_that_does_not_tell_is_left_out(machine: MakeMachine) -> None:
    assert holders(machine({"count": 3, "processes.0": "error 3", "handle.1": "error 15"})) == {"2": []}


def test_a_card_is_used_for_as_long_as_its_processes_live(machine: MakeMachine, tmp_path: Path) -> None:
    folder = tmp_path / "holders"
    folder.mkdir()
    here = machine({"count": 1, "memory_used": GIB, "holders": folder})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (folder / f"{child.pid}.0").write_text(str(5 * GIB))
        assert holders(here) == {"0": [[child.pid, 5 * GIB]]}
        assert here.list_gpus()[0]["memory_used"] == 6 * GIB
        child.kill()
        child.wait()
    assert holders(here) == {"0": []}
    assert here.list_gpus()[0]["memory_used"] == GIB


def test_cards_and_holders_are_seen_together_and_nothing_without_a_driver(
    machine: MakeMachine, machine_without_library: Machine
) -> None:
    assert "holders={0: (Holder(pid=12, memory=1)" in machine({"count": 1, "processes": "12:1"}).python(LOOK)
    assert machine_without_library.python(LOOK).strip() == "None"
