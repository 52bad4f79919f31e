"""What engines stand on, watched around each of them: nothing is missing before its start, its memory is back after it.

Rules: looking never blocks the loop and never takes longer than its time; where the GPUs cannot be looked at, they are
not in question. A GPU is given on when the memory that an engine had of it is back: when as little is in use as before
its start, not counting what other processes that live have, or enough is free for the same engine again (not every
driver tells who has what). An engine of the simulator takes none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vllm_circus.gpu import Gpu, NoDriver, list_gpus, list_holders
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.paths import Instance
from vllm_circus.plan.memory import GIB
from vllm_circus.plan.types import ModelPlan
from vllm_circus.supervise.proc import read_process

from .aside import aside
from .preflight import Cards, Fault, diagnose_faults, find_faults, lacks, needed_share, tell_holders
from .processes import is_alive

log = logging.getLogger(__name__)

#: Seconds for one look; a driver that is asleep takes some.
_LOOK_WITHIN = 8.0
_PAUSE = 0.5
#: Bytes that may be in use beyond what was before: drivers keep a little.
_NEARLY = GIB // 2


def look_at_cards() -> Cards | None:
    """The GPUs now; None without a driver. Blocks for as long as NVML does."""
    try:
        return Cards(list_gpus(), list_holders())
    except NoDriver:
        return None


@dataclass(frozen=True)
class Patience:
    """Seconds that a fault which may pass is waited for before a start, and memory after an end."""

    before: float = 10.0
    after: float = 30.0


class Ground:
    """What the engines of one instance stand on."""

    def __init__(
        self,
        instance: Instance,
        look: Callable[[], Cards | None] = look_at_cards,
        patience: Patience = Patience(),
    ) -> None:
        self._instance = instance
        self._look = look
        self._patience = patience
        self._before: dict[str, dict[int, int]] = {}

    async def check(self, model: ModelPlan) -> Diagnosis | None:
        """Why the model cannot start; None where it can. Takes some seconds where that may change in a moment."""
        deadline = time.monotonic() + self._patience.before
        while True:
            cards = await self._cards(model)
            faults = await self._faults(model, cards)
            grave = tuple(fault for fault in faults if not fault.minor)
            if not grave:
                for fault in faults:
                    log.warning("%s: starts all the same: %s; %s", model.name, fault.cause, fault.fix)
                self._before[model.name] = {gpu.index: _nobodys(gpu, cards) for gpu in cards.gpus} if cards else {}
                return None
            if not all(fault.passing for fault in grave) or time.monotonic() > deadline:
                why = diagnose_faults(grave)
                log.warning("%s: %s", model.name, why.cause)
                return why
            await asyncio.sleep(_PAUSE)

    async def wait_free(self, model: ModelPlan, pid: int) -> None:
        """Until the memory of the GPUs that session `pid` of the model had is back, or it is clear that it is not."""
        deadline = time.monotonic() + self._patience.after
        while cards := await self._cards(model):
            held = [
                gpu for gpu in cards.gpus if gpu.index in (model.gpus or ()) and self._is_held(model, pid, gpu, cards)
            ]
            if not held:
                return
            if time.monotonic() > deadline:
                self._tell(model, held, cards)
                return
            await asyncio.sleep(_PAUSE)

    async def _cards(self, model: ModelPlan) -> Cards | None:
        if model.engine == "simulator" or not model.gpus:
            return None
        try:
            return await aside("the GPUs", self._look, _LOOK_WITHIN)
        except Exception as error:  # whatever it is, no engine is kept from starting by it
            log.warning("%s: the GPUs cannot be looked at: %s", model.name, _words(error))
            return None

    async def _faults(self, model: ModelPlan, cards: Cards | None) -> tuple[Fault, ...]:
        try:
            return await aside("a pre-flight", partial(find_faults, model, self._instance, cards), _LOOK_WITHIN)
        except Exception as error:  # a file system that hangs, mostly; whatever it is, see above
            log.warning("%s: what it needs cannot be looked at: %s", model.name, _words(error))
            return ()

    def _is_held(self, model: ModelPlan, pid: int, gpu: Gpu, cards: Cards) -> bool:
        if any((found := read_process(each.pid)) and found.session == pid for each in cards.holders.get(gpu.index, ())):
            return True
        before = self._before.get(model.name, {}).get(gpu.index)
        if gpu.memory_used is None or _nobodys(gpu, cards) <= (before or 0) + _NEARLY:
            return False
        if needed_share(model) is None:
            return before is not None
        return lacks(model, gpu) > 0

    def _tell(self, model: ModelPlan, held: list[Gpu], cards: Cards) -> None:
        for gpu in held:
            log.warning(
                "%s: %.1f GiB of GPU %d are still in use %g s after its end: %s",
                model.name,
                (gpu.memory_used or 0) / GIB,
                gpu.index,
                self._patience.after,
                tell_holders(cards.holders.get(gpu.index, ())) or "nobody tells by whom",
            )


def _nobodys(gpu: Gpu, cards: Cards) -> int:
    """Bytes in use that no living process has, as far as the driver tells: its own, and those of the dead."""
    living = (each.memory or 0 for each in cards.holders.get(gpu.index, ()) if is_alive(each.pid))
    return max(0, (gpu.memory_used or 0) - sum(living))


def _words(error: Exception) -> str:
    return f"no answer within {_LOOK_WITHIN:g} s" if isinstance(error, TimeoutError) else repr(error)
