"""Waiting for a start on a full screen: what `up -d --wait` shows on a terminal.

The rules are those of `waiting`: the same exit codes, the same errors, and whoever reads no screen gets its lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vllm_circus.bus.messages import CountsMessage, ModelsMessage, ModelState
from vllm_circus.cli.common import say, words
from vllm_circus.cli.waiting import ProxyWatch, check_hope, late
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.view.goals import Verdict, judge_start

if TYPE_CHECKING:
    from vllm_circus.paths import Instance
    from vllm_circus.screens.starting import Outcome

#: Seconds for which a failure waits for a decision: somebody may have left the terminal alone, or be a script.
PATIENCE = 60.0


def wants_screen(instance: Instance) -> bool:
    """Whether all three standard streams are a terminal that a screen can be drawn on, and is to be."""
    from vllm_circus.screens.mode import draws

    return sys.stderr.isatty() and draws(instance)


def wait_on_screen(instance: Instance, names: Sequence[str], timeout: float | None) -> dict[str, ModelState]:
    """As `waiting.wait_for` a start, on a full screen; returns those that failed.

    Raises NotRunning where circusd went away, the health plugin is silent, the proxy does not serve, `timeout` seconds
    were over, or somebody left the screen.
    """
    from vllm_circus.screens.startup import show_startup

    outcome = show_startup(instance, names, patience=PATIENCE, guard=StartGuard(instance, names, timeout))
    tell_outcome(names, outcome)
    if outcome.kind == "gone":
        check_hope(instance, time.monotonic())
    if outcome.kind == "left" and (outcome.waiting or outcome.failed):
        late = ", ".join(dict.fromkeys((*outcome.waiting, *outcome.failed)))
        hint = f"the set goes on starting: see `{words(instance, 'status')}`"
        raise NotRunning(f"not waited for: {late}", hint=hint)
    return dict(outcome.failed)


def tell_outcome(names: Sequence[str], outcome: Outcome) -> None:
    """What the screen showed last, for those who read on after it has gone."""
    from vllm_circus.screens.telling import state_words

    for name in names:
        if name in outcome.left_out:
            say(f"{name}: left out, and stopped")
        elif name in outcome.at_rest:
            say(f"{name}: {state_words(outcome.at_rest[name])}")
        elif name not in outcome.failed and name not in outcome.waiting:
            say(f"{name}: {State.READY}")


class StartGuard:
    """Hears every word of the bus, and raises NotRunning where waiting makes no sense: see `wait_on_screen`."""

    def __init__(self, instance: Instance, names: Sequence[str], timeout: float | None) -> None:
        self._instance = instance
        self._timeout = timeout
        self._begun = self._heard = time.monotonic()
        self._proxy = ProxyWatch(instance)
        self._missing = list(names)
        self._failed: dict[str, ModelState] = {}

    def __call__(self, message: ModelsMessage | CountsMessage | None) -> None:
        """Take a word; None where none came."""
        if isinstance(message, ModelsMessage):
            self._heard = time.monotonic()
            verdicts = {told.name: judge_start(None, told) for told in message.models}
            self._missing = [name for name in self._missing if verdicts.get(name) is not Verdict.DONE]
            failed = {name for name in self._missing if verdicts.get(name) is Verdict.FAILED}
            self._failed = {told.name: told for told in message.models if told.name in failed}
        elif message is not None:
            self._proxy.hear(message)
        check_hope(self._instance, self._heard)
        self._proxy.check()
        if self._timeout is not None and time.monotonic() - self._begun > self._timeout:
            waiting = [name for name in self._missing if name not in self._failed]
            missing = [*waiting, *([] if self._proxy.serves else ["the proxy"])]
            raise late(self._instance, self._timeout, missing or self._failed, self._failed)
