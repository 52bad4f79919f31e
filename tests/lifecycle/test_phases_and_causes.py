from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_circus.config.models import Restart
from vllm_circus.lifecycle.backoff import restart_delay
from vllm_circus.lifecycle.causes import explain_exit, find_cause
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
    assert remaining_load(loads, 100) == pytest.approx(3.1)


def test_the_waits_between_restarts() -> None:
    policy = Restart(first_delay=1, factor=3, max_delay=50)
    assert [restart_delay(policy, restarts) for restarts in range(6)] == [0, 1, 3, 9, 27, 50]
    assert restart_delay(Restart(factor=10), 100_000) == 300


PREFIX = "(EngineCore pid=10) ERROR 11-23 14:31:53 [core.py:708] "
WRAPPED = [
    "(APIServer pid=9) Traceback (most recent call last):",
    '(APIServer pid=9)   File "/v/vllm/entrypoints/cli/main.py", line 54, in main',
    "(APIServer pid=9) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            ["Traceback (most recent call last):", "OSError: [Errno 98] Address already in use"],
            "OSError: [Errno 98] Address already in use",
        ),
        (
            [
                PREFIX + "EngineCore failed to start.",
                PREFIX + "Traceback (most recent call last):",
                PREFIX + "ValueError: 16 heads cannot be shared out",
                *WRAPPED,
            ],
            "ValueError: 16 heads cannot be shared out",
        ),
        (
            [
                PREFIX
                + "ValueError: Free memory on device (1.2/79.2 GiB) on startup is less than desired",
                PREFIX + "RuntimeError: cancelled",
                *WRAPPED,
            ],
            "ValueError: Free memory on device (1.2/79.2 GiB) on startup is less than desired",
        ),
        (
            ["huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder"],
            "LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder",
        ),
        (
            [
                "(APIServer pid=9) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "(APIServer pid=9)   Value error, Model architectures ['X'] failed [type=value_error]",
                "(APIServer pid=9)     For further information visit https://errors.pydantic.dev",
            ],
            "ValidationError: Value error, Model architectures ['X'] failed [type=value_error]",
        ),
        (
            ["vllm: error: unrecognized arguments: --no-such", 'INFO:     127.0.0.1:1 - "GET /error HTTP/1.1" 404'],
            "vllm: error: unrecognized arguments: --no-such",
        ),
        (
            [PREFIX + "Engine core proc EngineCore died unexpectedly, shutting down client.", "bye"],
            "Engine core proc EngineCore died unexpectedly, shutting down client.",
        ),
        (WRAPPED, "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"),
        (["(APIServer pid=9) INFO 11-23 14:31:53 [x.py:1] all is well", "", "Killed?"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_cause_of_a_death(lines: list[str], cause: str) -> None:
    assert find_cause(lines) == cause


def test_how_it_ended_is_said_even_where_the_log_says_nothing() -> None:
    assert explain_exit(0, []) == "exit code 0"
    assert explain_exit(-9, []) == "ended by SIGKILL"
    assert explain_exit(-99, []) == "ended by signal 99"
    assert explain_exit(None, []) == "ended"
    assert explain_exit(-9, ["ValueError: of an earlier request"]) == "ended by SIGKILL"
    assert explain_exit(1, ["ValueError: no"]) == "exit code 1: ValueError: no"


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=200), max_size=20))
def test_any_log_has_a_cause_of_bounded_length(lines: list[str]) -> None:
    assert len(find_cause(lines)) <= 300
    for line in lines:
        read_phase(line)


def test_what_the_launcher_refused_is_the_cause() -> None:
    lines = [
        "ERROR 11-23 14:31:40 [a.py:1] of the engine before",
        "vllm-circus: /run/x/a.json: No such file or directory",
    ]
    assert explain_exit(125, lines) == "exit code 125: /run/x/a.json: No such file or directory"
    assert "No such file" not in explain_exit(1, lines)
