from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from plugins import processes
from plugins.hands import Hands
from tests.plans import model_plan
from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.plan.types import ModelPlan
from vllm_circus.supervise.proc import every_process

from .conftest import FakeCircus, until, wait_until

#: A leader with a child in its own group and one in another; it tells their pids.
FAMILY = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
near, far = subprocess.Popen(sleep), subprocess.Popen(sleep, process_group=0)
print(near.pid, far.pid, flush=True)
time.sleep(60)
"""
#: A stranger and its father.
FATHER = """
import subprocess
child = subprocess.Popen(["sleep", "60"], start_new_session={leads})
print(child.pid, flush=True)
input()
child.kill()
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], tuple[int, ...]]]:
    leader = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    children = tuple(map(int, leader.stdout.readline().split()))
    yield leader, children
    for pid in (leader.pid, *children):
        if processes.is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    leader.wait()
    leader.stdout.close()


def alive(session: int) -> set[int]:
    return {found.pid for found in every_process() if found.session == session and found.alive}


def test_a_session_is_killed_whole(family: tuple[subprocess.Popen[str], tuple[int, ...]]) -> None:
    leader, children = family
    assert alive(leader.pid) == {leader.pid, *children}
    processes.kill_session(leader.pid)
    wait_until(lambda: not alive(leader.pid))


def test_what_a_dead_leader_left_is_found_and_a_living_leader_left_nothing(
    family: tuple[subprocess.Popen[str], tuple[int, ...]],
) -> None:
    leader, children = family
    assert processes.leftovers(leader.pid) == ()
    leader.kill()
    wait_until(lambda: not processes.is_alive(leader.pid))  # a zombie still, until somebody waits for it
    assert {left.pid for left in processes.leftovers(leader.pid)} == set(children)
    leader.wait()
    assert {left.pid for left in processes.leftovers(leader.pid)} == set(children)


def test_only_the_leader_of_a_session_is_killed_as_one(
    family: tuple[subprocess.Popen[str], tuple[int, ...]],
) -> None:
    leader, children = family
    processes.kill_session(children[0])
    assert alive(leader.pid) == {leader.pid, *children}


@dataclass
class Firm:
    """A ground on which everything can start, unless there is a reason against it."""

    reason: Diagnosis | None = None
    freed: list[int] = field(default_factory=list)

    async def check(self, _model: ModelPlan) -> Diagnosis | None:
        return self.reason

    async def wait_free(self, _model: ModelPlan, pid: int) -> None:
        self.freed.append(pid)


def perform(circus: FakeCircus, *actions: e.Action, ground: Firm | None = None) -> list[e.Event]:
    events: list[e.Event] = []
    hands = Hands(circus, ground or Firm(), lambda name, event: events.append(event), parent=os.getpid())

    async def scene() -> None:
        for action in actions:
            await asyncio.wait_for(hands.perform(model_plan("a"), action), 20)

    asyncio.run(scene())
    return events


def test_starting_tells_the_process(circus: FakeCircus) -> None:
    events = perform(circus, e.Start())
    assert events == [e.Spawned(circus.processes["model-a"].pid)]


def test_a_reason_not_to_start_is_told_and_nothing_is_started(circus: FakeCircus) -> None:
    why = Diagnosis("there is no /models/a", "put it there", "preflight")
    assert perform(circus, e.Start(), ground=Firm(why)) == [e.StartRefused(why)]
    assert circus.calls == []


def test_starting_waits_for_circus_lock(circus: FakeCircus) -> None:
    circus.refusals = 2
    assert perform(circus, e.Start()) == [e.Spawned(circus.processes["model-a"].pid)]
    assert circus.calls == ["start model-a"] * 3


def test_a_process_that_ends_at_once_is_a_refusal(circus: FakeCircus) -> None:
    class Hopeless(FakeCircus):
        async def start(self, watcher: str) -> list[int]:
            self._said("start", watcher)
            return []

    (event,) = perform(Hopeless(), e.Start())
    assert isinstance(event, e.StartRefused)


def test_starting_settles_first_what_circus_takes_for_running(circus: FakeCircus) -> None:
    perform(circus, e.Start())
    circus.processes["model-a"].kill()
    circus.processes["model-a"].wait()
    (event,) = perform(circus, e.Start())
    assert event == e.Spawned(circus.processes["model-a"].pid)
    assert circus.calls == ["start model-a", "stop model-a", "start model-a"]


def test_cleaning_up_ends_the_orphans_and_has_circus_agree(
    circus: FakeCircus, family: tuple[subprocess.Popen[str], tuple[int, ...]]
) -> None:
    leader, children = family
    perform(circus, e.Start())
    circus.end()
    leader.kill()
    leader.wait()
    ground = Firm()
    assert perform(circus, e.CleanUp(leader.pid), ground=ground) == [e.Cleaned(leader.pid)]
    assert ground.freed == [leader.pid]
    assert not any(map(processes.is_alive, children))
    assert circus.calls[-1] == "stop model-a"


def test_cleaning_up_does_not_stop_what_somebody_started_meanwhile(circus: FakeCircus) -> None:
    perform(circus, e.Start())
    assert perform(circus, e.CleanUp(2**22 - 1)) == [e.Cleaned(2**22 - 1)]
    assert circus.calls == ["start model-a"]


@pytest.fixture(params=[True, False], ids=["a session's leader", "one of a session"])
def stranger(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that has the number of one of ours by now: a child of somebody else's."""
    text = FATHER.format(leads=request.param)
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as father:
        assert father.stdout is not None
        yield int(father.stdout.readline())
        father.communicate("\n")


def test_a_stranger_with_the_number_of_a_process_that_is_gone_is_neither_signalled_nor_waited_for(
    stranger: int,
) -> None:
    class Refusing(FakeCircus):
        async def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
            raise CircusError(f"process {pid} not found")

    events = perform(Refusing(), e.Terminate(stranger), e.Kill(stranger), e.CleanUp(stranger))
    assert events == [e.Cleaned(stranger)]
    assert processes.is_alive(stranger)


def test_sigterm_goes_through_circus_and_directly_where_circus_is_gone(circus: FakeCircus) -> None:
    perform(circus, e.Start())
    pid = circus.processes["model-a"].pid
    perform(circus, e.Terminate(pid))
    assert circus.calls[-1] == "signal 15 model-a"
    assert circus.processes["model-a"].wait(10) == -signal.SIGTERM

    class Gone(FakeCircus):
        async def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
            raise NotRunning("nobody answers")

    gone = Gone()
    perform(gone, e.Start())
    perform(gone, e.Terminate(gone.processes["model-a"].pid))
    assert gone.processes["model-a"].wait(10) == -signal.SIGTERM


def test_a_kill_waits_for_nobody(circus: FakeCircus) -> None:
    events: list[e.Event] = []
    hands = Hands(circus, Firm(), lambda name, event: events.append(event), parent=os.getpid())

    async def scene() -> None:
        await hands.perform(model_plan("a"), e.Start())
        pid = circus.processes["model-a"].pid
        waiting = asyncio.create_task(hands.perform(model_plan("a"), e.CleanUp(pid)))
        await asyncio.sleep(0)
        await hands.perform(model_plan("a"), e.Kill(pid))
        assert circus.processes["model-a"].wait(10) == -signal.SIGKILL
        await until(waiting.done)
        assert events[-1] == e.Cleaned(pid)

    asyncio.run(scene())
