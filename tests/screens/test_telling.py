"""The monitors as lines, one after the other."""

from __future__ import annotations

from dataclasses import replace

from tests.screens.drawn import entries, feed, logged, models, numbered, text, watching
from tests.view.pictures import COUNTS, MODELS, NOW, OUTLINE
from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.screens.events import Event, Gone, Planned, Tick
from vllm_circus.screens.state import OVERVIEW, Monitor
from vllm_circus.screens.telling import tell


def told(state: Monitor, *events: Event) -> list[str]:
    return text(tell(state, feed(state, *events)))


def test_the_beginning_says_how_to_leave_and_how_all_is() -> None:
    lines = told(Monitor("ipc://x"), Tick(NOW), Planned(OUTLINE, 1, NOW), MODELS, logged(*entries("proxy", "began")))
    assert lines == [
        "shown line by line; Enter or Ctrl-C leaves",
        "proxy on http://127.0.0.1:8000/v1",
        "qwen: ready",
        "coder: loading (loading weights)",
        "embed: failed (CUDA out of memory)",
        "old: stopped",
        "began",
    ]


def test_no_more_than_the_last_lines_are_told_at_the_beginning() -> None:
    lines = told(Monitor("ipc://x"), Tick(NOW), Planned(OUTLINE, 1, NOW), logged(*numbered(50)))
    assert [line for line in lines if line.startswith("line ")] == [f"line {at}" for at in range(40, 50)]


def test_only_what_changed_is_told() -> None:
    state = watching()
    assert told(state, MODELS) == []
    done = replace(MODELS.models[1], state=State.READY, phase="")
    assert told(state, models(MODELS.models[0], done)) == ["coder: ready"]


def test_a_countdown_is_no_news() -> None:
    waits = [ModelState("qwen", State.BACKOFF, f"it died; next try in {left} s", fix="look") for left in (2, 1)]
    state = watching("proxy", models(waits[0]))
    assert told(state, models(waits[1])) == []


def test_traffic_is_told_every_ten_seconds_of_those_that_have_some() -> None:
    state = watching("proxy", Tick(NOW + 1))
    assert told(state, COUNTS, Tick(NOW + 2)) == []
    assert told(state, Tick(NOW + 10)) == [
        "qwen: 3 in flight, 0 waiting, 312 tokens/s, first token -, 1204 requests, 2 errors"
    ]


def test_lines_of_several_models_are_told_apart() -> None:
    assert told(watching(OVERVIEW), logged(*entries("qwen", "hello"), *entries("proxy", "no"))) == ["qwen  | hello"]
    assert told(watching("qwen"), logged(*entries("qwen", "hello"))) == ["hello"]


def test_no_line_is_told_twice_or_lost() -> None:
    state = watching("proxy", logged(*entries("proxy", "one")))
    assert told(state, logged(*entries("proxy", "two")), logged(*entries("proxy", "three"))) == ["two", "three"]


def test_the_end_of_the_set_is_told_once() -> None:
    state = watching()
    assert told(state, Gone()) == ["the set does not run any more"]
    assert told(feed(state, Gone()), Gone()) == []
