"""Broken models files: every command refuses them, says where, and starts and writes nothing."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.config.test_faults_of_values import BROKEN, GOOD

ENGINE = "defaults: {engine: simulator}\n"
TWO = f"{ENGINE}models:\n- {{name: a, model: x, %s}}\n- {{name: b, model: y, %s}}\n"

#: What is wrong only when values are seen together: text, and the lines that are named.
CONFLICTS = {
    "one GPU for two models": (TWO % ("gpus: [0]", "gpus: [0]"), [4]),
    "one port for two models": (TWO % ("port: 18001", "port: 18001"), [4]),
    "one alias for two models": (TWO % ("aliases: [c]", "aliases: [c]"), [4]),
    "an alias that is a name": (TWO % ("aliases: [b]", "aliases: []"), [3]),
    "one name for two models": (ENGINE + "models:\n- {name: a, model: x}\n- {name: a, model: y}\n", [4]),
    "the proxy's port for a model": ("proxy: {port: 18001}\n" + TWO % ("port: 18001", "port: 18002"), [4]),
    "a profile that is not there": (TWO % ("profile: nope", "profile: standard"), [3]),
    "several at once": (TWO % ("profile: nope", "gpus: [0, 0], profile: nope"), [3, 4]),
}

COMMANDS = (("check",), ("check", "--json"), ("render",), ("render", "--diff"), ("up", "-d"), ("up",), ("run",))


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models file for each test to spoil, on a machine that has a `vllm`: nothing else is wrong then."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "vllm").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return tmp_path / "models.yaml"


def refused(command: Command, arguments: tuple[str, ...], path: Path, home: Path) -> list[int]:
    """Run it on a broken file, check that nothing came of it, and return the lines that it names."""
    outcome = command(*arguments, str(path))
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert "nothing was started or written" in outcome.err
    assert outcome.err.replace("\n", "").isprintable()
    assert [entry.name for entry in home.iterdir()] == []
    faults = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert all(fault.startswith(f"error: {path}:") for fault in faults)
    return [int(found[1]) if (found := re.match(rf"error: {re.escape(str(path))}:(\d+)", f)) else 0 for f in faults]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("text", "line"), [case[:2] for case in BROKEN.values()], ids=BROKEN.keys())
def test_a_broken_value_is_refused_with_its_line(
    text: str, line: int, broken: Path, command: Command, home: Path
) -> None:
    broken.write_text(text, encoding="utf-8")
    assert refused(command, ("check",), broken, home) == [line]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("text", "lines"), CONFLICTS.values(), ids=CONFLICTS.keys())
def test_a_conflict_is_refused_with_its_lines(
    text: str, lines: list[int], broken: Path, command: Command, home: Path
) -> None:
    broken.write_text(text)
    assert sorted(set(refused(command, ("check",), broken, home))) == lines


@pytest.mark.usefixtures("quiet")
def test_values_and_conflicts_are_told_in_one_go(broken: Path, command: Command, home: Path) -> None:
    broken.write_text("proxy: {prot: 1}\n" + TWO % ("gpus: [0], prioirty: 1", "gpus: [0], profile: nope"))
    assert refused(command, ("check",), broken, home) == [1, 4, 5, 5]


@pytest.mark.usefixtures("quiet")
def test_nothing_is_said_against_what_only_follows_from_another_fault(
    broken: Path, command: Command, home: Path
) -> None:
    alias_left_out = "proxy: {default_model: c}\n" + TWO % ("aliases: [c, '']", "priority: 1")
    for text, line in {alias_left_out: 4, "profiles: {Fast: {}}\n" + TWO % ("profile: Fast", "port: 18002"): 1}.items():
        broken.write_text(text)
        assert refused(command, ("check",), broken, home) == [line]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_broken_file(
    arguments: tuple[str, ...], broken: Path, command: Command, home: Path
) -> None:
    for text in (GOOD + "  prot: 1\n", CONFLICTS["one GPU for two models"][0]):
        broken.write_text(text)
        assert refused(command, arguments, broken, home) == [4]


def test_a_port_that_somebody_listens_on_is_refused(broken: Path, command: Command, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broken.write_text(f"proxy: {{port: {port}}}\n" + TWO % ("port: 18001", "port: 18002"))
        assert refused(command, ("up", "-d"), broken, home) == [1]


def test_a_file_that_cannot_be_read_is_refused(broken: Path, command: Command) -> None:
    broken.write_bytes(b"models: \xff\xfe\x00")
    outcome = command("check", str(broken))
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {broken}")
