"""Frozen pictures of a running set, for the tests of every view."""

from __future__ import annotations

from vllm_circus.bus.messages import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    CountsMessage,
    Histogram,
    ModelCounts,
    ModelsMessage,
    ModelState,
    WorkerState,
)
from vllm_circus.gpu import Gpu
from vllm_circus.lifecycle.states import State
from vllm_circus.view.outline import Outline, OutlineModel
from vllm_circus.view.status import Picture

NOW = 1_700_000_000.0
GIB = 1 << 30


def histogram(bounds: tuple[float, ...], *values: float) -> Histogram:
    """The values, counted into buckets."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return Histogram(tuple(counts), sum(values))


OUTLINE = Outline(
    instance="default",
    source="/etc/vllm-circus/models.yaml",
    host="0.0.0.0",
    port=8000,
    workers=2,
    models=(
        OutlineModel("qwen", "Qwen/Qwen3-8B", ("qwen", "chat"), (0, 1), 8001, True, "model-qwen", "qwen"),
        OutlineModel("coder", "/models/coder", ("coder",), (2,), 8002, True, "model-coder", "coder"),
        OutlineModel("embed", "/models/embed", ("embed",), (), 8003, True, "model-embed", "embed"),
        OutlineModel("old", "/models/old", ("old",), None, 8004, False, "model-old", "old"),
    ),
)
MODELS = ModelsMessage(
    sent_at=NOW - 0.4,
    pid=101,
    sequence=7,
    models=(
        ModelState("qwen", State.READY, since_at=NOW - 3700, pid=201, started_at=NOW - 3792),
        ModelState(
            "coder",
            State.LOADING,
            since_at=NOW - 12,
            pid=202,
            started_at=NOW - 12,
            phase="loading weights",
            retry_after=40.0,
        ),
        ModelState("embed", State.FAILED, "CUDA out of memory\x1b[31m", since_at=NOW - 60, tries=8),
        ModelState("old", State.STOPPED, since_at=NOW - 60),
    ),
)
COUNTS = CountsMessage(
    sent_at=NOW - 0.2,
    pid=102,
    models={
        "qwen": ModelCounts(
            statuses={200: 1200, 499: 3, 502: 1},
            in_flight=3,
            streams=900,
            chunks=88_000,
            prompt_tokens=5,
            completion_tokens=6,
            cut=1,
            first_token=histogram(FIRST_TOKEN_BUCKETS, 0.06, 0.07, 0.08, 0.09),
            duration=histogram(DURATION_BUCKETS, 1.5, 1.5),
        ),
    },
    unrouted={404: 2},
    request_rate={"qwen": 4.2},
    token_rate={"qwen": 312.0},
    workers=(WorkerState(301, 7, 10, NOW - 0.3), WorkerState(302, 7, 2, NOW - 0.3)),
    gpus=tuple(Gpu(i, f"GPU-{i}", "H100", 80 * GIB, used * GIB, 50, 60) for i, used in enumerate((61, 60, 2))),
)
CONTROL = "ipc:///run/vllm-circus/default/control.sock"
PICTURE = Picture(OUTLINE, CONTROL, 100, NOW, MODELS, COUNTS, circusctl=f"circusctl --endpoint {CONTROL}")
