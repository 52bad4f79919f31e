"""The engine of these tests fails as vLLM does where the card has too little."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from tests.e2e.conftest import await_that
from tests.plugins.sets import free_port
from tests.real_gpu.card import CONTEXT, GIB, ROOT, Card


@contextmanager
def engine(card: Card, port: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """An engine of its own, beside any set."""
    fast = ("--sim-load-seconds", "0", "--sim-exit-seconds", "0", "--host", "127.0.0.1", "--port", str(port))
    environ = {**card.whole, "VLLM_SERVER_DEV_MODE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    command = [sys.executable, "-m", "tests.real_gpu.engine", "serve", "org/tiny", *fast, *words]
    with subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_an_engine_refuses_to_start_or_to_wake_up_where_the_card_has_too_little(card: Card) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with engine(card, port, "--enable-sleep-mode", "--gpu-memory-utilization", "0.5"):
        await_that(lambda: is_healthy(url))
        assert card.watch.now().used - card.idle > 0.5 * card.total - GIB
        with engine(card, free_port(), "--gpu-memory-utilization", "0.6") as second:
            error = second.communicate(timeout=60)[1]
        assert second.returncode == 1
        assert "ValueError: Free memory on device cuda:0 (" in error
        assert "is less than desired GPU memory utilization (0.6, " in error

        assert requests.post(f"{url}/sleep?level=1", timeout=60).status_code == 200
        assert card.watch.now().used - card.idle < CONTEXT
        with card.held("all-but", str(4 * GIB)):
            refused = requests.post(f"{url}/wake_up", timeout=60)
            assert refused.status_code == 500
            assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate " in refused.text
            assert requests.get(f"{url}/is_sleeping", timeout=60).json() == {"is_sleeping": True}
        card.watch.wait(lambda sample: sample.used - card.idle < CONTEXT)
        assert requests.post(f"{url}/wake_up", timeout=60).status_code == 200
        assert card.watch.now().used - card.idle > 0.5 * card.total - GIB
    card.watch.wait(lambda sample: sample.used < card.idle + GIB // 4)
