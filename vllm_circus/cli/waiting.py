"""Waiting until models are where an operator wants them, and telling how it goes.

What counts as done: `view.goals`. `wait_for` reads the bus and talks to stderr.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from vllm_circus.bus.messages import CountsMessage, ModelsMessage, ModelState
from vllm_circus.cli.common import instance_words, running_pid, say, words
from vllm_circus.cli.lastwords import proxy_words
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.view.goals import Verdict
from vllm_circus.view.units import duration

if TYPE_CHECKING:
    from vllm_circus.paths import Instance

States = Mapping[str, ModelState]

#: Seconds without a word of the health plugin after which nobody can say what becomes of a wish; circus has started
#: it again long before, if it can be.
SILENCE = 30.0


#: Seconds for which a command that is about something else waits for the states.
_BRIEFLY = 1.5
#: Seconds that the first proxy worker may take, and the next one where the last one has died: it needs one or two.
PROXY_PATIENCE = 30.0


def wait_for(
    instance: Instance,
    names: Iterable[str],
    judge: Callable[[ModelState | None, ModelState], Verdict],
    *,
    before: States,
    timeout: float | None,
    proxy: ProxyWatch | None = None,
) -> dict[str, ModelState]:
    """Wait until `judge` has a verdict on every model, and with `proxy` until that serves; returns those that failed.

    Raises:
        NotRunning: circusd went away, the health plugin is silent, the proxy does not serve, or `timeout` seconds were
            over.
    """
    from vllm_circus.bus.subscribe import follow

    waiting, report = list(names), Reporter(sys.stderr.isatty())
    failed: dict[str, ModelState] = {}
    deadline = None if timeout is None else time.monotonic() + timeout
    heard = time.monotonic()
    try:
        for message in follow(instance, 0.25):
            if isinstance(message, ModelsMessage):
                heard = time.monotonic()
                states = {state.name: state for state in message.models if state.name in waiting}
                report.show(states, time.time())
                verdicts = {name: judge(before.get(name), state) for name, state in states.items()}
                failed |= {name: states[name] for name, verdict in verdicts.items() if verdict is Verdict.FAILED}
                waiting = [name for name in waiting if verdicts.get(name, Verdict.WAITING) is Verdict.WAITING]
            elif isinstance(message, CountsMessage) and proxy is not None:
                proxy.hear(message)
            missing = [*waiting, *(["the proxy"] if proxy is not None and not proxy.serves else [])]
            if not missing or (failed and not waiting):
                return failed
            check_hope(instance, heard)
            if proxy is not None:
                proxy.check()
            if timeout is not None and deadline is not None and time.monotonic() > deadline:
                raise late(instance, timeout, missing, failed)
    finally:
        report.close()
    return failed


def late(instance: Instance, timeout: float, missing: Iterable[str], failed: States) -> NotRunning:
    """The error where time is over: who is `missing`, and who had failed before, and why."""
    before = [f"{name} is {state.state}: {_reason(state)}" for name, state in sorted(failed.items())]
    told = [f"not there after {timeout:g} s: {', '.join(missing)}", *before]
    return NotRunning("\n       ".join(told), hint=f"see `{words(instance, 'status')}`")


def _reason(state: ModelState) -> str:
    return clean(state.reason) or state.state


def wait_gone(instance: Instance, names: Iterable[str], *, timeout: float | None) -> None:
    """Wait until models that left the plan are gone. Raises NotRunning as `wait_for` does."""
    from vllm_circus.bus.subscribe import follow

    waiting = set(names)
    deadline = None if timeout is None else time.monotonic() + timeout
    heard = time.monotonic()
    for message in follow(instance, 0.25) if waiting else ():
        if isinstance(message, ModelsMessage):
            heard = time.monotonic()
            waiting &= {state.name for state in message.models}
            if not waiting:
                return
        check_hope(instance, heard)
        if deadline is not None and time.monotonic() > deadline:
            raise NotRunning(f"not gone after {timeout:g} s: {', '.join(sorted(waiting))}")


class ProxyWatch:
    """Whether somebody serves: one living proxy worker is enough. `patience` in seconds, from now on."""

    def __init__(self, instance: Instance, patience: float = PROXY_PATIENCE) -> None:
        self.serves = False
        """Whether a worker lived when its plugin last spoke."""
        self._instance = instance
        self._patience = patience
        self._alone_since = time.monotonic()
        self._told = False

    def hear(self, counts: CountsMessage) -> None:
        """The stats plugin tells which workers live."""
        if self.serves and not counts.workers:
            self._alone_since = time.monotonic()
        self.serves, self._told = bool(counts.workers), True

    def check(self) -> None:
        """Raises NotRunning, with a worker's last words, where none has lived for too long."""
        if self.serves or time.monotonic() - self._alone_since <= self._patience:
            return
        if not self._told:
            hint = f"see `{words(self._instance, 'logs stats')}`"
            raise NotRunning("nobody tells whether the proxy serves: the stats plugin is silent", hint=hint)
        complaint = proxy_words(self._instance)
        raise NotRunning(
            f"nothing is served: no proxy worker stays alive{f': {complaint}' if complaint else ''}",
            hint=f"see `{words(self._instance, 'logs proxy')}`; `{words(self._instance, 'down')}` stops the set",
        )


