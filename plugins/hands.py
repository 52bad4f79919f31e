"""Carry out what the state machine wants, through circus where circus is to know of it.

Rules: actions for one model happen one after the other, those of different models side by side; nothing here decides
anything; each action that asks for an answer gives one in the end, whatever happens, except for an engine of which
nobody can tell whether it sleeps. circus's lock may be held by others for as long as one of their stops takes, so what
needs it is tried again for a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from vllm_circus.errors import CircusError
from vllm_circus.lifecycle.events import (
    Action,
    Cleaned,
    CleanUp,
    Event,
    Kill,
    Sleep,
    Spawned,
    Start,
    StartRefused,
    Terminate,
    Wake,
)
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.plan.types import ModelPlan

from . import processes
from .exchange import Engine
from .sleeper import put_to_sleep, wake_up

log = logging.getLogger(__name__)

#: Seconds that circus is asked again to start something; shorter than the machine's own patience.
PERSISTENCE = 60.0
#: Seconds that circus may take to see that a process is gone.
_SETTLING = 10.0
_PAUSE = 0.1


class Circus(Protocol):
    """What is needed of `supervise.client.AsyncClient`."""

    async def status(self) -> dict[str, str]:
        """What each watcher is."""

    async def pids(self, watcher: str) -> list[int]:
        """The processes of a watcher."""

    async def start(self, watcher: str) -> list[int]:
        """Start a watcher."""

    async def stop(self, watcher: str) -> None:
        """Stop a watcher."""

    async def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
        """Signal a process of a watcher."""

    async def refit(self) -> None:
        """Have the watchers of models agree with circus.ini, as far as they are at rest."""


class Footing(Protocol):
    """What is needed of `ground.Ground`."""

    async def check(self, model: ModelPlan) -> Diagnosis | None:
        """Why the model cannot start; None where it can."""

    async def wait_free(self, model: ModelPlan, pid: int) -> None:
        """Until the memory that session `pid` of the model had is back."""


class Hands:
    """Carries actions out and feeds what came of them back."""

    def __init__(
        self,
        circus: Circus,
        ground: Footing,
        feed: Callable[[str, Event], None],
        secrets: Path | None = None,
        parent: int | None = None,
    ) -> None:
        """`secrets` is the instance's folder of engine keys, `parent` circusd's pid: our own parent by default."""
        self._circus = circus
        self._ground = ground
        self._feed = feed
        self._secrets = secrets
        self._parent = os.getppid() if parent is None else parent
        self._turns: dict[str, asyncio.Lock] = {}
        self._unfit: set[str] = set()

    async def perform(self, model: ModelPlan, action: Action) -> None:
        """Do one thing for one model, when what was wanted for it before is done.

        A SIGKILL waits for nobody, and nobody waits for an engine that falls asleep or wakes up: that may take minutes.
        """
        match action:
            case Kill(pid):
                log.info("%s: SIGKILL to everything of session %d", model.name, pid)
                if processes.is_started_by(self._parent, pid):
                    processes.kill_session(pid)
            case Sleep(pid, level):
                log.info("%s: to sleep, level %d", model.name, level)
                if said := await put_to_sleep(model, Engine(model, self._secrets), pid, level):
                    self._feed(model.name, said)
            case Wake(pid, level):
                log.info("%s: to wake up from level %d", model.name, level)
                self._feed(model.name, await wake_up(Engine(model, self._secrets), pid, level))
            case _:
                await self._in_turn(model, action)

    async def _in_turn(self, model: ModelPlan, action: Action) -> None:
        async with self._turns.setdefault(model.name, asyncio.Lock()):
            match action:
                case Start():
                    self._feed(model.name, await self._start(model))
                case Terminate(pid):
                    await self._terminate(model, pid)
                case CleanUp(pid):
                    await self._clean_up(model, pid)
                    self._feed(model.name, Cleaned(pid))

    async def _start(self, model: ModelPlan) -> Event:
        if why := await self._ground.check(model):
            return StartRefused(why)
        deadline = time.monotonic() + PERSISTENCE
        while True:
            try:
                return await self._started(model)
            except CircusError as error:
                log.warning("%s: circus did not start it: %s", model.name, error)
                if time.monotonic() > deadline:
                    return StartRefused(Diagnosis(str(error)))
            await asyncio.sleep(_PAUSE * 5)

    async def _started(self, model: ModelPlan) -> Event:
        unfit = model.name in self._unfit
        if unfit:
            await self._circus.refit()  # it may not be there yet
        await self.settle(model)
        if unfit:
            await self._circus.refit()  # or be there as it was
            self._unfit.discard(model.name)
        for pid in (*await self._circus.start(model.watcher), *await self._circus.pids(model.watcher)):
            if processes.is_alive(pid):
                return Spawned(pid)
        return StartRefused(Diagnosis("it ended at once, or circus could not start it", "see the log circusd"))

    async def _terminate(self, model: ModelPlan, pid: int) -> None:
        """Through circus, so that its hooks see it; directly where circus does not answer."""
        log.info("%s: SIGTERM to %d", model.name, pid)
        try:
            await self._circus.signal(model.watcher, signal.SIGTERM, pid)
        except CircusError as error:
            log.warning("%s: circus did not pass SIGTERM on: %s", model.name, error)
            if processes.is_started_by(self._parent, pid):  # else it is gone, and the number perhaps a stranger's
                processes.terminate(pid)

    async def _clean_up(self, model: ModelPlan, pid: int) -> None:
        """Until nothing of the session is left: one that still has a GPU's memory is not to meet its successor."""
        said = False
        while (runs := self._runs(pid)) or (left := processes.leftovers(pid)):
            if not runs:
                if not said:
                    log.warning("%s: ending what process %d left: %s", model.name, pid, [each.pid for each in left])
                    said = True
                processes.kill_all(left)
            await asyncio.sleep(_PAUSE)
        await self._patiently(lambda: self.settle(model), model)
        await self._ground.wait_free(model, pid)

    def _runs(self, pid: int) -> bool:
        return processes.is_alive(pid) and processes.is_started_by(self._parent, pid)

    async def refit(self, models: Iterable[str]) -> None:
        """Have circus take note of a new plan: at once where it can, for each of the models before its next start."""
        self._unfit.update(models)
        deadline = time.monotonic() + PERSISTENCE
        while time.monotonic() < deadline:
            try:
                return await self._circus.refit()
            except CircusError as error:
                log.warning("circus does not take note of the new plan yet: %s", error)
            await asyncio.sleep(_PAUSE * 5)
        return None

    async def settle(self, model: ModelPlan) -> None:
        """Have circus take note that the process is gone, so that `circusctl status` agrees and `start` has effect."""
        deadline = time.monotonic() + _SETTLING
        while time.monotonic() < deadline:
            if any(map(processes.is_alive, await self._circus.pids(model.watcher))):
                return  # somebody started it anew meanwhile
            status = (await self._circus.status()).get(model.watcher)
            if status == "stopped":
                return
            if status == "active":
                await self._circus.stop(model.watcher)
            await asyncio.sleep(_PAUSE / 2)
        raise CircusError("its watcher does not come to rest")

    async def _patiently(self, work: Callable[[], Awaitable[None]], model: ModelPlan) -> None:
        deadline = time.monotonic() + PERSISTENCE
        while time.monotonic() < deadline:
            try:
                return await work()
            except CircusError as error:
                log.warning("%s: circus does not see yet that it is stopped: %s", model.name, error)
            await asyncio.sleep(_PAUSE * 5)
        return None
