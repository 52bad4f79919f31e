"""What the shell offers behind a command: names that are kept, files and folders."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Command
from vllm_circus.cli.app import COMMANDS, app
from vllm_circus.paths import Instance

WITHIN = 30.0  # seconds until bash has answered
#: A program that completes as ours does, and otherwise says what it was given.
PROGRAM = """\
#!/bin/sh
if [ "$_VLLM_CIRCUS_COMPLETE" ]; then exec "{python}" -m vllm_circus; fi
printf '<'; printf '[%s]' "$@"; printf '>\\n'
"""


def completed(words: str, shell: str = "bash") -> list[str]:
    """What the completion of the last word, or of an empty one behind a space, tells the shell."""
    *before, last = words.split(" ")
    position = last if shell == "fish" else str(len(before))
    wish = {"COMP_WORDS": words, "COMP_CWORD": position, "_VLLM_CIRCUS_COMPLETE": f"{shell}_complete"}
    command = [sys.executable, "-m", "vllm_circus"]
    run = subprocess.run(command, env={**os.environ, **wish}, capture_output=True, text=True, check=True)
    return run.stdout.splitlines() if run.stdout.strip() else []


@pytest.fixture
def saved(command: Command, models_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two saved configurations, and the folder of a models file to be in."""
    for name in ("hall", "night"):
        assert command("config", "save", name, str(models_file)).code == 0
    monkeypatch.chdir(models_file.parent)
    return models_file.parent


def every_command() -> Iterator[tuple[str, click.Command]]:
    for entry in COMMANDS:
        command = app.get_command(click.Context(app), entry.name)
        assert command is not None
        yield entry.name, command
        for name, sub in getattr(command, "commands", {}).items():
            yield f"{entry.name} {name}", sub


def test_whatever_is_a_file_or_a_folder_is_left_to_the_shell() -> None:
    kinds = {"FILE": "file", "[FILE]": "file", "[CONFIG]": "file", "DIR": "dir", "[PATH]": "dir"}
    seen = set()
    for words, command in every_command():
        for parameter in command.params:
            context = click.Context(command)
            metavar = parameter.make_metavar(context)
            if metavar in kinds:
                first = parameter.shell_complete(context, "mo")[0]
                assert (first.type, first.value) == (kinds[metavar], "mo"), (words, parameter.name)
                seen.add(f"{words} {metavar}")
    assert {"up [CONFIG]", "config import FILE", "config save [FILE]", "fit FILE", "models folders [PATH]"} <= seen


@pytest.mark.parametrize("command_words", ["up", "run", "check", "doctor", "render", "reload", "config save x"])
@pytest.mark.usefixtures("saved")
def test_a_saved_configuration_is_offered_beside_files(command_words: str) -> None:
    assert completed(f"vllm-circus {command_words} ni") == ["file,ni", "plain,night"]
    assert completed(f"vllm-circus {command_words} ") == ["file,", "plain,hall", "plain,night"]


@pytest.mark.usefixtures("saved")
def test_an_option_that_names_a_models_file_offers_both_in_every_spelling() -> None:
    assert completed("vllm-circus fit --config ni") == ["file,ni", "plain,night"]
    assert completed("vllm-circus fit --config = ni") == ["file,ni", "plain,night"]  # as bash splits it
    assert completed("vllm-circus fit --config =") == ["file,", "plain,hall", "plain,night"]
    assert completed("vllm-circus fit --config=ni", "zsh") == ["file", "ni", "_", "plain", "night", "_"]
    assert completed("vllm-circus fit --config ni", "fish") == ["file,ni", "plain,night"]


@pytest.mark.usefixtures("saved")
def test_what_takes_a_saved_name_alone_offers_no_files() -> None:
    assert completed("vllm-circus config show n") == ["plain,night"]
    assert completed("vllm-circus remove --to n") == ["plain,night"]


