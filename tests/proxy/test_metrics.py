"""The exposition: everything in the table, nothing else, in a form that Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from vllm_circus.bus.messages import (
    CHUNK_GAP_BUCKETS,
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
from vllm_circus.proxy.control.metrics import METRICS, exposition

COUNTS = CountsMessage(
    sent_at=5.0,
    pid=1,
    models={
        "a": ModelCounts(
            statuses={200: 3, 499: 1},
            in_flight=2,
            waiting=5,
            chunk_gap=Histogram((4, 1) + (0,) * (len(CHUNK_GAP_BUCKETS) - 1), 0.25),
            prompt_tokens=7,
            first_token=Histogram((1, 2) + (0,) * (len(FIRST_TOKEN_BUCKETS) - 1), 0.5),
        )
    },
    unrouted={404: 9},
    request_rate={},
    token_rate={},
    workers=(WorkerState(1, 1, 4, 0.0), WorkerState(2, 1, 5, 0.0)),
    gpus=(Gpu(0, "GPU-1", "H", 100, 40, 50, None),),
)
MODELS = ModelsMessage(6.0, 2, 1, (ModelState("a", State.READY, started_at=3.0, tries=2),))


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_the_values_are_those_of_the_messages() -> None:
    found = samples(exposition(MODELS, COUNTS))

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("vllm_circus_requests_total", model="a", status="200") == 3
    assert value("vllm_circus_unrouted_requests_total", status="404") == 9
    assert value("vllm_circus_requests_in_flight", model="a") == 2
    assert value("vllm_circus_requests_waiting", model="a") == 5
    assert value("vllm_circus_time_between_chunks_seconds_bucket", model="a", le="0.001") == 4
    assert value("vllm_circus_time_between_chunks_seconds_count", model="a") == 5
    assert value("vllm_circus_time_between_chunks_seconds_sum", model="a") == 0.25
    assert value("vllm_circus_prompt_tokens_total", model="a") == 7
    assert value("vllm_circus_time_to_first_byte_seconds_bucket", model="a", le="0.01") == 3
    assert value("vllm_circus_time_to_first_byte_seconds_count", model="a") == 3
    assert value("vllm_circus_time_to_first_byte_seconds_sum", model="a") == 0.5
    assert value("vllm_circus_model_state", model="a", state="ready") == 1
    assert value("vllm_circus_model_state", model="a", state="failed") == 0
    assert value("vllm_circus_connections") == 9
    assert value("vllm_circus_gpu_utilisation_ratio", gpu="0", uuid="GPU-1") == 0.5
    assert value("vllm_circus_heard_timestamp_seconds", plugin="stats") == 5
    assert not any(name == "vllm_circus_gpu_temperature_celsius" for name, _ in found)


def test_the_table_is_what_is_told_even_when_nothing_is_known() -> None:
    for page in (exposition(None, None), exposition(MODELS, COUNTS)):
        told = [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
        assert told == [metric.name for metric in METRICS]


def test_labels_are_escaped() -> None:
    page = exposition(ModelsMessage(1.0, 1, 1, (ModelState('a"\n\\', State.READY),)), None)
    assert samples(page)["vllm_circus_model_failed_starts", frozenset({("model", 'a"\n\\')})] == 0
