"""The tree of processes: what it looks like, and who survives whom."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from .running import Running, Simulate, left, read_all, until


def test_the_engine_is_a_process_with_a_worker_for_each_gpu(simulate: Simulate) -> None:
    one = simulate("--tensor-parallel-size", "2")
    core = psutil.Process(one.process.pid).children()
    assert [child.cmdline()[0] for child in core] == ["VLLM::EngineCore"]
    assert sorted(child.cmdline()[0] for child in core[0].children()) == ["VLLM::Worker_TP0", "VLLM::Worker_TP1"]
    for child in one.tree().values():
        assert (os.getsid(child.pid), os.getpgid(child.pid)) == (one.process.pid, one.process.pid)


def test_the_titles_wipe_the_environment(simulate: Simulate) -> None:
    one = simulate(environ={"A_MARK": "here"})
    assert b"A_MARK=here" in Path(f"/proc/{one.process.pid}/environ").read_bytes()
    for title, child in one.tree().items():
        shown = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert shown == bytes(len(shown))
        assert Path(f"/proc/{child.pid}/cmdline").read_bytes().rstrip(b"\0") == title.encode()
        assert Path(f"/proc/{child.pid}/comm").read_text() == title[:15] + "\n"


def test_the_death_of_the_engine_is_the_end_with_code_0(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "30", "--sim-death-seconds", "0.5")
    with one.stream() as stream:
        one.tree()["VLLM::EngineCore"].kill()
        until(lambda: one.ask("GET", "/health").status == 503)
        assert one.chat().status == 500
        assert b"EngineCore encountered an issue" in read_all(stream)
    assert one.wait() == 0
    assert not left(one)


def test_the_death_of_a_worker_is_that_of_the_engine(simulate: Simulate) -> None:
    one = simulate("--tensor-parallel-size", "2")
    begun = time.monotonic()
    one.tree()["VLLM::Worker_TP1"].kill()
    assert one.wait() == 0
    assert 1 <= time.monotonic() - begun < 5
    assert "died unexpectedly" in one.out
    assert not left(one)


def test_the_engine_outlives_a_killed_server(begin: Simulate) -> None:
    one = begin("--sim-orphan-seconds", "1").wait_ready()
    one.process.kill()
    one.wait()
    assert left(one) == ["VLLM::EngineCore", "VLLM::Worker"]
    until(lambda: not left(one))


def test_an_orphan_ends_by_sigterm(begin: Simulate) -> None:
    one = begin("--sim-orphan-seconds", "60").wait_ready()
    one.process.kill()
    one.wait()
    os.killpg(one.process.pid, signal.SIGTERM)
    until(lambda: not left(one))


def test_an_orphan_does_not_hold_the_port(begin: Simulate) -> None:
    one = begin("--sim-orphan-seconds", "60").wait_ready()
    one.process.kill()
    one.wait()
    begin("--port", str(one.port))
    until(lambda: not _refused(one))


def _refused(one: Running) -> bool:
    try:
        one.connect().close()
    except ConnectionRefusedError:
        return True
    return False
