"""`up` in the foreground, whose readers leave: a pipe that is closed, a terminal that is hung up."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import PATIENCE, PROGRAM, Circus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def is_over(circus: Circus) -> bool:
    """Whether nothing of the set is left."""
    return "is not running" in circus("status", code=3).stderr and circus.processes() == []


def test_the_set_ends_when_the_reader_of_the_log_leaves(circus: Circus, models_file: Path) -> None:
    up = circus.begin("up", str(models_file))
    assert up.stdout is not None
    assert up.stderr is not None
    up.stdout.readline()
    up.stdout.close()
    said = up.stderr.read()
    assert up.wait(PATIENCE) == 141
    assert "whoever read this has gone; stopping" in said
    assert said.endswith("stopped\n")
    assert is_over(circus)


def test_the_set_ends_when_nobody_reads_anything(circus: Circus, models_file: Path) -> None:
    command = [PROGRAM, "up", str(models_file)]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=circus.environ)
    assert up.stdout is not None
    up.stdout.readline()
    up.stdout.close()
    assert up.wait(PATIENCE) == 141
    assert is_over(circus)


def test_a_quiet_set_ends_when_its_reader_leaves(circus: Circus, models_file: Path) -> None:
    up = circus.begin("up", str(models_file))
    assert up.stdout is not None
    assert up.stderr is not None
    while "beta: ready" not in up.stderr.readline():
        pass
    up.stdout.close()
    up.stderr.close()
    assert up.wait(PATIENCE) == 141
    assert is_over(circus)


def test_the_set_ends_with_its_terminal(circus: Circus, models_file: Path) -> None:
    child = pexpect.spawn(PROGRAM, ["up", str(models_file)], env=circus.environ, encoding="utf-8", timeout=PATIENCE)
    child.expect("alpha: ready")
    os.close(child.fileno())  # the kernel sends SIGHUP, and nothing can be written any more
    child.child_fd = -1
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 130
    child.closed = child.terminated = True
    assert is_over(circus)


@pytest.mark.parametrize("both", [False, True])
def test_the_set_ends_when_its_output_cannot_be_written(both: bool, circus: Circus, models_file: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        up = subprocess.run(
            [PROGRAM, "up", str(models_file)],
            stdout=full,
            stderr=full if both else subprocess.PIPE,
            env=circus.environ,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert up.returncode == 1
    if not both:
        assert "the output cannot be written: No space left on device; stopping; " in up.stderr
        assert "\nstopped\nerror: the output cannot be written: No space left on device\n" in up.stderr
        assert "bug" not in up.stderr
    assert is_over(circus)


@pytest.mark.parametrize("both", [False, True])
def test_a_demo_whose_output_cannot_be_written_leaves_nothing(both: bool, circus: Circus) -> None:
    with Path("/dev/full").open("wb") as full:
        stderr = full if both else subprocess.DEVNULL
        demo = subprocess.run(
            [PROGRAM, "demo"], stdout=full, stderr=stderr, env=circus.environ, timeout=PATIENCE, check=False
        )
    assert demo.returncode == 1
    assert is_over(Circus(circus.home, "demo"))


def test_a_demo_that_nobody_reads_leaves_nothing(circus: Circus) -> None:
    command = [PROGRAM, "demo"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=circus.environ)
    assert demo.stdout is not None
    demo.stdout.readline()
    demo.stdout.close()
    assert demo.wait(PATIENCE) == 141
    assert is_over(Circus(circus.home, "demo"))


def test_what_up_has_said_is_not_said_again_by_the_log(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    path = short_dir / "open.yaml"
    path.write_text(
        f"proxy: {{host: 0.0.0.0, port: {free_port()}}}\n"
        f"models: [{{name: a, model: sim/a, engine: simulator, port: {free_port()}}}]\n"
    )
    command = [PROGRAM, "up", str(path)]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=circus.environ, text=True)
    circus.children.append(up)
    assert up.stdout is not None
    told = ""
    while "a: ready" not in told:
        told += up.stdout.readline()
    up.send_signal(signal.SIGINT)
    told += up.communicate(timeout=PATIENCE)[0]
    assert told.count("everybody who reaches 0.0.0.0") == 1
    assert told.rstrip().endswith("stopped")  # behind the last line of the log
    assert "instance default has ended" in told
    assert "everybody who reaches 0.0.0.0" in circus("logs", "circusd").stdout


def test_what_was_said_at_the_start_is_not_said_again_by_each_change(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    path = short_dir / "open.yaml"
    path.write_text(
        f"proxy: {{host: 0.0.0.0, port: {free_port()}}}\n"
        f"models: [{{name: a, model: sim/a, engine: simulator, port: {free_port()}}}]\n"
    )
    assert "everybody who reaches 0.0.0.0" in circus("up", str(path), "-d").stderr
    told = [
        circus("add", "sim/b", "--engine", "simulator", "--port", str(free_port()), "--yes", "--no-wait"),
        circus("remove", "b", "--yes", "--no-wait"),
        circus("reload", "--yes", "--no-wait"),
    ]
    assert not any("everybody who reaches" in done.stdout + done.stderr for done in told)
    path.write_text(path.read_text().replace("0.0.0.0", "'::'"))
    assert "everybody who reaches [::]" in circus("reload", "--dry-run").stderr
