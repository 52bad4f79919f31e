"""The relay as machine code: a worker says whether it is, and it is where that was asked for."""

from __future__ import annotations

import os

from tests.proxy.conftest import Worker
from tests.proxy.scripted import until
from vllm_circus.proxy import exchange


def test_a_worker_says_whether_its_relay_is_compiled(worker: Worker) -> None:
    """Where VLLM_CIRCUS_NEEDS_COMPILED is set it has to be."""
    is_compiled = not str(exchange.__file__).endswith(".py")
    assert is_compiled or not os.environ.get("VLLM_CIRCUS_NEEDS_COMPILED")
    kind = b"compiled" if is_compiled else b"interpreted"
    assert until(lambda: b"models, " + kind in worker.log.read_bytes())
