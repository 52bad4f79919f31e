"""The group: help, versions, guesses, and that help imports nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Command
from vllm_circus import __version__
from vllm_circus.cli import operate
from vllm_circus.cli.app import ABOUT_NO_SET, ALIASES, COMMANDS, app
from vllm_circus.cli.common import Session
from vllm_circus.cli.logs import logs
from vllm_circus.files import private_directory
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.lock import hold_lock
from vllm_circus.view.logs import PARTS

HEAVY = ("rich", "pydantic", "tornado", "requests", "circus", "zmq", "yaml", "psutil", "asyncio", "pynvml")


def imported_by(*arguments: str) -> set[str]:
    """Which heavy modules a command line imports, in an interpreter of its own."""
    code = (
        "import sys\n"
        "from vllm_circus.cli.outcome import run_safely\n"
        f"run_safely({list(arguments)!r})\n"
        "print('MODULES', *sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(HEAVY) & set(shown.rsplit("MODULES", 1)[1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("statsu",), ("status", "--help"), ("up", "-h")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) == set()


def test_status_imports_no_schema_and_no_event_loop(home: object) -> None:
    assert imported_by("status") <= {"zmq", "psutil"}


def test_the_command_alone_prints_help(command: Command) -> None:
    outcome = command()
    assert outcome.code == 0
    assert "Serve several language models from one box" in outcome.out


def test_a_group_alone_prints_its_help_and_is_a_usage_error(command: Command) -> None:
    outcome = command("service")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: vllm-circus service ")
    assert "uninstall" in outcome.err


def test_help_names_every_command_under_its_heading(command: Command) -> None:
    text = command("-h").out
    for entry in COMMANDS:
        assert f"{entry.name}" in text
        assert entry.summary in text
        assert f"{entry.heading}:" in text


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_exists_and_has_help(entry: object, command: Command) -> None:
    name = entry.name  # type: ignore[attr-defined] # parametrised with Entry
    outcome = command(name, "-h")
    assert outcome.code == 0
    assert f"Usage: vllm-circus {name}" in outcome.out


def test_every_command_has_a_module_of_its_own_package() -> None:
    for entry in COMMANDS:
        assert find_spec(entry.target.split(":")[0]), entry


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version").out == f"vllm-circus {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("statsu", "status"),
        ("lgos", "logs"),
        ("stat", "status"),
        ("star", "start"),
        ("mod", "models"),
        ("strat", "start"),
    ],
)
def test_an_unknown_command_is_answered_with_a_guess(typed: str, meant: str, command: Command) -> None:
    outcome = command(typed)
    assert outcome.code == 2
    assert outcome.err == (
        f"error: no such command: {typed}; did you mean `{meant}`?\nhint: `vllm-circus --help` shows how\n"
    )


def test_an_unknown_command_that_resembles_nothing_has_no_guess(command: Command) -> None:
    assert "did you mean" not in command("xyzzy").err


def test_aliases_lead_to_commands() -> None:
    context = click.Context(app)
    for alias, name in ALIASES.items():
        assert app.get_command(context, alias) is app.get_command(context, name)


@pytest.mark.parametrize("name", sorted(ABOUT_NO_SET))
def test_what_is_about_no_set_refuses_an_instance_instead_of_ignoring_it(name: str, command: Command) -> None:
    before, after = command("--instance", "other", name), command(name, "--instance", "other")
    assert (before.code, before.out, after.code, after.out) == (2, "", 2, "")
    assert f"error: {name} is about no set: it takes no --instance\n" in before.err
    assert "--instance" in after.err


@pytest.mark.parametrize("group", ["config", "profiles", "shortcuts", "settings", "models"])
@pytest.mark.parametrize("first", [True, False])
def test_the_instance_may_stand_behind_a_group_and_behind_its_command(
    group: str, first: bool, command: Command
) -> None:
    sub = "show" if group == "settings" else "list"
    words = [group, "--instance", "../etc", sub] if first else [group, sub, "--instance", "../etc"]
    outcome = command(*words)
    assert outcome.code == 2
    assert "instance name '../etc' is not usable" in outcome.err


def test_a_group_hands_its_instance_on(command: Command, home: Path, models_file: Path) -> None:
    find_instance("other").config_dir.mkdir(parents=True)
    find_instance("other").config_file.write_text(models_file.read_text())
    assert command("config", "save", "mine").code == 2
    assert command("config", "--instance", "other", "save", "mine").code == 0


@pytest.mark.parametrize("arguments", [("--instance", "other", "status"), ("status", "--instance", "other")])
def test_the_instance_may_stand_before_and_after_the_command(arguments: tuple[str, ...], command: Command) -> None:
    outcome = command(*arguments)
    assert outcome.code == 3
    assert "instance 'other' is not running" in outcome.err
    assert "vllm-circus --instance other up -d" in outcome.err


def test_the_instances_that_do_run_are_told(command: Command, home: Path) -> None:
    for name in ("second", "third"):
        private_directory(home / "run" / name)
    with hold_lock(find_instance("second")):
        outcome = command("status")
        assert outcome.code == 3
        assert outcome.err.endswith(" up -d`; what runs is `--instance second`\n")
    assert "what runs is" not in command("status").err


@pytest.mark.parametrize("options", [("--json",), ("--json", "-w")])
def test_the_status_of_what_does_not_run_is_a_document_too(options: tuple[str, ...], command: Command) -> None:
    outcome = command("status", *options)
    assert outcome.code == 3
    assert json.loads(outcome.out) == {"instance": "default", "running": False, "ready": False}
    assert outcome.err.startswith("error: vllm-circus is not running\n")


def test_an_instance_that_cannot_be_a_folder_is_refused(command: Command) -> None:
    outcome = command("--instance", "../etc", "status")
    assert outcome.code == 2
    assert "instance name '../etc' is not usable" in outcome.err


@pytest.mark.parametrize("command_words", [("down",), ("stop", "x"), ("up", "-d", "--wait")])
@pytest.mark.parametrize("span", ["soon", "-1", "nan", "inf", "10s"])
def test_a_timeout_is_a_number_of_seconds(command_words: tuple[str, ...], span: str, command: Command) -> None:
    outcome = command(*command_words, "--timeout", span)
    assert outcome.code == 2
    assert f"Invalid value for '--timeout': {span!r} is no number of seconds, 0 or more" in outcome.err


def test_the_shell_completes_commands_and_options(home: object) -> None:
    def completed(words: str, at: int) -> list[str]:
        wish = {"COMP_WORDS": words, "COMP_CWORD": str(at), "_VLLM_CIRCUS_COMPLETE": "bash_complete"}
        command = [sys.executable, "-m", "vllm_circus"]
        run = subprocess.run(command, env={**os.environ, **wish}, capture_output=True, text=True, check=True)
        return [line.removeprefix("plain,") for line in run.stdout.splitlines()]

    assert completed("vllm-circus st", 1) == ["status", "start", "stop"]
    assert completed("vllm-circus logs --si", 2) == ["--since"]


def test_the_shell_completes_models_of_the_last_plan(
    home: object, instance: Instance, command: Command, models_file: Path
) -> None:
    command("render", str(models_file), "--output", str(instance.run_dir))

    def completed(of: click.Command, incomplete: str) -> list[str]:
        (argument,) = [p for p in of.params if isinstance(p, click.Argument)]
        return [item.value for item in argument.shell_complete(click.Context(of, obj=Session()), incomplete)]

    assert completed(operate.start, "al") == ["alpha", "all"]
    assert completed(logs, "") == ["alpha", "beta", "all", *PARTS]