def current_states(instance: Instance, timeout: float) -> dict[str, ModelState]:
    """What the health plugin says now; empty where it says nothing within `timeout` seconds."""
    from vllm_circus.bus.messages import TOPIC_MODELS
    from vllm_circus.bus.subscribe import latest

    message = latest(instance.health_bus, TOPIC_MODELS, ModelsMessage, timeout)
    return {state.name: state for state in message.models} if message else {}


def crashed(instance: Instance, names: Iterable[str]) -> tuple[ModelState, ...]:
    """Those of the names that have crashed and are not back; none where nothing runs or nobody tells."""
    if running_pid(instance) is None:
        return ()
    states = current_states(instance, _BRIEFLY)
    known = (states[name] for name in names if name in states)
    return tuple(state for state in known if state.state in {State.FAILED, State.BACKOFF} and state.reason)


def check_failed(instance: Instance, failed: States, wanted: str = "ready") -> None:
    """Raises NotRunning where models did not become what was `wanted`, saying which and why."""
    if not failed:
        return
    reasons = [f"{name} is not {wanted}: {_reason(state)}" for name, state in sorted(failed.items())]
    logs = words(instance, f"logs {' '.join(sorted(failed))}")
    raise NotRunning("\n       ".join(reasons), hint=f"see `{logs}`")


def check_hope(instance: Instance, heard: float) -> None:
    """Raises NotRunning where circusd is gone, or where the health plugin, `heard` last then, has been silent too long.

    `heard` is of the steady clock.
    """
    if running_pid(instance) is None:
        raise NotRunning(f"{instance_words(instance)} ended meanwhile", hint=f"see `{words(instance, 'logs circusd')}`")
    if time.monotonic() - heard > SILENCE:
        raise NotRunning("the health plugin is silent", hint=f"see `{words(instance, 'logs health')}`")


class Reporter:
    """Tells how models come along: a line for each change, and on a terminal a last line that counts the seconds."""

    def __init__(self, terminal: bool, tell: Callable[[str], None] = say) -> None:
        self._terminal = terminal
        self._tell = tell
        self._told: dict[str, str] = {}
        self._ticking = False

    def show(self, states: States, now: float) -> None:
        """Tell what is new about these models; `now` is wall-clock seconds."""
        news = [(name, text) for name, text in _sentences(states) if self._told.get(name) != text]
        if news:
            self.close()
        for name, text in news:
            self._told[name] = text
            self._tell(f"{name}: {text}")
        if self._terminal:
            self._tick(states, now)

    def close(self) -> None:
        """Clear the line that counts."""
        if self._ticking:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._ticking = False

    def _tick(self, states: States, now: float) -> None:
        coming = [f"{s.name} {s.state} {duration(now - s.since_at)}" for s in states.values() if not s.state.settled]
        if coming:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{', '.join(coming)[:width]}")
            sys.stderr.flush()
            self._ticking = True


def _sentences(states: States) -> Iterator[tuple[str, str]]:
    for name, state in states.items():
        detail = state.phase if state.state is State.LOADING else state.reason
        yield name, f"{state.state}{f' ({clean(detail)})' if detail else ''}"
