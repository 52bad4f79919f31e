"""Waiting until models are where an operator wants them, and telling how it goes.

The rules of what counts as done are pure; `wait_for` reads the bus and talks to stderr.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING

from vllm_circus.bus.messages import CountsMessage, ModelsMessage, ModelState, Verb
from vllm_circus.cli.common import instance_words, running_pid, say, words
from vllm_circus.cli.lastwords import proxy_words
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.view.units import duration

if TYPE_CHECKING:
    from vllm_circus.paths import Instance

States = Mapping[str, ModelState]

#: Seconds without a word of the health plugin after which nobody can say what becomes of a wish; circus has started
#: it again long before, if it can be.
SILENCE = 30.0


#: Seconds that the first proxy worker may take, and the next one where the last one has died: it needs one or two.
PROXY_PATIENCE = 30.0


class Verdict(Enum):
    """What has become of a wish for one model."""

    WAITING = auto()
    DONE = auto()
    FAILED = auto()


def judge_start(before: ModelState | None, now: ModelState) -> Verdict:
    """A start: done when ready, given up when it has failed twice in a row.

    `before` is the state at the time of the wish (None where nobody told): as long as nothing has changed since, an
    old failure says nothing.
    """
    if now.state is State.READY:
        return Verdict.DONE
    if before is not None and (before.state, before.since_at) == (now.state, now.since_at):
        return Verdict.WAITING
    hopeless = now.state is State.BACKOFF and now.tries >= 2
    stopped = now.state is State.STOPPED and before is not None
    return Verdict.FAILED if now.state is State.FAILED or hopeless or stopped else Verdict.WAITING


def judge_restart(before: ModelState | None, now: ModelState) -> Verdict:
    """A restart: a start, counted only from when the process of the time of the wish is gone."""
    same = before is not None and before.started_at is not None and before.started_at == now.started_at
    return Verdict.WAITING if same else judge_start(before, now)


def judge_stop(before: ModelState | None, now: ModelState) -> Verdict:
    """A stop: done when stopped, given up when somebody has started another process meanwhile."""
    if now.state is State.STOPPED:
        return Verdict.DONE
    another = before is not None and now.started_at not in {None, before.started_at}
    return Verdict.FAILED if another and now.state in {State.LOADING, State.READY} else Verdict.WAITING


def judge_of(verb: Verb) -> Callable[[ModelState | None, ModelState], Verdict]:
    """The rule for a command."""
    return {"start": judge_start, "stop": judge_stop, "restart": judge_restart}[verb]


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
            _check_hope(instance, heard)
            if proxy is not None:
                proxy.check()
            if deadline is not None and time.monotonic() > deadline:
                raise NotRunning(
                    f"not there after {timeout:g} s: {', '.join(missing)}", hint=f"see `{words(instance, 'status')}`"
                )
    finally:
        report.close()
    return failed


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


def check_failed(instance: Instance, failed: States, wanted: str = "ready") -> None:
    """Raises NotRunning where models did not become what was `wanted`, saying which and why."""
    if not failed:
        return
    reasons = [
        f"{name} is not {wanted}: {clean(state.reason) or state.state}" for name, state in sorted(failed.items())
    ]
    logs = words(instance, f"logs {' '.join(sorted(failed))}")
    raise NotRunning("\n       ".join(reasons), hint=f"see `{logs}`")


def _check_hope(instance: Instance, heard: float) -> None:
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
