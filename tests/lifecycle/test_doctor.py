"""Why an engine died: what is known, what a log tells by itself, and how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lifecycle.known_lines import KNOWN_LINES
from vllm_circus.lifecycle.doctor.diagnosis import diagnose
from vllm_circus.lifecycle.doctor.reading import find_cause, find_outcome
from vllm_circus.lifecycle.doctor.signatures import SIGNATURES, SILENT_ENDS
from vllm_circus.lifecycle.phases import read_phase

LOGS = Path(__file__).parent / "logs"

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
        (
            [
                PREFIX + "it does not fit",
                PREFIX + "Traceback (most recent call last):",
                PREFIX + '  File "/v/vllm/v1/engine/core.py", line 133, in __init__',
            ],
            "it does not fit",
        ),
        (WRAPPED, "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"),
        (["(APIServer pid=9) INFO 11-23 14:31:53 [x.py:1] all is well", "", "Killed?"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_cause_of_a_death(lines: list[str], cause: str) -> None:
    assert (find_cause(lines) or find_outcome(lines)) == cause


def test_how_it_ended_is_said_even_where_the_log_says_nothing() -> None:
    assert diagnose(0, []).cause == "exit code 0"
    assert diagnose(-9, []).cause == "ended by SIGKILL"
    assert diagnose(-99, []).cause == "ended by signal 99"
    assert diagnose(None, []).cause == "ended"
    assert diagnose(-9, ["ValueError: of an earlier request"]).cause == "ended by SIGKILL"
    assert diagnose(1, ["ValueError: no"]).cause == "exit code 1: ValueError: no"


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=200), max_size=20))
def test_any_log_has_a_cause_of_bounded_length(lines: list[str]) -> None:
    assert len(find_cause(lines)) <= 300
    assert len(find_outcome(lines)) <= 300
    for line in lines:
        read_phase(line)
    for code in (None, 0, 1, -9):
        why = diagnose(code, lines)
        assert len(why.cause) <= 340
        assert len(why.evidence) <= 12


SAMPLES = sorted(path.stem for path in LOGS.glob("*.log"))
REAL = frozenset(name.partition(".")[0] for name in SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_cause_in_a_log_of_a_real_failure(name: str) -> None:
    lines = (LOGS / f"{name}.log").read_text().splitlines()
    why = diagnose(1, lines)
    assert why.signature == name.partition(".")[0]
    assert why.fix
    assert "root cause" not in why.cause
    assert any(line in lines for line in why.evidence)


@pytest.mark.parametrize("name", sorted(KNOWN_LINES))
def test_the_words_of_a_known_cause(name: str) -> None:
    why = diagnose(1, [*WRAPPED, PREFIX + KNOWN_LINES[name], *WRAPPED])
    assert why.signature == name
    assert why.fix
    assert "{" not in why.cause + why.fix
    assert KNOWN_LINES[name][:40] in "".join(why.evidence)


def test_every_known_cause_has_a_sample() -> None:
    names = [signature.name for signature in (*SIGNATURES, *SILENT_ENDS)]
    assert len(set(names)) == len(names)
    assert set(names) == REAL | set(KNOWN_LINES)


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=9) INFO 11-23 14:31:40 [utils.py:233] non-default args: {'trust_remote_code=True': 1}",
        "WARNING 11-23 14:31:40 [__init__.py:9] Failed to import from vllm._C: undefined symbol: _ZN3c10",
        "/v/torch/cuda/__init__.py:61: UserWarning: Found no NVIDIA driver on your system.",
        'INFO:     127.0.0.1:37306 - "GET /No space left on device HTTP/1.1" 404',
        "(APIServer pid=9) WARNING 11-24 04:58:01 [u.py] failed with error x as `OSError: [Errno 24] Too many files`.",
    ],
)
def test_what_the_engine_itself_thinks_nothing_of_is_no_cause(line: str) -> None:
    assert diagnose(1, [line, "ValueError: it"]).cause == "exit code 1: ValueError: it"
    assert diagnose(1, [line]).cause == "exit code 1"


def test_what_follows_from_another_cause_is_not_the_cause() -> None:
    lines = [
        PREFIX + "OSError: [Errno 28] No space left on device",
        PREFIX + "RuntimeError: NCCL error: unhandled system error",
        *WRAPPED,
    ]
    assert diagnose(1, lines).signature == "disk-full"


def test_the_kernel_is_named_where_it_ended_a_process_for_want_of_memory() -> None:
    assert diagnose(-9, ["ValueError: of an earlier request"], oom=True).signature == "oom-killer"
    assert diagnose(0, WRAPPED, oom=True).signature == "oom-killer"
    assert diagnose(1, ["OSError: [Errno 98] Address already in use"], oom=True).signature == "port-in-use"


def test_a_process_that_is_gone_is_the_cause_only_where_nothing_tells_why() -> None:
    gone = PREFIX + "Worker proc VllmWorker-0 died unexpectedly (exit code: 1), shutting down executor."
    assert diagnose(0, [gone, *WRAPPED]).cause == (
        "exit code 0: its worker process VllmWorker-0 was killed, or ended without a word"
    )
    assert diagnose(0, [PREFIX + "ValueError: it", gone, *WRAPPED]).cause == "exit code 0: ValueError: it"
    assert diagnose(-9, [gone]).cause == "ended by SIGKILL"


def test_a_signal_tells_what_to_look_at() -> None:
    assert "dmesg" in diagnose(-11, []).fix
    assert diagnose(-15, []).fix == ""


@pytest.mark.parametrize(("room", "fix"), [(43000, "max-model-len: 43000"), (None, "no context fits")])
def test_how_long_a_context_may_be_is_passed_on(room: int | None, fix: str) -> None:
    estimate = f"the estimated maximum model length is {room}. " if room else ""
    line = (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed,"
        f" which is larger than the available KV cache memory (5.2 GiB). {estimate}Try increasing it"
    )
    assert fix in diagnose(1, [PREFIX + line]).fix


def test_what_the_launcher_refused_is_the_cause() -> None:
    lines = [
        "ERROR 11-23 14:31:40 [a.py:1] of the engine before",
        "vllm-circus: /run/x/a.json: No such file or directory",
    ]
    assert diagnose(125, lines).cause == "exit code 125: /run/x/a.json: No such file or directory"
    assert "No such file" not in diagnose(1, lines).cause
