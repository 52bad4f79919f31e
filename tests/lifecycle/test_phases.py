from __future__ import annotations

import pytest

from vllm_circus.config.models import Restart
from vllm_circus.lifecycle.backoff import restart_delay
from vllm_circus.lifecycle.phases import expected_load, read_phase, remaining_load, remember_load


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("(APIServer pid=9) INFO 11-23 14:31:40 [utils.py:233] non-default args: {'model': 'm'}", "starting"),
        (
            "(APIServer pid=9) INFO 11-23 14:31:44 [model.py:547] Resolved architecture: LlamaForCausalLM",
            "reading the model's configuration",
        ),
        (
            "(EngineCore pid=10) INFO 11-23 14:31:50 [core.py:77] Initializing a V1 LLM engine (v0.32.0) with config",
            "starting the engine",
        ),
        ("(EngineCore pid=10) INFO 11-23 14:31:51 [cpu.py:9] Starting to load model /m/tiny...", "loading weights"),
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01]", "loading weights 50 %"),
        ("(EngineCore pid=10) INFO 11-23 14:31:51 [loader.py:268] Loading weights took 0.01 s", "weights loaded"),
        ("INFO 11-23 14:31:52 [gpu_worker.py:298] Available KV cache memory: 10.1 GiB", "allocating the KV cache"),
        ("INFO 11-23 14:31:52 [kv_cache_utils.py:864] CPU KV cache size: 8,192 tokens", "allocating the KV cache"),
        ("INFO 11-23 14:31:53 [core.py:210] init engine (profile, create kv cache) took 3.88 s", "engine started"),
        ("INFO 11-23 14:31:53 [api_server.py:1971] Starting vLLM server on http://127.0.0.1:8001", "opening the port"),
        ('INFO:     127.0.0.1:37306 - "GET /health HTTP/1.1" 200 OK', None),
        ("", None),
    ],
)  # fmt: skip
def test_a_log_line_tells_the_phase(line: str, phase: str | None) -> None:
    assert read_phase(line) == phase


def test_the_expected_time_is_the_median_of_the_last_loads() -> None:
    loads: tuple[float, ...] = ()
    assert expected_load(loads) is None
    assert remaining_load(loads, 3) is None
    for seconds in (500, 30, 31, 29, 300, 32):
        loads = remember_load(loads, seconds)
    assert loads == (30, 31, 29, 300, 32)
    assert expected_load(loads) == 31
    assert remaining_load(loads, 11) == 20
    assert remaining_load(loads, 29) == 2, "true to the end"
    assert remaining_load(loads, 31) == 1
    assert remaining_load(loads, 34) == 3, "one that is late is later the longer it takes"
    assert remaining_load(loads, 100) == 25


def test_the_waits_between_restarts() -> None:
    policy = Restart(first_delay=1, factor=3, max_delay=50)
    assert [restart_delay(policy, restarts) for restarts in range(6)] == [0, 1, 3, 9, 27, 50]
    assert restart_delay(Restart(factor=10), 100_000) == 300
