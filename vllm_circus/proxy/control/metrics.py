"""`/metrics`: the last sums of the stats plugin and the last states, in Prometheus' text format.

Rules: `METRICS` is the one list of what is told; a collector that tells something else fails its test. Nothing is
counted here, so every worker gives the same answer. Durations are in seconds, sizes in bytes, shares in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from vllm_circus.bus.messages import (
    CHUNK_GAP_BUCKETS,
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    CountsMessage,
    Histogram,
    ModelCounts,
    ModelsMessage,
)
from vllm_circus.lifecycle.states import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Told:
    """One metric: `name` is as it is scraped, less the suffixes of histograms."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


_MODEL, _GPU = ("model",), ("gpu", "uuid")

METRICS = (
    Told(
        "vllm_circus_requests_total",
        "counter",
        ("model", "status"),
        "Finished requests by HTTP status; 499 is a client that left.",
    ),
    Told(
        "vllm_circus_unrouted_requests_total",
        "counter",
        ("status",),
        "Finished requests that named no known model, by HTTP status.",
    ),
    Told("vllm_circus_requests_in_flight", "gauge", _MODEL, "Requests being served now."),
    Told(
        "vllm_circus_requests_waiting",
        "gauge",
        _MODEL,
        "Requests in the queue now; with replicas those of the whole model, told of its first one.",
    ),
    Told("vllm_circus_streams_total", "counter", _MODEL, "Requests that were answered as event streams."),
    Told(
        "vllm_circus_stream_events_total",
        "counter",
        _MODEL,
        "Events of those streams, which is nearly the number of tokens.",
    ),
    Told("vllm_circus_cut_responses_total", "counter", _MODEL, "Answers that ended before their end."),
    Told("vllm_circus_prompt_tokens_total", "counter", _MODEL, "Prompt tokens, from answers that say their usage."),
    Told(
        "vllm_circus_completion_tokens_total",
        "counter",
        _MODEL,
        "Completion tokens, from answers that say their usage.",
    ),
    Told("vllm_circus_request_bytes_total", "counter", _MODEL, "Bytes of request bodies."),
    Told("vllm_circus_response_bytes_total", "counter", _MODEL, "Bytes of response bodies."),
    Told(
        "vllm_circus_time_to_first_byte_seconds",
        "histogram",
        _MODEL,
        "From the request to the first body byte of its answer.",
    ),
    Told(
        "vllm_circus_time_between_chunks_seconds",
        "histogram",
        _MODEL,
        "Between two pieces of a stream, which is nearly the time for a token.",
    ),
    Told("vllm_circus_request_duration_seconds", "histogram", _MODEL, "From the request to the end of its answer."),
    Told(
        "vllm_circus_model_state", "gauge", ("model", "state"), "1 for the state that a model is in, 0 for the others."
    ),
    Told("vllm_circus_model_failed_starts", "gauge", _MODEL, "Failed starts in a row."),
    Told(
        "vllm_circus_model_start_timestamp_seconds",
        "gauge",
        _MODEL,
        "When its process was started, in seconds since 1970.",
    ),
    Told("vllm_circus_workers", "gauge", (), "Proxy workers that are alive."),
    Told("vllm_circus_connections", "gauge", (), "Open client connections of all workers."),
    Told("vllm_circus_gpu_memory_total_bytes", "gauge", _GPU, "Memory of a GPU."),
    Told("vllm_circus_gpu_memory_used_bytes", "gauge", _GPU, "Memory of a GPU that is in use, whoever uses it."),
    Told("vllm_circus_gpu_utilisation_ratio", "gauge", _GPU, "Share of time in which a GPU was busy."),
    Told("vllm_circus_gpu_temperature_celsius", "gauge", _GPU, "Temperature of a GPU."),
    Told(
        "vllm_circus_heard_timestamp_seconds",
        "gauge",
        ("plugin",),
        "When a plugin was heard last, in seconds since 1970.",
    ),
)

