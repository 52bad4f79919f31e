"""Faults of engines: they crash at once, hang, load for long, are killed. The others are not to notice."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from tests.chaos.census import Census
from tests.chaos.clients import answers, states
from tests.chaos.ground import Ground, Notes, awaited, ground, lives, post, seconds_until, session_of
from tests.e2e.conftest import await_that

#: Seconds for which an engine that crashes at once is watched, and starts that are owed at most within them.
LOOP = 120.0
STARTS = 6
#: Seconds until one that hangs is out of the routes, and until it is back.
OUT, BACK = 10.0, 30.0
#: Seconds without a step that make the third victim hang, and seconds that noticing it may take beyond.
HANG_AFTER, NOTICE = 8.0, 6.0
#: Seconds of a long load; longer than the silence that ends an engine which was ready. How far Retry-After may be off.
LOAD, OFF = 60.0, 2.0
#: Seconds until nothing is left of a killed server's tree.
GONE = 10.0
_SHORT = {"sim-load-seconds": 0.3}


def crash_loop(notes: Notes, loop: float = LOOP) -> None:
    """An engine that exits 3 at once, one that gives up after three tries, and one beside them that serves."""
    impatient = {"first_delay": 0.5, "max_tries": 3}
    models: list[dict[str, Any]] = [
        {"name": "calm", "args": _SHORT},
        {"name": "looping", "args": {"sim-exit-now": 3}},
        {"name": "lost", "args": {"sim-exit-now": 3}, "restart": impatient},
    ]
    with ground(models) as place:
        place.up("calm")
        calm = place.pid("calm")
        with place.traffic("calm") as traffic:
            begins = awaited(lambda: _starts(place, "looping"))
            gave_up = seconds_until(lambda: states(place.port).get("lost") == "failed", 30.0)
            time.sleep(max(0.0, begins[0] + loop - time.time()))  # nothing is to happen: there is no event for that
            starts = [start for start in _starts(place, "looping") if start <= begins[0] + loop]
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        notes.say(f"{len(starts)} starts in {loop:g} s, {', '.join(f'{gap:.1f}' for gap in gaps)} s apart")
        notes.that(2 <= len(starts) <= STARTS, f"owed at most {STARTS} starts")
        notes.that(gaps and gaps[0] < 5.0, "the first restart is not at once")
        notes.that(all(later > earlier for earlier, later in pairwise(gaps)), "the pauses do not grow")
        notes.time("three tries: `failed`", gave_up, 30.0)
        said = place("why", "lost").stdout
        notes.that(len(_starts(place, "lost")) == 3 and "exit code 3" in said, f"`why` says {said!r}")
        notes.whole(traffic, "the other model")
        notes.that(place.pid("calm") == calm, "the other model was restarted")


def _starts(place: Ground, model: str) -> list[float]:
    return [line.at.timestamp() for line in place.log("health") if f"INFO {model}: queued -> loading" in line.text]


def hung_server(notes: Notes) -> None:
    """One API server that was stopped, one that answers no probe, one that is healthy and makes no step."""
    models: list[dict[str, Any]] = [
        {"name": "calm", "args": _SHORT},
        {"name": "stopped", "args": _SHORT},
        {"name": "silent", "args": {**_SHORT, "sim-faults": True}},
        {"name": "stuck", "args": {**_SHORT, "sim-faults": True}, "probe": {"hang_after": HANG_AFTER}},
    ]
    with ground(models) as place:
        place.up(*(model["name"] for model in models))
        ports = {model["name"]: model["port"] for model in yaml.safe_load(place.file.read_text())["models"]}
        calm = place.pid("calm")
        with place.traffic("calm") as traffic:
            watches = [
                _Watch(place, "stopped", lambda pid: os.kill(pid, signal.SIGSTOP)),
                _Watch(place, "silent", lambda _: post(ports["silent"], "/sim/fault", name="health-silent")),
                _Watch(place, "stuck", lambda _: post(ports["stuck"], "/sim/fault", name="stuck"), ask=True),
            ]
            for watch in watches:
                watch.join()
        stopped, silent, stuck = watches
        notes.time("SIGSTOP: out of the routes", stopped.out, OUT)
        notes.time("back", stopped.back, BACK)
        notes.time("health page silent: out", silent.out, OUT)
        notes.time("back", silent.back, BACK)
        notes.time(f"no step, hang_after {HANG_AFTER:g} s: out", stuck.out, HANG_AFTER + NOTICE)
        notes.time("back", stuck.back, BACK)
        notes.whole(traffic, "the other model")
        notes.that(place.pid("calm") == calm, "the other model was restarted")


class _Watch(threading.Thread):
    """Hits one model, and measures until it is out of the routes, and until it is back by another process."""

    def __init__(self, place: Ground, model: str, hit: Any, *, ask: bool = False) -> None:
        super().__init__()
        self._place, self._model, self._hit, self._ask = place, model, hit, ask
        self.out: float | None = None
        self.back: float | None = None
        self.start()

    def run(self) -> None:
        old = self._place.pid(self._model)
        began = time.monotonic()
        self._hit(old)
        if self._ask:  # a request that runs, and makes no step
            threading.Thread(target=answers, args=(self._place.port, self._model, BACK)).start()
        self.out = seconds_until(lambda: states(self._place.port).get(self._model, "ready") != "ready", BACK)
        if seconds_until(lambda: self._place.is_back(self._model, old), BACK + 5.0) is not None:
            self.back = time.monotonic() - began


@dataclass(frozen=True)
class _Told:
    """An answer while it loads: when, and what Retry-After says."""

    at: float
    status: int
    retry_after: float | None
    text: str


def slow_load(notes: Notes, load: float = LOAD) -> None:
    """A long load, twice: nothing known the first time, the time of the first one known the second time."""
    models = [{"name": "calm", "args": _SHORT}, {"name": "slow", "args": {"sim-load-seconds": load}}]
    with ground(models) as place:
        place.up("calm")
        with place.traffic("calm") as traffic:
            first = awaited(lambda: place.pid("slow"))
            told, took = _load(place, load, first)
            notes.time(f"load of {load:g} s: ready", took, load + 10.0)
            _judge_refusals(notes, told)
            notes.say(f"told meanwhile: {told[len(told) // 2].text}")
            os.kill(first, signal.SIGKILL)
            second = awaited(lambda: (pid := place.pid("slow")) != first and pid)
            told, took = _load(place, load, second)
        ended = time.monotonic()
        notes.that(took is not None, "the second load does not end")
        _judge_refusals(notes, told)
        off = max((abs(one.at + (one.retry_after or 0.0) - ended) for one in told), default=-1.0)
        notes.say(f"second load: Retry-After off by {off:.1f} s at most, in {len(told)} answers")
        notes.that(0.0 <= off <= OFF, f"Retry-After: owed within {OFF:g} s of the truth")
        notes.that(place.pid("slow") == second, "killed while it loaded")
        notes.whole(traffic, "the other model")


def _load(place: Ground, load: float, pid: int) -> tuple[list[_Told], float | None]:
    """What clients are told until it is ready, a second apart, and how long that took; None where it is not."""
    told: list[_Told] = []
    began = time.monotonic()
    while (took := time.monotonic() - began) < load + 30.0:
        one = _ask(place.port, "slow")
        if one.status == 200:
            return told, took
        assert lives(pid), "the loading server is gone"
        if states(place.port).get("slow") == "loading":
            told.append(one)
        time.sleep(0.2 if took > load - 1.0 else 1.0)
    return told, None


def _judge_refusals(notes: Notes, told: list[_Told]) -> None:
    odd = [one for one in told if one.status != 503 or one.retry_after is None]
    notes.that(told and not odd, f"answers that are not 503 with Retry-After: {odd[:1]}")
    phases = sum("is loading: " in one.text for one in told)
    notes.that(phases >= len(told) - 3, f"{phases} of {len(told)} answers tell the phase")  # the first words take time


def _ask(port: int, model: str) -> _Told:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    at = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return _Told(at, answer.status, None, "")
    except urllib.error.HTTPError as error:
        header = error.headers.get("Retry-After")
        text = json.loads(error.read())["error"]["message"]
        return _Told(at, error.code, None if header is None else float(header), text)


def server_killed(notes: Notes) -> None:
    """kill -9 of the API server alone: what it started has to go before another set of it comes."""
    models: list[dict[str, Any]] = [
        {"name": "calm", "args": _SHORT},
        {"name": "hit", "args": {**_SHORT, "sim-orphan-seconds": 60, "tensor-parallel-size": 2}},
    ]
    with ground(models) as place:
        ports = frozenset(str(model["port"]) for model in yaml.safe_load(place.file.read_text())["models"])
        place.up("calm", "hit")
        pid = place.pid("hit")
        tree = session_of(pid)
        with place.traffic("calm") as traffic, Census(ports) as census:
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            gone = seconds_until(lambda: not any(map(lives, tree)), 2 * GONE)
            await_that(lambda: place.is_back("hit", pid))
            back = time.monotonic() - began
        notes.time(f"its tree of {len(tree)} processes gone", gone, GONE)
        notes.time("back", back, GONE)
        notes.that(not census.doubles, "two API servers at once")
        notes.say(f"{len(census.doubles)} double starts")
        notes.whole(traffic, "the other model")