@pytest.mark.usefixtures("saved")
def test_an_instance_that_cannot_be_called_so_is_no_reason_to_offer_no_files() -> None:
    assert completed("vllm-circus --instance ../etc check mo") == ["file,mo"]


def test_a_model_is_a_folder_or_one_of_the_set(command: Command, instance: Instance, models_file: Path) -> None:
    command("render", str(models_file), "--output", str(instance.run_dir))
    assert completed("vllm-circus fit al") == ["dir,al", "plain,alpha"]
    assert completed("vllm-circus add al") == ["dir,al"]


@pytest.mark.usefixtures("saved")
def test_remove_offers_the_models_of_the_file_that_it_changes(instance: Instance) -> None:
    assert completed("vllm-circus remove ") == []
    instance.config_file.parent.mkdir(parents=True, exist_ok=True)
    instance.config_file.write_text("models: [{name: gamma, model: sim/g}, {name: delta, model: sim/d}, wrong]")
    assert completed("vllm-circus remove ") == ["plain,gamma", "plain,delta"]
    assert completed("vllm-circus remove --to night ") == ["plain,alpha", "plain,beta"]
    assert completed("vllm-circus remove --to=night b") == ["plain,beta"]
    assert completed("vllm-circus remove --to nobody ") == []
    assert completed("vllm-circus fit g") == ["dir,g", "plain,gamma"]
    assert completed("vllm-circus fit --config night b") == ["dir,b", "plain,beta"]
    instance.config_file.write_text("models: [")
    assert completed("vllm-circus remove ") == []


def test_profiles_and_shortcuts_are_offered_wherever_one_is_named(command: Command, instance: Instance) -> None:
    assert command("profiles", "new", "lean").code == 0
    assert command("shortcuts", "new", "light", "--model", "sim/light").code == 0
    instance.config_file.write_text("profiles: {loud: {}}\nmodels: []")
    for words in ("add --profile lo", "shortcuts new x --model m --profile lo"):
        assert completed(f"vllm-circus {words}") == ["plain,loud", "plain,low_memory"]
    for words in ("profiles show l", "profiles new x --from l"):
        assert completed(f"vllm-circus {words}") == ["plain,lean", "plain,low_memory"]
    assert completed("vllm-circus profiles edit l") == ["plain,lean"]
    assert completed("vllm-circus add --shortcut l") == ["plain,light"]


@pytest.mark.parametrize("words", ["settings set", "settings unset", "settings show"])
@pytest.mark.usefixtures("home")
def test_settings_are_offered_by_their_keys(words: str) -> None:
    assert completed(f"vllm-circus {words} model_") == ["plain,model_folders"]
    assert "plain,proxy.port" in completed(f"vllm-circus {words} proxy.")


def test_instances_that_have_anything_kept_are_offered(command: Command, instance: Instance, models_file: Path) -> None:
    assert completed("vllm-circus --instance ") == ["plain,default"]
    for folder in (instance.config_dir, instance.run_dir.parent / "hall", instance.state_dir.parent / "night"):
        folder.mkdir(parents=True)
    (instance.config_dir / "lab.yaml").touch()
    (instance.config_dir / "Not One.yaml").touch()
    (instance.config_dir / "settings.yaml").touch()
    expected = ["plain,default", "plain,hall", "plain,lab", "plain,night"]
    assert completed("vllm-circus --instance ") == expected
    assert completed("vllm-circus status --instance ") == expected
    assert completed("vllm-circus up --instance=l") == ["plain,lab"]
    assert command("--instance", "lab", "check", str(models_file)).code == 0


def test_every_name_of_something_kept_is_completed() -> None:
    new = {"config save NAME", "profiles new NAME", "shortcuts new NAME", "add NAME", "config import NAME"}
    new |= {f"{group} import NAME" for group in ("profiles", "shortcuts")}
    new |= {"add --alias", "shortcuts new --alias"}
    for words, command in every_command():
        for parameter in command.params:
            metavar = parameter.make_metavar(click.Context(command))
            wish = f"{words} {parameter.opts[0] if parameter.name == 'aliases' else metavar}"
            named = metavar.strip("[].") in {"NAME", "KEY", "MODEL", "PROFILE", "OLD", "CONFIG"}
            if named and wish not in new:
                own = parameter._custom_shell_complete  # click tells nobody else
                assert own is not None, (words, parameter.name)


