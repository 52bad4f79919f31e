"""What the routes share: the served names, the limits of a request, and its way through the engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .console import Console
from .engine import Engine, EngineDead, Sequence
from .faults import ActiveFaults, Fault
from .metrics import Metrics
from .options import Lora, Options
from .replies import SHUTTING_DOWN, ApiError, bad_request, engine_dead, invalid, shown
from .text import MAX_CHARACTERS, Answer, Vocabulary

VERSION = "0.32.0"
"""The version of the real server that this one behaves like."""

FINGERPRINT = f"vllm-{VERSION}-simulated"


@dataclass(slots=True)
class State:
    """The server while it runs: everything that the routes read and change."""

    options: Options
    engine: Engine
    metrics: Metrics
    faults: ActiveFaults
    console: Console
    kill_engine: Callable[[], None]
    order: Callable[[bytes], Awaitable[str]]
    answer: Answer
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    loras: dict[str, Lora] = field(default_factory=dict)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    background: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))
    asleep: set[str] = field(default_factory=set)
    weightless: bool = False
    paused: bool = False
    draining: bool = False

    def known_model(self, body: Mapping[str, Any]) -> str:
        """The name that the answer has: the first served name, or the adapter's. Raises ApiError 404 or 400.

        A missing, empty or null model is the served one.
        """
        name = body.get("model")
        if name is not None and not isinstance(name, str):
            raise invalid("string_type", "body.model", "Input should be a valid string", shown(name))
        if not name or name in self.options.names:
            return self.options.names[0]
        if name in self.loras:
            return name
        aliases = f" Valid aliases: {', '.join(self.options.names)}." if len(self.options.names) > 1 else ""
        raise ApiError(404, "NotFoundError", f"The model `{name}` does not exist.{aliases}", "model")

    def check_prompt(self, characters: int, tokens: int) -> None:
        """Refuse a prompt that the context cannot hold."""
        limit = self.options.max_model_len
        head = f"This model's maximum context length is {limit} tokens. However, your prompt contains"
        tail = "Please reduce the length of the input prompt."
        most = limit * MAX_CHARACTERS
        if characters > most:
            why = f"{head} {characters} characters (more than {most} characters, which is the upper bound for {limit}"
            raise bad_request(f"{why} input tokens). {tail}", "input_text", characters)
        if tokens > limit:
            why = f"{head} at least {limit + 1} input tokens, which exceeds this limit even without any output tokens."
            raise bad_request(f"{why} {tail}", "input_tokens", limit + 1)
        if tokens == limit:
            why = f"The decoder prompt (length {tokens}) plus the number of requested output tokens (at least 1) is"
            more = "Make sure that `max_model_len` is no smaller than the number of text tokens (prompt + requested"
            raise bad_request(f"{why} longer than the maximum model length of {limit}. {more} output tokens).")

    def check_limit(self, limit: int | None, name: str = "max_tokens") -> None:
        """Refuse a number of tokens that no answer can have."""
        most = self.options.max_model_len
        if limit is not None and limit > most:
            why = f"{name}={limit} cannot be greater than max_model_len={most}. Please request fewer output tokens."
            raise bad_request(why, name, limit)
        if limit is not None and limit < 1:
            raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)

    def set_fault(self, fault: Fault) -> None:
        """Let a fault hold from now on."""
        self.faults.set(fault)
        if fault.name == "stuck":
            self.engine.freeze("stuck")
        if fault.name == "exit":
            asyncio.get_running_loop().call_later(fault.value or 0.0, self.crash)

    def clear_fault(self, name: str | None) -> None:
        """Let a fault hold no more, or none at all."""
        self.faults.clear(name)
        if name in (None, "stuck"):
            self.engine.thaw("stuck")

    def crash(self) -> None:
        """End without a word, as a process does that is killed; the engine stays behind as an orphan."""
        os._exit(self.options.sim.exit_code)

    def refuse_if_draining(self) -> None:
        """A server that only finishes what it has takes nothing new."""
        if self.draining:
            raise ApiError(500, "InternalServerError", SHUTTING_DOWN)


@dataclass(slots=True)
class Generation:
    """One answer that is being made: `text` of its tokens, and how it ends."""

    state: State
    identity: str
    sequence: Sequence
    stop_reason: str | None

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""
        return self.sequence.reason

    async def parts(self) -> AsyncIterator[tuple[str, bool]]:
        """The text as it is made, and whether it was the last. Raises EngineDead."""
        while True:
            first, after = await self.sequence.more()
            last = after >= self.sequence.limit
            yield self._text(first, after), last
            if last:
                return

    async def whole(self) -> str:
        """The whole text. Raises EngineDead."""
        return self._text(0, await self.sequence.all())

    def _text(self, first: int, after: int) -> str:
        """What the model says; one whose weights were thrown away and not read again says nonsense."""
        return "!" * (after - first) if self.state.weightless else self.state.answer.text(first, after)


@contextlib.contextmanager
def _failing() -> Any:
    try:
        yield
    except EngineDead:
        raise engine_dead() from None


def start(state: State, identity: str, prompt_tokens: int, limit: int | None, stops: object = None) -> Generation:
    """Hand a request to the engine. Without a limit the answer has its usual length and ends by itself."""
    room = max(1, state.options.max_model_len - prompt_tokens)
    tokens = min(room, state.options.sim.tokens if limit is None else limit)
    reason = "stop" if limit is None and tokens < room else "length"
    given = [stops] if isinstance(stops, str) else stops if isinstance(stops, list) else []
    wanted, stopped = state.answer.until(tokens, [stop for stop in given if isinstance(stop, str)])
    with _failing():
        sequence = state.engine.submit(prompt_tokens, max(1, wanted), "stop" if stopped else reason)
    return Generation(state, identity, sequence, stopped)


async def finish(generations: list[Generation]) -> list[str]:
    """The whole texts of several answers that are made at once; a cancelled wait aborts them."""
    try:
        with _failing():
            return [await generation.whole() for generation in generations]
    finally:
        abandon(generations)


def abandon(generations: list[Generation]) -> None:
    """Abort what is not finished: nobody waits for it."""
    for one in generations:
        if one.state.engine.abort(one.sequence):
            one.state.console.say("async_llm.py:798", f"Aborted request {one.identity}.")


async def merged(generations: list[Generation]) -> AsyncGenerator[tuple[int, str, bool], None]:
    """The parts of several answers as they come: index, text, whether it was that one's last. Raises EngineDead."""
    if len(generations) == 1:
        async for text, last in generations[0].parts():
            yield 0, text, last
        return
    queue: asyncio.Queue[tuple[int, str, bool] | EngineDead] = asyncio.Queue()

    async def forward(index: int, generation: Generation) -> None:
        try:
            async for text, last in generation.parts():
                queue.put_nowait((index, text, last))
        except EngineDead as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(forward(index, one)) for index, one in enumerate(generations)]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, EngineDead):
                raise item
            left -= item[2]
            yield item
    finally:
        for task in tasks:
            task.cancel()


def new_id(prefix: str, wanted: str | None = None) -> str:
    """An id for an answer: made of the client's own request id if it sent one."""
    return prefix + (wanted or secrets.token_hex(8))
