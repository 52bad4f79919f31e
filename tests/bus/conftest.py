"""Addresses in a private folder, messages, and waiting with an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vllm_circus.bus.messages import ModelCounts, ModelsMessage, ModelState, WorkerMessage
from vllm_circus.lifecycle.states import State

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def address(short_dir: Path) -> str:
    return f"ipc://{short_dir}/bus.sock"


@pytest.fixture
def until() -> Until:
    """Run the loop until something is true, ten seconds at most."""

    async def wait(is_true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not is_true():
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.005)

    return wait


def models(sequence: int) -> ModelsMessage:
    return ModelsMessage(1.0, 7, sequence, (ModelState("a", State.READY),))


def worker(sequence: int) -> WorkerMessage:
    return WorkerMessage("7-1", 7, 1.0, sequence, 3, {"a": ModelCounts(statuses={200: sequence})})
