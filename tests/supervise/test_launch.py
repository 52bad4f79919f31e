"""The launcher becomes the program, with the right environment, or says in one line why it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervise.conftest import is_gone, wait_for
from tests.supervise.engines import SLEEPER, python

LAUNCH = (sys.executable, "-P", "-m", "vllm_circus.supervise.launch")
TELL = python("import json, os; print(json.dumps(dict(os.environ)))")


def launch(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*LAUNCH, *arguments), env=os.environ | environ, capture_output=True, text=True, timeout=30, check=False
    )


def environ_of(*arguments: str, **environ: str) -> dict[str, str]:
    done = launch(*arguments, "--", *TELL, **environ)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told


def private(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def test_variables_of_the_json_file_are_set(tmp_path: Path) -> None:
    values = {"VLLM_API_KEY": "secret", "PRICE": "$5 ; ((x))", "EMPTY": "", "NAME": "Zoë\nline"}
    file = private(tmp_path / "a.json", json.dumps(values))
    seen = environ_of("--environ", file, PRICE="inherited", OTHER="kept")
    assert {name: seen[name] for name in values} == values
    assert seen["OTHER"] == "kept"


def test_variables_of_the_env_file_are_set_and_win(tmp_path: Path) -> None:
    json_file = private(tmp_path / "a.json", '{"TOKEN": "old"}')
    env_file = private(
        tmp_path / "a.env", "# keys\n\nTOKEN=new\nexport QUOTED = \"a b\"\nSINGLE='$x'\nHASH=a#b\nEQUAL=a=b\nEMPTY=\n"
    )
    seen = environ_of("--environ", json_file, "--env-file", env_file)
    expected = {"TOKEN": "new", "QUOTED": "a b", "SINGLE": "$x", "HASH": "a#b", "EQUAL": "a=b", "EMPTY": ""}
    assert {name: seen[name] for name in expected} == expected


def test_a_socket_that_a_killed_engine_left_is_removed_and_nothing_else(short_dir: Path) -> None:
    left, other = short_dir / "engine.sock", short_dir / "file"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    other.write_text("mine")
    for path in (left, other, short_dir / "nothing"):
        environ_of("--free", str(path))
    assert not left.exists()
    assert other.read_text() == "mine"


def test_what_circus_and_circusd_added_is_taken_away() -> None:
    seen = environ_of(__name__="env:model-a", VLLM_CIRCUS_PARENT=str(os.getpid()))
    assert not {"__name__", "VLLM_CIRCUS_PARENT"} & set(seen)


def test_what_is_for_circusd_alone_is_taken_away() -> None:
    theirs = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"), "1")
    seen = environ_of(**theirs, VLLM_CIRCUS_HOME="/x", VLLM_CIRCUS_MARK="/run/x")
    assert not {*theirs, "VLLM_CIRCUS_HOME"} & set(seen)
    assert seen["VLLM_CIRCUS_MARK"] == "/run/x"  # a sweep finds the process by it


def test_a_dropped_variable_does_not_reach_the_program(tmp_path: Path) -> None:
    assert "CLIENT_KEYS" not in environ_of("--drop", "CLIENT_KEYS", CLIENT_KEYS="sk-1,sk-2")
    assert "CLIENT_KEYS" not in environ_of("--drop", "CLIENT_KEYS")
    own = private(tmp_path / "a.env", "CLIENT_KEYS=of the engine's own\n")
    for options in (("--drop", "CLIENT_KEYS", "--env-file", own), ("--env-file", own, "--drop", "CLIENT_KEYS")):
        assert environ_of(*options, CLIENT_KEYS="sk-1")["CLIENT_KEYS"] == "of the engine's own"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "a.env", "TOKEN=secret\n", mode)
    done = launch("--env-file", file, "--", *TELL)
    assert done.returncode == 125
    assert done.stderr == f"vllm-circus: {file}: others can read it; run `chmod 600 {file}`\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("[]", "not an object of strings"), ('{"A": 1}', "not an object of strings")],
)
def test_a_broken_json_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    done = launch("--environ", private(tmp_path / "a.json", text), "--", "true")
    assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (125, True, 1)


def test_a_broken_line_is_named_without_showing_it(tmp_path: Path) -> None:
    file = private(tmp_path / "a.env", "A=1\nhf_secret\n")
    done = launch("--env-file", file, "--", "true")
    assert (done.returncode, done.stderr) == (125, f"vllm-circus: {file}:2: not NAME=value\n")


def test_a_missing_file_is_said() -> None:
    done = launch("--environ", "/nowhere/a.json", "--", "true")
    assert (done.returncode, done.stderr) == (125, "vllm-circus: /nowhere/a.json: No such file or directory\n")


@pytest.mark.parametrize("arguments", [(), ("--",), ("true",), ("--environ",), ("--other", "x", "--", "true")])
def test_wrong_options_are_answered_with_the_usage(arguments: tuple[str, ...]) -> None:
    done = launch(*arguments)
    assert done.returncode == 125
    assert "usage:" in done.stderr


def test_a_program_that_is_not_there_exits_127() -> None:
    done = launch("--", "/nowhere/vllm", "serve")
    assert (done.returncode, done.stderr) == (127, "vllm-circus: /nowhere/vllm: no such program\n")


def test_a_program_that_cannot_be_executed_exits_126(tmp_path: Path) -> None:
    program = private(tmp_path / "vllm", "#!/bin/sh\n", 0o644)
    done = launch("--", program)
    assert (done.returncode, done.stderr) == (
        126,
        f"vllm-circus: {program}: cannot be executed: Permission denied\n",
    )


def test_the_exit_code_and_arguments_are_the_programs_own() -> None:
    done = launch("--", *python("import sys; print(sys.argv[1:]); sys.exit(7)", "--", "a b", ""))
    assert (done.returncode, done.stdout) == (7, "['--', 'a b', '']\n")


def test_the_program_ends_when_its_starter_is_killed() -> None:
    start = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)"
    )
    told = python("import time; print('up', flush=True); time.sleep(600)")
    with subprocess.Popen((sys.executable, "-c", start, *LAUNCH, "--", *told), stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    wait_for(lambda: is_gone(pid), 5)


def test_a_starter_that_is_dead_already_ends_the_start() -> None:
    done = launch("--", *SLEEPER, VLLM_CIRCUS_PARENT="1")
    assert done.returncode == 125
    assert "circusd died" in done.stderr


def test_a_signal_reaches_the_program_under_the_same_pid() -> None:
    with subprocess.Popen((*LAUNCH, "--", *python("print('up', flush=True); import time; time.sleep(600)")),
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
    assert process.returncode == -signal.SIGTERM
