from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from plugins import ground, preflight
from plugins.ground import Ground, Patience
from plugins.preflight import Cards
from tests.plans import model_plan
from vllm_circus.gpu import Gpu, Holder
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Endpoint, ModelPlan

from .conftest import until

GIB = 1 << 30
GONE = 2**22


@dataclass
class Machine:
    """One GPU of 80 GiB: what is used of it at each look, the last for ever, and by whom."""

    used: list[float]
    holders: list[tuple[Holder, ...]] = field(default_factory=lambda: [()])
    looks: int = 0

    def __call__(self) -> Cards:
        used, holders = (each[min(self.looks, len(each) - 1)] for each in (self.used, self.holders))
        self.looks += 1
        assert isinstance(used, int | float)
        return Cards((Gpu(0, "GPU-0", "card", 80 * GIB, int(used * GIB), 0, 30),), {0: holders})  # type: ignore[dict-item]


@pytest.fixture
def model(free_port: Callable[[], int]) -> ModelPlan:
    """An engine that takes 0.4 of GPU 0, and nothing but that."""
    endpoint = Endpoint("127.0.0.1", free_port())
    return model_plan(argv=(sys.executable,), engine="command", endpoint=endpoint, memory_share=0.4)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is from one look to the next, however long that takes."""
    seconds = map(float, count())
    monkeypatch.setattr(ground, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(ground, "_PAUSE", 0.01)


def check(instance: Instance, model: ModelPlan, look: Callable[[], Cards | None]) -> Diagnosis | None:
    return asyncio.run(Ground(instance, look, Patience(before=4)).check(model))


def test_what_is_just_leaving_is_waited_for(instance: Instance, model: ModelPlan) -> None:
    machine = Machine([70, 70, 10])
    assert check(instance, model, machine) is None
    assert machine.looks == 3


def test_what_does_not_leave_is_told_at_last_and_what_never_will_at_once(instance: Instance, model: ModelPlan) -> None:
    machine = Machine([70])
    why = check(instance, model, machine)
    assert why is not None
    assert why.cause == "not started: GPU 0 has 10.0 of its 80.0 GiB free, and it takes 32.0"
    assert machine.looks == 5
    machine = Machine([70])
    assert check(instance, model_plan(argv=("/none",), engine="command", memory_share=0.4), machine) is not None
    assert machine.looks == 1


def test_a_full_disk_of_logs_is_told_and_keeps_nobody_from_starting(
    instance: Instance, model: ModelPlan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preflight, "FLOOR", 1 << 62)
    assert check(instance, model, Machine([10])) is None
    assert f"a: starts all the same: {instance.log_dir} has " in caplog.text
    assert check(instance, model_plan(argv=("/none",), engine="command"), Machine([10])) is not None


def test_a_machine_without_a_driver_has_no_gpus_in_question(instance: Instance, model: ModelPlan) -> None:
    assert check(instance, model, lambda: None) is None


def test_a_look_that_fails_keeps_nobody_from_starting(instance: Instance, model: ModelPlan) -> None:
    def fail() -> Cards:
        raise RuntimeError("of another world")

    assert check(instance, model, fail) is None


def test_a_driver_that_hangs_holds_nothing_up(
    instance: Instance, model: ModelPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, never = threading.Event(), threading.Event()

    def hang() -> None:
        looking.set()
        never.wait()

    async def scene() -> None:
        monkeypatch.setattr(ground, "_LOOK_WITHIN", 60.0)
        hanging = asyncio.create_task(Ground(instance, hang).check(model))
        await until(looking.is_set)
        assert not hanging.done(), "others had their turn while it looked"
        hanging.cancel()
        monkeypatch.setattr(ground, "_LOOK_WITHIN", 0.1)
        assert await Ground(instance, hang).check(model) is None
        await Ground(instance, hang).wait_free(model, GONE)

    asyncio.run(scene())
    never.set()


def wait_free(instance: Instance, model: ModelPlan, machine: Machine, *, started: bool = True) -> None:
    """Wait for memory; the machine's first look is that of the start, where there was one."""

    async def scene() -> None:
        watched = Ground(instance, machine, Patience(after=5))
        if started:
            assert await watched.check(model) is None
        await watched.wait_free(model, GONE)

    asyncio.run(scene())


def test_memory_is_waited_for_until_as_little_is_used_as_before_or_enough_is_free(
    instance: Instance, model: ModelPlan
) -> None:
    back = Machine([1, 79, 79, 1.2, 1])
    wait_free(instance, model, back)
    assert back.looks == 4
    others_came = Machine([1, 79, 79, 40])
    wait_free(instance, model, others_came)
    assert others_came.looks == 4
    somebody_else_took_it = Machine([1, 79, 79], [(), (), (Holder(os.getpid(), 78 * GIB),)])
    wait_free(instance, model, somebody_else_took_it)
    assert somebody_else_took_it.looks == 3
    nobody_saw_the_start = Machine([79, 79, 40])
    wait_free(instance, model, nobody_saw_the_start, started=False)
    assert nobody_saw_the_start.looks == 3


def test_a_process_of_the_session_has_to_be_gone(instance: Instance, model: ModelPlan) -> None:
    leader = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    held = (Holder(leader.pid, GIB),)
    machine = Machine([1], [(), held, held, ()])

    async def scene() -> None:
        watched = Ground(instance, machine, Patience(after=5))
        assert await watched.check(model) is None
        await watched.wait_free(model, leader.pid)

    try:
        asyncio.run(scene())
    finally:
        leader.kill()
        leader.wait()
    assert machine.looks == 4


def test_memory_that_does_not_come_back_is_told_with_who_has_it(
    instance: Instance, model: ModelPlan, caplog: pytest.LogCaptureFixture
) -> None:
    stays = Machine([1, 79], [(), (Holder(os.getpid(), 8 * GIB), Holder(GONE, 70 * GIB))])
    wait_free(instance, model, stays)
    assert stays.looks == 1 + 6
    name = Path("/proc/self/comm").read_text().strip()
    assert (
        "a: 79.0 GiB of GPU 0 are still in use 5 s after its end: "
        f"process {GONE} has 70.0 GiB, process {os.getpid()} ({name}) has 8.0 GiB" in caplog.text
    )


@pytest.fixture
def nothing_is_known() -> Iterator[Machine]:
    machine = Machine([79])
    yield machine
    assert machine.looks <= 1


def test_what_nobody_can_tell_is_not_waited_for(
    instance: Instance, model: ModelPlan, nothing_is_known: Machine
) -> None:
    unstated = model_plan(argv=(sys.executable,), engine="command", endpoint=model.endpoint)
    wait_free(instance, unstated, nothing_is_known, started=False)
    wait_free(instance, model_plan(engine="simulator"), nothing_is_known, started=False)
    wait_free(instance, model_plan(gpus=None), nothing_is_known, started=False)
