"""Who is stopped at two looks, one after the other, has been forgotten; nobody else is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from vllm_circus.supervise.proc import Process, read_process
from vllm_circus.supervise.stopped import StoppedWatch


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def seen(child: subprocess.Popen[bytes]) -> list[Process]:
    """It, as /proc shows it now."""
    process = read_process(child.pid)
    return [process] if process else []


def stop(child: subprocess.Popen[bytes]) -> None:
    """Stop it, and wait until it is."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_stopped_process_is_told_at_the_second_look(child: subprocess.Popen[bytes]) -> None:
    watch = StoppedWatch()
    assert watch.look(seen(child)) == ()
    stop(child)
    assert watch.look(seen(child)) == ()
    assert [process.pid for process in watch.look(seen(child))] == [child.pid]


def test_one_that_goes_on_between_two_looks_is_spared(child: subprocess.Popen[bytes]) -> None:
    watch = StoppedWatch()
    stop(child)
    assert watch.look(seen(child)) == ()
    child.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, child.pid, os.WCONTINUED)
    assert watch.look(seen(child)) == ()
    stop(child)
    assert watch.look(seen(child)) == ()


def test_one_that_has_ended_is_nobody(child: subprocess.Popen[bytes]) -> None:
    watch = StoppedWatch()
    stop(child)
    watch.look(seen(child))
    child.kill()
    child.wait()
    assert watch.look(seen(child)) == ()
