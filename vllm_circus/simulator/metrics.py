"""The server's counters, and how they are written for Prometheus.

Names, labels and buckets are those of the real server, its `_created` series too; families of which nothing could be
told here, such as those of caches for pictures, are left out. A family knows its label
sets from the start, so every series exists before anything happened, as in the real one.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

REASONS = ("stop", "length", "abort", "error", "repetition")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")

Bounds = tuple[float, ...]

FIRST_TOKEN: Bounds = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
)
FIRST_TOKEN += (80.0, 160.0, 640.0, 2560.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
REQUEST: Bounds = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
)
REQUEST += (960.0, 1920.0, 7680.0)
TOKENS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
ITERATION = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)

_COUNTERS = {
    "prompt_tokens_total": "Number of prefill tokens processed.",
    "generation_tokens_total": "Number of generation tokens processed.",
    "num_preemptions_total": "Cumulative number of preemption from the engine.",
    "prefix_cache_queries_total": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits_total": "Prefix cache hits, in terms of number of cached tokens.",
}
_GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
_HISTOGRAMS = {
    "iteration_tokens_total": (ITERATION, "Histogram of number of tokens per engine_step."),
    "time_to_first_token_seconds": (FIRST_TOKEN, "Histogram of time to first token in seconds."),
    "inter_token_latency_seconds": (PER_TOKEN, "Histogram of inter-token latency in seconds."),
    "e2e_request_latency_seconds": (REQUEST, "Histogram of e2e request latency in seconds."),
    "request_queue_time_seconds": (REQUEST, "Histogram of time spent in WAITING phase for request."),
    "request_prompt_tokens": (TOKENS, "Number of prefill tokens processed."),
    "request_generation_tokens": (TOKENS, "Number of generation tokens processed."),
}


class Histogram:
    """Counts by upper bound, a sum and a number of observations."""

    __slots__ = ("_bounds", "_counts", "_sum", "number")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self.number = 0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        self.number += 1

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The exposition lines under `name`, with `labels` (inside the braces, may be empty)."""
        total = 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {float(total)}'
        yield f"{name}_count{{{labels}}} {float(self.number)}"
        yield f"{name}_sum{{{labels}}} {self._sum!r}"


class Metrics:
    """Everything that /metrics tells about one model."""

    def __init__(self, model_name: str) -> None:
        self._created = time.time()
        self._model = model_name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self.gauges = dict.fromkeys(_GAUGES, 0.0)
        self.finished = dict.fromkeys(REASONS, 0)
        self.sleep = dict.fromkeys(SLEEP_STATES, 0.0) | {"awake": 1.0}
        self.histograms = {name: Histogram(bounds) for name, (bounds, _) in _HISTOGRAMS.items()}
        self.http: dict[tuple[str, str, str], int] = {}

    def count_http(self, handler: str, method: str, status: int) -> None:
        """Count an answer by route (`none` if there is no such route), method and class of the status."""
        key = (handler, method, f"{status // 100}xx")
        self.http[key] = self.http.get(key, 0) + 1

    def render(self) -> str:
        """The whole page, in the text format of Prometheus."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        labels = f'engine="0",model_name="{self._model}"'
        yield from self._gauge_lines(labels)
        for name, number in self.counters.items():
            yield from self._counter(f"vllm:{name}", _COUNTERS[name], {labels: number})
        reasons = {
            f'engine="0",finished_reason="{reason}",model_name="{self._model}"': number
            for reason, number in self.finished.items()
        }
        yield from self._counter("vllm:request_success_total", "Count of successfully processed requests.", reasons)
        for name, histogram in self.histograms.items():
            yield from _head(f"vllm:{name}", "histogram", _HISTOGRAMS[name][1])
            yield from histogram.lines(f"vllm:{name}", labels)
            yield from self._created_lines(f"vllm:{name}", _HISTOGRAMS[name][1], [labels])
        handled = {
            f'handler="{handler}",method="{method}",status="{status}"': number
            for (handler, method, status), number in self.http.items()
        }
        help_text = "Total number of requests by method, status and handler."
        yield from self._counter("http_requests_total", help_text, handled)

    def _gauge_lines(self, labels: str) -> Iterator[str]:
        for name, value in self.gauges.items():
            yield from _family(f"vllm:{name}", "gauge", _GAUGES[name], {labels: value})
        waiting = self.gauges["num_requests_waiting"]
        reasons = {f'{labels},reason="capacity"': waiting, f'{labels},reason="deferred"': 0.0}
        help_text = "Number of waiting requests by reason."
        yield from _family("vllm:num_requests_waiting_by_reason", "gauge", help_text, reasons)
        states = {f'{labels},sleep_state="{state}"': value for state, value in self.sleep.items()}
        yield from _family("vllm:engine_sleep_state", "gauge", "Engine sleep state.", states)

    def _counter(self, name: str, help_text: str, series: Mapping[str, int]) -> Iterator[str]:
        yield from _family(name, "counter", help_text, {labels: float(value) for labels, value in series.items()})
        yield from self._created_lines(name.removesuffix("_total"), help_text, series)

    def _created_lines(self, name: str, help_text: str, labels: Iterable[str]) -> Iterator[str]:
        """When a counter began: the real server's library writes that as a gauge."""
        yield from _family(f"{name}_created", "gauge", help_text, dict.fromkeys(labels, self._created))


def _head(name: str, kind: str, help_text: str) -> Iterable[str]:
    return (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}")


def _family(name: str, kind: str, help_text: str, series: Mapping[str, float]) -> Iterator[str]:
    yield from _head(name, kind, help_text)
    for labels, value in series.items():
        yield f"{name}{{{labels}}} {value}"