_PER_MODEL = {
    "vllm_circus_requests_in_flight": "in_flight",
    "vllm_circus_requests_waiting": "waiting",
    "vllm_circus_streams_total": "streams",
    "vllm_circus_stream_events_total": "chunks",
    "vllm_circus_cut_responses_total": "cut",
    "vllm_circus_prompt_tokens_total": "prompt_tokens",
    "vllm_circus_completion_tokens_total": "completion_tokens",
    "vllm_circus_request_bytes_total": "request_bytes",
    "vllm_circus_response_bytes_total": "response_bytes",
}


def exposition(models: ModelsMessage | None, counts: CountsMessage | None) -> bytes:
    """The page. Without a message, its metrics are there without values."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(models, counts))
    return generate_latest(registry)


class _Collector:
    def __init__(self, models: ModelsMessage | None, counts: CountsMessage | None) -> None:
        self._models = models
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        families = {told.name: _family(told) for told in METRICS}
        if self._counts is not None:
            _add_counts(families, self._counts)
        if self._models is not None:
            _add_states(families, self._models)
        yield from families.values()


def _family(told: Told) -> Metric:
    if told.kind == "histogram":
        return HistogramMetricFamily(told.name, told.help, labels=told.labels)
    kind = CounterMetricFamily if told.kind == "counter" else GaugeMetricFamily
    return kind(told.name, told.help, labels=told.labels)


def _add_counts(families: dict[str, Metric], message: CountsMessage) -> None:
    for model, counts in message.models.items():
        _add_model(families, model, counts)
    for status, number in message.unrouted.items():
        _add(families, "vllm_circus_unrouted_requests_total", number, str(status))
    _add(families, "vllm_circus_workers", len(message.workers))
    _add(families, "vllm_circus_connections", sum(worker.connections for worker in message.workers))
    for gpu in message.gpus:
        labels = (str(gpu.index), gpu.uuid)
        busy = None if gpu.utilisation is None else gpu.utilisation / 100
        _add(families, "vllm_circus_gpu_memory_total_bytes", gpu.memory_total, *labels)
        _add(families, "vllm_circus_gpu_memory_used_bytes", gpu.memory_used, *labels)
        _add(families, "vllm_circus_gpu_utilisation_ratio", busy, *labels)
        _add(families, "vllm_circus_gpu_temperature_celsius", gpu.temperature, *labels)
    _add(families, "vllm_circus_heard_timestamp_seconds", message.sent_at, "stats")


def _add_model(families: dict[str, Metric], model: str, counts: ModelCounts) -> None:
    for status, number in sorted(counts.statuses.items()):
        _add(families, "vllm_circus_requests_total", number, model, str(status))
    for name, attribute in _PER_MODEL.items():
        _add(families, name, getattr(counts, attribute), model)
    _add_histogram(families["vllm_circus_time_to_first_byte_seconds"], model, FIRST_TOKEN_BUCKETS, counts.first_token)
    _add_histogram(families["vllm_circus_time_between_chunks_seconds"], model, CHUNK_GAP_BUCKETS, counts.chunk_gap)
    _add_histogram(families["vllm_circus_request_duration_seconds"], model, DURATION_BUCKETS, counts.duration)


def _add_states(families: dict[str, Metric], message: ModelsMessage) -> None:
    for told in message.models:
        for state in State:
            _add(families, "vllm_circus_model_state", float(told.state is state), told.name, state.value)
        _add(families, "vllm_circus_model_failed_starts", told.tries, told.name)
        _add(families, "vllm_circus_model_start_timestamp_seconds", told.started_at, told.name)
    _add(families, "vllm_circus_heard_timestamp_seconds", message.sent_at, "health")


def _add(families: dict[str, Metric], name: str, value: float | None, *labels: str) -> None:
    """Add a sample; None is a value that nobody can tell."""
    family = families[name]
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)  # noqa: S101 - METRICS says so
    if value is not None:
        family.add_metric(labels, value)


def _add_histogram(family: Metric, model: str, bounds: tuple[float, ...], values: Histogram) -> None:
    assert isinstance(family, HistogramMetricFamily)  # noqa: S101 - METRICS says so
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), values.counts, strict=False):
        running += count
        buckets.append((bound, running))
    family.add_metric((model,), buckets, values.total)
