"""What a screen is told by files, sockets and the lock of a set."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vllm_circus.errors import NotRunning
from vllm_circus.logline import encode
from vllm_circus.paths import Instance
from vllm_circus.screens import runner
from vllm_circus.screens.events import Event, Gone, Logged, Planned, Tick
from vllm_circus.screens.feed import Feed, need_set, read_set
from vllm_circus.screens.monitor import parts_of, render, show_models, show_proxy, update
from vllm_circus.screens.startup import show_startup
from vllm_circus.screens.state import Monitor
from vllm_circus.screens.telling import tell
from vllm_circus.supervise.lock import hold_lock

PATIENCE = 30.0


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    folders = [short_dir / name for name in ("config", "state", "log", "run")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    return Instance("default", *folders)


def write_plan(instance: Instance, *names: str) -> None:
    models = [
        {
            "name": name,
            "model": f"sim/{name}",
            "names": [name],
            "gpus": None,
            "endpoint": {"host": "127.0.0.1", "port": 8001, "uds": None},
            "enabled": True,
            "watcher": f"model-{name}",
            "adapters": [],
        }
        for name in names
    ]
    plan = {"instance": {"name": "default"}, "source": "m.yaml", "models": models}
    fresh = instance.plan.with_suffix(".new")
    fresh.write_text(json.dumps(plan | {"proxy": {"host": "127.0.0.1", "port": 8000, "workers": 1}}))
    fresh.replace(instance.plan)


def write_log(instance: Instance, part: str, *texts: str) -> None:
    with instance.log(part).open("a") as log:
        log.writelines(encode(datetime.now(UTC), "O", text) for text in texts)


@pytest.fixture
def held(instance: Instance) -> Iterator[ExitStack]:
    """The set runs: closing this ends it."""
    write_plan(instance, "alpha")
    with ExitStack() as stack:
        stack.enter_context(hold_lock(instance))
        yield stack


@pytest.fixture
def feed(instance: Instance, held: ExitStack) -> Iterator[Feed]:
    write_log(instance, "alpha", "old")
    with closing(Feed(instance, need_set(instance), lambda outline: parts_of(outline, ()))) as feed:
        yield feed


def await_event(feed: Feed, wanted: Callable[[Event], bool]) -> list[Event]:
    """Everything up to the wanted event."""
    deadline, seen = time.monotonic() + PATIENCE, []
    for events in feed.events(()):
        seen += events
        if any(map(wanted, events)):
            return seen
        assert time.monotonic() < deadline, seen
    raise AssertionError


def texts(events: list[Event] | tuple[Event, ...]) -> list[str]:
    return [entry.text for event in events if isinstance(event, Logged) for entry in event.entries]


def test_nothing_runs(instance: Instance) -> None:
    for ask in (need_set, show_proxy, show_models, lambda one: show_startup(one, ["alpha"])):
        with pytest.raises(NotRunning) as error:
            ask(instance)
        assert "`vllm-circus up -d`" in error.value.hint
    write_plan(instance, "alpha")
    assert read_set(instance) is None  # a plan that an earlier set left


def test_it_begins_with_the_plan_and_the_last_lines(feed: Feed) -> None:
    first = feed.first()
    assert [type(event) for event in first] == [Tick, Planned, Logged]
    assert texts(first) == ["old"]


def test_lines_that_are_older_than_wanted_are_left_out(instance: Instance, held: ExitStack) -> None:
    write_log(instance, "alpha", "of an earlier set")
    since = datetime.fromtimestamp(time.time() + 60, UTC)
    with closing(Feed(instance, need_set(instance), lambda _: ("alpha",), since)) as feed:
        assert texts(feed.first()) == []


def test_new_lines_come_as_they_are_written(instance: Instance, feed: Feed) -> None:
    write_log(instance, "alpha", "new", 'INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK')
    assert texts(await_event(feed, lambda event: isinstance(event, Logged))) == ["new"]


def test_the_end_of_the_set_is_told_and_so_is_the_next(instance: Instance, feed: Feed, held: ExitStack) -> None:
    held.close()
    await_event(feed, lambda event: isinstance(event, Gone))
    write_plan(instance, "alpha", "beta")
    with hold_lock(instance):
        seen = await_event(feed, lambda event: isinstance(event, Planned))
    (planned,) = [event for event in seen if isinstance(event, Planned)]
    assert [model.name for model in planned.outline.models] == ["alpha", "beta"]


def test_a_reload_is_told_and_new_logs_are_followed(instance: Instance, feed: Feed) -> None:
    write_plan(instance, "alpha", "gamma")
    await_event(feed, lambda event: isinstance(event, Planned))
    write_log(instance, "gamma", "from gamma")
    assert "from gamma" in texts(await_event(feed, lambda event: isinstance(event, Logged)))


def test_a_descriptor_wakes_it_at_once(feed: Feed) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"x")
        began = time.monotonic()
        turns = feed.events((reading,))
        for _ in range(40):
            next(turns)
        assert time.monotonic() - began < 40 * 0.25  # which as many turns take without it
    finally:
        os.close(reading)
        os.close(writing)


def test_where_no_screen_can_be_drawn_lines_are_written(
    instance: Instance, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    with os.fdopen(reading) as keyboard, os.fdopen(writing, "w", buffering=1) as typing:
        keyboard.isatty = lambda: True  # type: ignore[method-assign] # somebody types Enter there
        monkeypatch.setattr("sys.stdin", keyboard)
        typing.write("\n")
        view = runner.View(update, render, lambda state: state.left, tell)
        state = Monitor(instance.control, "alpha")
        runner.run(view, state, runner.Source(instance, feed), full=False)
    assert out.getvalue().splitlines() == [
        "shown line by line; Enter or Ctrl-C leaves",
        "proxy on http://127.0.0.1:8000/v1",
        "old",
    ]


def test_a_guard_that_has_no_hope_ends_it(instance: Instance, held: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def guard(_message: object) -> None:
        raise NotRunning("no hope")

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(NotRunning, match="no hope"):
        show_startup(instance, ["alpha"], guard=guard)
