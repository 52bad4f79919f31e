"""No request hides in another one: thousands of doubtful requests, one strict engine, and canaries behind each."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvloop

from tests.proxy.canaries import Client, Engine, Seen
from tests.proxy.conftest import Start, a_model
from tests.proxy.smuggling_cases import HIDDEN, HIDDEN_REQUEST, MARK, Case, Owed, all_cases

#: Clients at a time.
_CLIENTS = 24


def _pieces(raw: bytes, number: int) -> list[bytes]:
    """Every second case comes in one piece, the others cut within their head, their framing and their end."""
    if number % 2:
        return [raw]
    places = sorted({0, len(raw) // 3, raw.find(b"\r\n\r\n") + 3, len(raw) - len(HIDDEN_REQUEST) - 2, len(raw)})
    return [raw[begin:end] for begin, end in itertools.pairwise(places) if begin >= 0]


async def _try(case: Case, number: int, port: int) -> str:
    """Send one case with a canary behind it; returns what was wrong with the answers, or nothing."""
    mark, after = b"%06d" % number, b"after-%06d" % number
    client = await Client.open(port)
    try:
        raw = (case.raw + HIDDEN_REQUEST if case.owed is Owed.REFUSED else case.raw).replace(MARK, mark)
        await client.send(_pieces(raw, number))
        answer = await client.read()
        if case.owed is Owed.TAKEN:
            return f"it got {answer}" if answer.case != mark.decode() else await client.canary(after)
        if not 400 <= answer.status < 600 or b"x-vllm-circus-error" not in answer.fields:
            return f"it got {answer}"
        if answer.closes:
            rest = await client.rest()
            return f"after the refusal came {rest!r}" if rest else ""
        return "the connection stays" if case.owed is Owed.REFUSED else await client.canary(after)
    except (OSError, EOFError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client.writer.close()


async def _run(cases: list[Case], proxy: int, seen: Seen) -> list[str]:
    """Try every case; returns what was wrong."""
    faults: list[str] = []
    waiting = iter(enumerate(cases))

    async def work(name: int) -> None:
        steady = await Client.open(proxy)
        for number, case in waiting:
            wrong = await _try(case, number, proxy) or await steady.canary(b"steady-%d-%d" % (name, number))
            wrong = wrong or _at_the_engine(case, seen.bodies.get(b"%06d" % number, []))
            if wrong:
                faults.append(f"{case.name} ({case.owed.name}): {wrong}")
        steady.writer.close()

    await asyncio.gather(*map(work, range(_CLIENTS)))
    return faults


def _at_the_engine(case: Case, bodies: list[bytes]) -> str:
    if case.owed is not Owed.TAKEN:
        return f"the engine saw it: {bodies}" if bodies else ""
    same = len(bodies) == 1 and re.sub(rb"\d{6}", MARK, bodies[0]) == re.sub(rb"\d{6}", MARK, case.body)
    return "" if same else f"the engine saw {bodies}"


@pytest.fixture(scope="module")
def cases() -> Iterator[list[Case]]:
    made = all_cases()
    yield made
    made.clear()


def test_there_are_more_than_two_thousand_cases_and_no_two_are_one(cases: list[Case]) -> None:
    assert len({case.raw for case in cases}) == len(cases) > 2000
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []


def test_no_request_hides_in_another_one(start: Start, cases: list[Case]) -> None:
    async def run() -> tuple[Seen, list[str]]:
        seen = Seen()
        server = await asyncio.get_running_loop().create_server(lambda: Engine(seen), "127.0.0.1", 0)
        worker = start(a_model("alpha", server.sockets[0].getsockname()[1]))
        faults = await _run(cases, worker.port, seen)
        server.close()
        with suppress(ProcessLookupError):
            worker.process.kill()
        return seen, faults

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen, faults = runner.run(run())
    assert faults == []
    assert seen.doubtful == []
    assert [number for number in seen.bodies if number.startswith(HIDDEN)] == []
    assert len(seen.bodies[b""]) == 0
    assert max(map(len, seen.bodies.values())) == 1, "a request came twice"
