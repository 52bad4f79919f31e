"""The row of long duration: streams without a pause over three engines, of which one is killed every 15 seconds."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from time import monotonic

from tests.torture.load import run_stream
from tests.torture.stage import MIB, MODELS, Effort, Result, Row, Stage, stage, start_engine, until
from tests.torture.wire import Kind, Order

_STREAMS = 200
_KILL_EVERY = 15.0
#: Memory is compared with what it was then.
_SETTLED = 120.0


async def _soak(effort: Effort) -> Result:
    seconds, settled = effort.soak_seconds, min(_SETTLED, effort.soak_seconds / 4)
    streams, pace, every = effort.of(_STREAMS, 20), effort.of(100, 20), min(_KILL_EVERY, seconds / 4)
    kinds: Counter[Kind] = Counter()
    bad: list[str] = []
    async with stage(len(MODELS)) as made:
        files, end = made.files(), monotonic() + seconds
        seeds = itertools.count()
        working = [asyncio.create_task(_stream_on(made.port, seeds, pace, end, kinds, bad)) for _ in range(streams)]
        killing = asyncio.create_task(_kill_on(made, every, end))
        await asyncio.sleep(settled)
        base = most = made.rss()
        while monotonic() < end:
            await asyncio.sleep(1)
            most = max(most, made.rss())
        await asyncio.gather(*working)
        kills = await killing

        async def back() -> bool:
            return made.files() <= files

        await until(back, 10)
        left, wrong = made.files() - files, made.healthy()
    growth = most / base - 1
    corrupt = kinds[Kind.CORRUPT] + kinds[Kind.FALSE]
    told = ", ".join(f"{kinds[kind]:,} {kind.name.lower()}" for kind in Kind)
    figure = f"{kills} kills; {told}; memory {growth:+.1%} of {base / MIB:.0f} MiB, open files {left:+d}"
    figure += "".join(f"; {each}" for each in bad[:2])
    passed = not corrupt and not kinds[Kind.NOTHING] and kinds[Kind.WHOLE] > 0 and growth < 0.1 and left <= 0
    return Result(figure + wrong, passed and not wrong)


async def _stream_on(
    port: int, seeds: Iterator[int], pace: int, end: float, kinds: Counter[Kind], bad: list[str]
) -> None:
    """Streams one after the other, each 2 to 6 seconds long, to one engine after the other."""
    chance = random.Random(next(seeds))
    while monotonic() < end:
        seed = next(seeds)
        outcome = await run_stream(port, Order(chance.randint(20, 60), pace, seed), MODELS[seed % len(MODELS)])
        kinds[outcome.kind] += 1
        if outcome.kind in {Kind.CORRUPT, Kind.FALSE}:
            bad.append(f"{outcome.kind.name}: {outcome.raw[-300:]!r}")
        if outcome.kind is not Kind.WHOLE:
            await asyncio.sleep(0.2)  # as its Retry-After would have it, only sooner


async def _kill_on(made: Stage, every: float, end: float) -> int:
    """Kill an engine again and again, and start it anew on its port a second later."""
    chance, kills = random.Random(os.getpid()), 0
    while monotonic() + every < end:
        await asyncio.sleep(every)
        number = chance.randrange(len(made.engines))
        engine = made.engines[number]
        engine.kill()
        kills += 1
        await asyncio.sleep(1)
        made.engines[number] = await asyncio.to_thread(start_engine, engine.port)
    return kills


ROWS = (
    Row(
        "soak",
        f"{_STREAMS} streams, 3 engines, one killed every {_KILL_EVERY:.0f} s",
        "0 corrupt or falsely complete; < 10 % more memory after minute 2; open files as before",
        _soak,
    ),
)
