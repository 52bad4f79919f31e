"""From the command line to ready: what is said, in which order, and what can go wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vllm_circus.simulator.options import FLAGS, PHASES, SIM_FLAGS

from .running import Simulate, left, until


def test_the_log_has_the_lines_of_the_real_one_in_their_order(simulate: Simulate) -> None:
    one = simulate("--gpu-memory-utilization", "0.8", "--enable-prefix-caching")
    until(lambda: "Application startup complete." in one.err)
    wanted = [
        (
            r"^\(APIServer pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[api_utils.py:286\] non-default args: "
            r"\{'model_tag': 'org/tiny',.*'gpu_memory_utilization': 0.8, 'enable_prefix_caching': True, 'model': "
            r"'org/tiny'\}$"
        ),
        r"^\(APIServer pid=\d+\) INFO .* Resolved architecture: ",
        r"^\(EngineCore pid=\d+\) INFO .* Initializing a V1 LLM engine ",
        r"^\(Worker pid=\d+\) INFO .* Starting to load model org/tiny\.\.\.$",
        r"^\(Worker pid=\d+\) INFO .* Loading weights took \d+\.\d\d seconds$",
        r"^\(Worker pid=\d+\) INFO .* Model loading took \d+\.\d\d GiB ",
        r"^\(EngineCore pid=\d+\) INFO .* Available KV cache memory: ",
        r"^\(EngineCore pid=\d+\) INFO .* GPU KV cache size: 131,072 tokens, ",
        r"^\(Worker pid=\d+\) INFO .* Graph capturing finished in ",
        r"^\(EngineCore pid=\d+\) INFO .* init engine \(.*\) took \d+\.\d\d s$",
        rf"^\(APIServer pid={one.process.pid}\) INFO .* Starting vLLM server on http://127\.0\.0\.1:{one.port}$",
        r'^INFO:     127\.0\.0\.1:\d+ - "GET /health HTTP/1\.1" 200 OK$',
    ]
    places = []
    for pattern in wanted:
        match = re.search(pattern, one.out, re.MULTILINE)
        assert match, pattern
        places.append(match.start())
    assert places == sorted(places)
    assert (
        "\rLoading safetensors checkpoint shards: 100% Completed | 4/4 [00:00<00:00,"
        in (one.folder / "err").read_bytes().decode()
    )
    started = f"INFO:     Started server process [{one.process.pid}]\nINFO:     Waiting for application startup.\n"
    assert started + "INFO:     Application startup complete.\n" in one.err


def test_it_is_ready_at_once_and_small(begin: Simulate) -> None:
    one = begin()
    until(lambda: one.process.poll() is None and "startup complete" in one.err)
    server = psutil.Process(one.process.pid)
    assert sum(server.cpu_times()[:2]) < 1  # 0.15 s on an idle machine; the time by the clock depends on the others
    assert max(process.memory_info().rss for process in [server, *one.tree().values()]) < 40e6


def test_nobody_is_let_in_before_the_engine_is_ready(begin: Simulate) -> None:
    one = begin("--sim-hang-phase", "warmup")
    until(lambda: "Graph capturing finished" in one.out)
    with pytest.raises(ConnectionRefusedError):
        one.connect()


def test_eager_engines_capture_no_graphs(simulate: Simulate) -> None:
    assert "Graph capturing" not in simulate("--enforce-eager").out


def test_loading_takes_its_time(simulate: Simulate) -> None:
    one = simulate("--sim-load-seconds", "weights=0.3,config=0.1")
    assert time.monotonic() - one.started >= 0.4
    took = re.search(r"Loading weights took ([\d.]+) seconds", one.out)
    assert took is not None
    assert float(took[1]) >= 0.3


@pytest.mark.parametrize("phase", PHASES)
def test_loading_can_fail_in_every_phase(begin: Simulate, phase: str) -> None:
    message = "ValueError: Free memory on device cuda:0 is less than desired"
    one = begin("--sim-fail-phase", phase, "--sim-fail-message", message, "--sim-exit-code", "3")
    assert one.wait() == 3
    assert message in one.err
    assert "Traceback (most recent call last):" in one.err
    if phase in ("engine", "weights", "memory", "graph", "warmup"):
        assert one.err.rstrip().endswith(
            "RuntimeError: Engine core initialization failed. See root cause above. "
            "Failed core proc(s): {'EngineCore': 1}"
        )
        assert message in one.out


def test_it_can_end_before_it_does_anything(begin: Simulate) -> None:
    one = begin("--sim-exit-now", "77")
    assert (one.wait(), one.out, one.err) == (77, "", "")


def test_a_port_in_use_is_the_end(begin: Simulate) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        one = begin("--port", str(taken.getsockname()[1]))
        assert one.wait() == 1
    assert one.err.endswith("OSError: [Errno 98] Address already in use\n")


def test_a_socket_that_is_left_from_before_is_the_end(begin: Simulate, short_dir: Path) -> None:
    (short_dir / "sock").touch()
    one = begin("--uds", str(short_dir / "sock"))
    assert one.wait() == 1
    assert "Address already in use" in one.err


@pytest.mark.parametrize(("phase", "code"), [("start", -15), ("weights", -15), ("warmup", -15)])
def test_sigterm_ends_it_while_it_loads(begin: Simulate, phase: str, code: int) -> None:
    one = begin("--sim-hang-phase", phase)
    last = {"start": "non-default args", "weights": "Starting to load", "warmup": "Graph capturing"}[phase]
    until(lambda: last in one.out)
    one.process.send_signal(signal.SIGTERM)
    assert one.wait() == code
    until(lambda: not left(one))


def test_sigterm_can_be_ignored_while_it_loads(begin: Simulate) -> None:
    one = begin("--sim-load-seconds", "weights=0.5", "--sim-ignore-sigterm", "loading")
    until(lambda: "Starting to load" in one.out)
    os.killpg(one.process.pid, signal.SIGTERM)
    one.wait_ready()
    one.process.send_signal(signal.SIGTERM)
    assert one.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: model_tag"),
        (["m", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["m", "--port"], "argument --port: expected one argument"),
        (["m", "--sim-nonsense"], "unrecognized arguments: --sim-nonsense"),
        (["m", "--sim-fail-phase", "lunch"], "argument --sim-fail-phase: invalid choice: 'lunch'"),
        (["m", "--sim-fault", "lunch"], "argument --sim-fault: no such fault: 'lunch'"),
        (["m", "--sim-load-seconds", "lunch=1"], "argument --sim-load-seconds: no such phase: lunch"),
    ],
)
def test_what_it_does_not_understand_it_says(arguments: list[str], complaint: str) -> None:
    done = _command("serve", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_help_lists_every_flag_that_has_an_effect() -> None:
    shown = _command("serve", "--help").stdout
    for flag in [*FLAGS, *SIM_FLAGS]:
        assert f"  --{flag} " in shown


def test_it_has_one_command() -> None:
    assert _command("lunch").returncode == 2
    assert _command("--version").stdout == "0.32.0\n"


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm_circus.simulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