@pytest.mark.usefixtures("saved")
def test_zsh_gets_three_lines_for_each_item_and_none_is_empty() -> None:
    assert completed("vllm-circus up ", "zsh") == ["file", "_", "_", "plain", "hall", "_", "plain", "night", "_"]
    assert completed("vllm-circus config save x ha", "zsh") == ["file", "ha", "_", "plain", "hall", "_"]


def test_fish_gets_descriptions_with_their_commas_and_splits_at_the_first() -> None:
    assert completed("vllm-circus dow", "fish") == ["plain,down\tStop the set: drain, then end every process of it."]
    wish = {**os.environ, "_VLLM_CIRCUS_COMPLETE": "fish_source"}
    source = subprocess.run([sys.executable, "-m", "vllm_circus"], env=wish, capture_output=True, text=True, check=True)
    assert 'string split --max 1 ","' in source.stdout


# -- a real bash -------------------------------------------------------------------------------------------------------

Type = Callable[[str], str]


@pytest.fixture
def typed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    """Types a line at a bash that has our completion, and tells what our program was given."""
    programs = saved / "bin"
    programs.mkdir()
    (programs / "vllm-circus").write_text(PROGRAM.format(python=sys.executable))
    (programs / "vllm-circus").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("INPUTRC", os.devnull)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

    def await_text(end: bytes) -> bytes:
        text, until = b"", time.monotonic() + WITHIN
        while end not in text:
            assert select.select([terminal], [], [], max(until - time.monotonic(), 0))[0], text
            text += os.read(terminal, 4096)
        return text

    def type_line(line: str) -> str:
        os.write(terminal, line.encode() + b"\n")
        return await_text(b"]>").partition(b"<[")[2].partition(b"]>")[0].decode()

    os.write(terminal, b'eval "$(_VLLM_CIRCUS_COMPLETE=bash_source vllm-circus)"; echo do""ne\n')
    await_text(b"done")
    try:
        yield type_line
    finally:
        os.close(terminal)  # which bash takes for the end
        os.waitpid(pid, 0)


#: Behind a word, readline's key that inserts everything that could stand there.
EVERYTHING = "\x1b*"


def test_bash_completes_files_names_and_folders(typed: Type, saved: Path) -> None:
    (saved / "night").mkdir()
    assert typed("vllm-circus up nig\t") == "up][night"
    (saved / "night run").touch()
    given = typed(f"vllm-circus up nig{EVERYTHING}").split("][")
    assert sorted(given) == ["night", "night", "night run", "up"]  # bash finds files in any order
    (saved / "night run").unlink()
    (saved / "night").rmdir()
    (saved / "nightly run.yaml").touch()
    (saved / "halls").mkdir()
    assert typed("vllm-circus check models.ya\t") == "check][models.yaml"
    assert typed("vllm-circus config import models.ya\t") == "config][import][models.yaml"
    assert typed("vllm-circus example --output mod\t") == "example][--output][models.yaml"
    assert typed("vllm-circus fit --config=mod\t") == "fit][--config=models.yaml"
    assert typed("vllm-circus config show n\t") == "config][show][night"
    assert typed("vllm-circus fit ./hal\t") == "fit][./halls/"
    assert typed(f"vllm-circus up nig{EVERYTHING}") == "up][night][nightly run.yaml"
    assert typed(f"vllm-circus up ha{EVERYTHING}") == "up][hall][halls"
    assert typed("vllm-circus up halls\t") == "up][halls/"
    assert typed(f"vllm-circus up ./ha{EVERYTHING}") == "up][./halls"
    assert typed("vllm-circus stat\t") == "status"
