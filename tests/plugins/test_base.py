from __future__ import annotations

import asyncio
import gc
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from plugins import gpus
from plugins.base import LogHandler, Plugin
from plugins.gpus import GpuWatch
from vllm_circus import logline
from vllm_circus.gpu import Gpu, NoDriver
from vllm_circus.paths import Instance
from vllm_circus.plan.types import dump_plan

from .conftest import make_plan, until


class Clumsy(Plugin):
    """Fails wherever it can."""

    name = "clumsy"
    done: list[str]

    def open(self) -> None:
        self.done = []
        self.spawn("a task", self._task())

    def beat(self) -> None:
        self.done.append("beat")
        if len(self.done) > 3:
            self.leave()
        raise RuntimeError("beat on purpose")

    def on_event(self, watcher: str, topic: str, message: Any) -> None:
        self.done.append(f"{watcher} {topic} {message}")
        raise RuntimeError("event on purpose")

    def close(self) -> None:
        raise RuntimeError("close on purpose")

    async def _task(self) -> None:
        self.handle_recv((b"watcher.model-a.spawn", b'{"process_pid": 7}'))
        self.handle_recv((b"nonsense", b"{"))
        raise RuntimeError("task on purpose")


@pytest.fixture(autouse=True)
def _root_logger() -> Any:
    """Plugins take the root logger over: give it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def read(path: Path) -> list[logline.LogLine]:
    lines = map(logline.decode, path.read_text().splitlines())
    assert all(lines_ is not None for lines_ in lines)
    return [line for line in map(logline.decode, path.read_text().splitlines()) if line is not None]


@pytest.mark.filterwarnings("ignore:make_current is deprecated:DeprecationWarning")  # circus's own call
def test_nothing_that_raises_ends_a_plugin_or_goes_unsaid(instance: Instance) -> None:
    instance.plan.write_bytes(dump_plan(make_plan(instance)))
    plugin = Clumsy(instance.control, instance.events, 1.0, settings=str(instance.plan))
    plugin.start()
    plugin.stop()  # as circus does at the end
    assert plugin.done == ["beat", "model-a spawn {'process_pid': 7}", "beat", "beat"]
    told = read(instance.log("clumsy"))
    assert plugin.faults == 7
    for what in ("an event of circus", "a task", "a beat", "the end"):
        assert any(line.channel == "E" and line.text.startswith(f"ERROR {what} failed") for line in told)
    assert sum(line.text == "RuntimeError: beat on purpose" for line in told) == 3
    assert any(line.text == "INFO clumsy ends" for line in told)


class Busy(Plugin):
    """Has work under way whenever it ends, and is given more meanwhile."""

    name = "busy"
    begun: list[str]

    def open(self) -> None:
        self.begun = []
        self.spawn("a task", self._task("first"))

    def beat(self) -> None:
        if self.begun:
            self.leave()

    async def _task(self, name: str) -> None:
        self.begun.append(name)
        try:
            await asyncio.sleep(60)
        finally:
            self.spawn("another task", self._task("second"))
            await asyncio.sleep(0.01)


@pytest.mark.filterwarnings("ignore:make_current is deprecated:DeprecationWarning")  # circus's own call
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_what_is_under_way_ends_before_the_plugin_and_nothing_is_begun_meanwhile(instance: Instance) -> None:
    instance.plan.write_bytes(dump_plan(make_plan(instance)))
    plugin = Busy(instance.control, instance.events, 1.0, settings=str(instance.plan))
    plugin.start()
    plugin.stop()
    gc.collect()  # a task that is destroyed while it is pending says so in the log
    assert plugin.begun == ["first"]
    assert [line.text for line in read(instance.log("busy"))][1:] == ["INFO busy ends"]


def test_log_lines_are_whole_and_harmless(short_dir: Path) -> None:
    handler = LogHandler(short_dir / "x.log")
    logger = logging.getLogger("vllm_circus_test_of_lines")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.info("one\nINFO two \x1b[31mred\x1b[0m \x07")
    logger.removeHandler(handler)
    handler.close()
    told = read(short_dir / "x.log")
    assert [(line.channel, line.text) for line in told][:2] == [("O", "INFO one"), ("O", "INFO two red \\x07")]


GPU = Gpu(0, "GPU-1", "H", 1, 0, 0, 30)


def test_gpus_that_never_answer_hold_nothing_up() -> None:
    async def scene() -> None:
        release = asyncio.Event()
        asked: list[int] = []
        loop = asyncio.get_running_loop()

        def look() -> tuple[Gpu, ...]:
            asked.append(1)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
            return (GPU,)

        watch = GpuWatch(look)
        for _ in range(5):
            watch.begin()
            await asyncio.sleep(0)
        await until(lambda: asked)
        assert (len(asked), watch.gpus) == (1, ())
        release.set()
        await until(lambda: watch.gpus == (GPU,))
        assert watch.known.is_set()

    asyncio.run(scene())


@pytest.mark.parametrize("error", [NoDriver("no NVIDIA driver"), RuntimeError("bug")])
def test_gpus_that_cannot_be_read_are_none(error: Exception) -> None:
    async def scene() -> None:
        def look() -> tuple[Gpu, ...]:
            raise error

        watch = GpuWatch(look)
        watch.begin()
        await until(watch.known.is_set)
        assert watch.gpus == ()

    asyncio.run(scene())


def test_figures_of_gpus_are_not_told_for_ever_where_the_driver_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        release = threading.Event()
        answers = [(GPU,)]

        def look() -> tuple[Gpu, ...]:
            return answers.pop() if answers else (release.wait(20), (GPU,))[1]

        watch = GpuWatch(look)
        watch.begin()
        await until(lambda: watch.gpus)
        for _ in range(3):
            watch.begin()
        assert watch.gpus, "it may still come"
        monkeypatch.setattr(gpus, "_HANGS", 0.0)
        for _ in range(3):
            watch.begin()
        assert watch.gpus == ()
        release.set()
        await until(lambda: watch.gpus)

    asyncio.run(scene())
    assert [text for text in caplog.messages if text.startswith("GPUs")] == [
        "GPUs: the driver does not answer any more",
        "GPUs: 1 found",
    ]
