"""The status as one JSON document, for programs: the same picture as the table, with nothing left out.

Times called `*_at` are wall-clock seconds since 1970, other times are seconds, sizes are bytes. A value that nobody
knows is null. Quantiles (`p50`) are estimates from buckets, means are exact. Keys are only ever added.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vllm_circus.bus.messages import CHUNK_GAP_BUCKETS, DURATION_BUCKETS, FIRST_TOKEN_BUCKETS, Histogram, ModelCounts
from vllm_circus.view.outline import OutlineModel
from vllm_circus.view.status import Heartbeat, Picture, memory_used
from vllm_circus.view.units import quantile


def status_document(picture: Picture) -> dict[str, Any]:
    """Everything known about the instance."""
    outline, counts = picture.outline, picture.counts
    return {
        "instance": outline.instance,
        "running": True,
        "ready": picture.ready,
        "now_at": picture.now,
        "config": outline.source,
        "config_changed": bool(picture.news),
        "circusd": {"pid": picture.daemon, "endpoint": picture.control, "stopped": picture.halted},
        "proxy": {
            "url": outline.url,
            "host": outline.host,
            "port": outline.port,
            "unix_socket": outline.unix_socket or None,
            "workers_planned": outline.workers,
            "workers": [asdict(worker) for worker in counts.workers] if counts else None,
            "unrouted": _statuses(counts.unrouted) if counts else None,
        },
        "plugins": [_plugin(beat) for beat in picture.heartbeats()],
        "models": [_model(picture, model) for model in outline.models],
        "gpus": [asdict(gpu) for gpu in counts.gpus] if counts else None,
    }


def ended_document(instance: str) -> dict[str, Any]:
    """What there is to say about an instance that does not run."""
    return {"instance": instance, "running": False, "ready": False}


def _plugin(beat: Heartbeat) -> dict[str, Any]:
    return {"name": beat.name, "alive": beat.alive, "age": beat.age}


def _model(picture: Picture, model: OutlineModel) -> dict[str, Any]:
    told = picture.state(model.name)
    return {
        "name": model.name,
        "group": model.group,
        "model": model.model,
        "names": list(model.names),
        "enabled": model.enabled,
        "state": str(told.state) if told else None,
        "reason": told.reason if told else None,
        "fix": told.fix if told else None,
        "crash": asdict(told.crash) if told and told.crash else None,
        "on_call": told.on_call if told else None,
        "awaited": told.awaited if told else None,
        "expected": told.expected if told else None,
        "phase": told.phase if told else None,
        "since_at": (told.since_at or None) if told else None,
        "started_at": told.started_at if told else None,
        "uptime": max(0.0, picture.now - told.started_at) if told and told.started_at is not None else None,
        "pid": told.pid if told else None,
        "tries": told.tries if told else None,
        "retry_after": told.retry_after if told else None,
        "gpus": None if model.gpus is None else list(model.gpus),
        "memory_used": memory_used(picture, model),
        "port": model.port,
        "watcher": model.watcher,
        "traffic": _traffic(picture, model.name),
    }


def _traffic(picture: Picture, name: str) -> dict[str, Any] | None:
    if picture.counts is None:
        return None
    counts = picture.counts.models.get(name, ModelCounts())
    return {
        "in_flight": counts.in_flight,
        "waiting": counts.waiting,
        "requests": counts.requests,
        "errors": counts.errors,
        "statuses": _statuses(counts.statuses),
        "cut": counts.cut,
        "streams": counts.streams,
        "chunks": counts.chunks,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "request_bytes": counts.request_bytes,
        "response_bytes": counts.response_bytes,
        "request_rate": picture.counts.request_rate.get(name, 0.0),
        "token_rate": picture.counts.token_rate.get(name, 0.0),
        "first_token": _times(counts.first_token, FIRST_TOKEN_BUCKETS),
        "chunk_gap": _times(counts.chunk_gap, CHUNK_GAP_BUCKETS),
        "duration": _times(counts.duration, DURATION_BUCKETS),
    }


def _statuses(statuses: dict[int, int]) -> dict[str, int]:
    return {str(status): number for status, number in sorted(statuses.items())}


def _times(histogram: Histogram, bounds: tuple[float, ...]) -> dict[str, float | int | None]:
    return {
        "count": histogram.count,
        "mean": histogram.total / histogram.count if histogram.count else None,
        "p50": quantile(histogram, bounds, 0.5),
        "p95": quantile(histogram, bounds, 0.95),
        "p99": quantile(histogram, bounds, 0.99),
    }
