"""`logs`, on files that somebody else writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vllm_circus.logline import encode
from vllm_circus.paths import Instance
from vllm_circus.supervise.lock import hold_lock


def write(instance: Instance, part: str, *lines: str, ago: float = 0.0, channel: str = "O") -> None:
    log = instance.log(part)
    log.parent.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC) - timedelta(seconds=ago)
    with log.open("a") as file:
        for number, line in enumerate(lines):
            file.write(encode(at + timedelta(milliseconds=number), "E" if channel == "E" else "O", line))


def test_nothing_is_shown_where_nothing_was_written(command: Command) -> None:
    assert command("logs") == command("logs", "proxy")
    assert command("logs").out == ""


def test_all_parts_are_mixed_by_time(command: Command, instance: Instance) -> None:
    write(instance, "qwen", "second", ago=20)
    write(instance, "proxy", "first", ago=30)
    write(instance, "health", "third", ago=10)
    assert command("logs").out.splitlines() == ["proxy   | first", "qwen    | second", "health  | third"]


def test_one_part_is_shown_bare(command: Command, instance: Instance) -> None:
    write(instance, "qwen", "one", "two")
    write(instance, "proxy", "other")
    assert command("logs", "qwen").out == "one\ntwo\n"


def test_the_last_lines_of_each_part(command: Command, instance: Instance) -> None:
    write(instance, "qwen", *(f"line {n}" for n in range(200)))
    assert len(command("logs", "qwen").out.splitlines()) == 100
    assert command("logs", "qwen", "-n", "2").out == "line 198\nline 199\n"
    assert len(command("logs", "qwen", "-n", "all").out.splitlines()) == 200
    assert command("logs", "qwen", "-n", "0").out == ""


def test_since_and_grep_choose_lines(command: Command, instance: Instance) -> None:
    write(instance, "qwen", "old error", ago=3600)
    write(instance, "qwen", "new error", "new word", ago=5)
    assert command("logs", "qwen", "--since", "10m").out == "new error\nnew word\n"
    assert command("logs", "qwen", "--grep", "err.r").out == "old error\nnew error\n"
    assert command("logs", "qwen", "--grep", "error", "--since", "10m").out == "new error\n"


def test_models_of_an_earlier_set_are_shown_where_they_are_named(
    command: Command, instance: Instance, models_file: Path
) -> None:
    command("render", str(models_file), "--output", str(instance.run_dir))
    write(instance, "gone", "long ago", ago=90)
    write(instance, "alpha", "now")
    for names in ((), ("all",), ("alpha", "all")):
        assert command("logs", *names).out == "alpha   | now\n"
    assert command("logs", "gone").out == "long ago\n"


def test_json_is_one_document_a_line(command: Command, instance: Instance) -> None:
    write(instance, "qwen", "hello", channel="E")
    (line,) = command("logs", "--json", "qwen").out.splitlines()
    document = json.loads(line)
    assert {key: document[key] for key in ("part", "channel", "text")} == {
        "part": "qwen",
        "channel": "stderr",
        "text": "hello",
    }


def test_an_unknown_model_is_answered_with_a_guess(command: Command, instance: Instance) -> None:
    write(instance, "qwen", "hello")
    outcome = command("logs", "qwem")
    assert outcome.code == 4
    assert outcome.err == "error: no model 'qwem'\nhint: did you mean `qwen`?\n"


def test_where_nothing_runs_that_is_said_of_a_name_that_nobody_knows(command: Command, instance: Instance) -> None:
    outcome = command("logs", "chat")
    assert outcome.code == 3
    assert outcome.err.startswith("error: vllm-circus is not running\nhint: start it with `vllm-circus up -d`")
    with hold_lock(instance):
        assert command("logs", "chat").code == 4


def test_an_alias_is_answered_with_the_model_behind_it(command: Command, instance: Instance, models_file: Path) -> None:
    command("render", str(models_file), "--output", str(instance.run_dir))
    outcome = command("logs", "first")
    assert (outcome.code, outcome.err) == (4, "error: no model 'first'\nhint: `first` is an alias of `alpha`\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--grep", "("), "is not a regular expression"),
        (("--since", "soon"), "is neither a span"),
        (("-n", "-3"), "is neither a number nor `all`"),
        (("-n", "x"), "is neither a number nor `all`"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...], words: str, command: Command) -> None:
    outcome = command("logs", *arguments)
    assert outcome.code == 2
    assert words in outcome.err


@pytest.fixture
def following(instance: Instance) -> Iterator[subprocess.Popen[str]]:
    """`vllm-circus logs -f` in a process of its own, that has begun."""
    write(instance, "circusd", "begin")
    process = subprocess.Popen([sys.executable, "-m", "vllm_circus", "logs", "-f"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "circusd | begin\n"
    yield process
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.timeout(60)
def test_new_lines_are_shown_as_they_come(following: subprocess.Popen[str], instance: Instance) -> None:
    assert following.stdout is not None
    write(instance, "circusd", "one")
    assert following.stdout.readline() == "circusd | one\n"
    instance.log("circusd").replace(instance.log_dir / "circusd.log.1")
    write(instance, "circusd", "two")
    assert following.stdout.readline() == "circusd | two\n"


@pytest.mark.timeout(60)
def test_a_log_that_comes_later_is_shown(following: subprocess.Popen[str], instance: Instance) -> None:
    assert following.stdout is not None
    write(instance, "proxy", "hello")
    assert following.stdout.readline() == "proxy   | hello\n"
    write(instance, "new-model", "hello")
    assert following.stdout.readline() == "new-model | hello\n"
