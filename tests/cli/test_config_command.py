"""`config`: models files under a name, and the commands that take such a name."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vllm_circus.cli.common import config_file
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance


@pytest.fixture
def editor(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes an editor that replaces a piece of the text."""

    def set_editor(old: str, new: str) -> None:
        code = "import sys,pathlib as p;f=p.Path(sys.argv[-1]);f.write_text(f.read_text().replace(*sys.argv[1:3]))"
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, "-c", code, old, new]))

    return set_editor


def test_a_models_file_is_saved_listed_shown_renamed_and_removed(
    command: Command, models_file: Path, instance: Instance
) -> None:
    assert "no configuration is saved" in command("config", "list").err
    saved = command("config", "save", "hall", str(models_file))
    path = instance.configs / "hall.yaml"
    assert (saved.code, saved.err) == (0, f"wrote {path}\n")
    assert command("config", "show", "hall").out == models_file.read_text()
    head, row = command("config", "list").out.splitlines()
    assert head.split() == ["NAME", "MODELS", "GPU", "PORT", "CHANGED", "NOW"]
    assert row.split()[:4] == ["hall", "alpha,", "beta", "-"]
    (document,) = json.loads(command("config", "list", "--json").out)
    assert (document["name"], document["models"], document["running"]) == ("hall", ["alpha", "beta"], None)
    assert json.loads(command("config", "show", "hall", "--json").out)["text"] == models_file.read_text()
    assert command("config", "rename", "hall", "room").code == 0
    assert "did you mean 'room'?" in command("config", "show", "rom").err
    assert command("config", "rm", "room").code == 2  # nobody is there to be asked
    assert command("config", "rm", "room", "-y").code == 0
    assert command("config", "show", "room").code == 4


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced(command: Command, models_file: Path) -> None:
    command("config", "save", "hall", str(models_file))
    assert command("config", "save", "hall", str(models_file)).code == 1
    assert command("config", "save", "hall", str(models_file), "--replace").code == 0
    assert command("config", "save", "Hall", str(models_file)).code == 2


def test_a_file_with_a_fault_is_not_saved_and_a_broken_one_is_listed(
    command: Command, models_file: Path, instance: Instance
) -> None:
    command("config", "save", "good", str(models_file))
    models_file.write_text("models: [{name: a, model: b, gpu: 0}]\n")
    refused = command("config", "save", "hall", str(models_file))
    assert refused.code == 2
    assert f"{models_file}:1: models[0].gpu: unknown key" in refused.err
    (instance.configs / "hall.yaml").write_text("models: []\n")
    listed = command("config", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "good", "hall"]
    assert f"{instance.configs}/hall.yaml:1: models: an empty list" in listed.err
    faults = {each["name"]: each["faults"] for each in json.loads(command("config", "list", "--json").out)}
    assert faults["good"] == []
    assert len(faults["hall"]) == 1


def test_a_configuration_whose_profile_has_gone_is_listed_with_that(command: Command, models_file: Path) -> None:
    command("profiles", "new", "quick")
    models_file.write_text(models_file.read_text().replace("aliases: [first]", "profile: quick"))
    command("config", "save", "mine", str(models_file))
    assert command("config", "list").err == ""
    command("profiles", "rm", "--yes", "quick")
    assert "mine.yaml:4: models[0].profile: there is no profile 'quick'" in command("config", "list").err
    (listed,) = json.loads(command("config", "list", "--json").out)
    assert "there is no profile 'quick'" in listed["faults"][0]


@pytest.mark.usefixtures("quiet")
def test_a_saved_name_stands_for_its_file(
    command: Command, models_file: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("config", "save", "hall", str(models_file))
    assert command("check", "hall").out.endswith(f"{instance.configs}/hall.yaml is fine\n")
    assert "[watcher:model-alpha]" in command("render", "hall").out
    for words in (("check", "hal"), ("up", "hal"), ("run", "hal"), ("render", "hal"), ("fit", "x", "--config", "hal")):
        refused = command(*words)
        assert refused.code == 2
        assert "hal is neither a saved configuration nor a file" in refused.err
        assert "did you mean the saved configuration `hall`?" in refused.err
    assert "there is no such file" in command("check", "zzzzzz").err
    monkeypatch.chdir(models_file.parent)
    Path("hall").write_text("models: []\n")
    both = command("check", "hall")
    assert both.code == 0
    assert "hall is the saved configuration; ./hall names the file" in both.err
    assert command("check", "./hall").code == 2


@pytest.mark.usefixtures("quiet")
def test_paths_lead_where_they_did_when_a_file_is_saved(command: Command, home: Path, instance: Instance) -> None:
    folder = home / "elsewhere"
    (folder / "weights").mkdir(parents=True)
    path = folder / "m.yaml"
    path.write_text("models:\n  - {name: a, model: ./weights, engine: simulator}  # mine\n")
    assert command("config", "save", "hall", str(path)).code == 0
    assert (instance.configs / "hall.yaml").read_text() == path.read_text().replace("./weights", f"{folder}/weights")
    assert command("check", "hall").code == 0


@pytest.mark.usefixtures("quiet")
def test_an_edit_is_checked_before_it_is_taken(
    command: Command, models_file: Path, instance: Instance, editor: Callable[[str, str], None]
) -> None:
    command("config", "save", "hall", str(models_file))
    path, before = instance.configs / "hall.yaml", models_file.read_text()
    editor("alpha", "gamma")
    assert command("config", "edit", "hall").err == f"changed {path}\n"
    assert path.read_text() == before.replace("alpha", "gamma")
    editor("gamma", "BAD")
    refused = command("config", "edit", "hall")
    assert refused.code == 2
    assert "'BAD' cannot be used here" in refused.err
    copy = Path(next(line for line in refused.err.splitlines() if line.startswith("the edited copy is ")).split()[-1])
    assert "BAD" in copy.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == before.replace("alpha", "gamma")
    editor("nowhere", "x")
    assert command("config", "edit", "hall").err == "nothing was changed\n"
    editor("priority", "x")
    assert [each for each in instance.state_dir.iterdir() if each != copy] == []


def test_without_an_editor_or_with_a_wrong_one_nothing_happens(
    command: Command, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("config", "save", "hall", str(models_file))
    monkeypatch.delenv("VISUAL", raising=False)
    for wish, told in ((f"{os.sep}no/such", "cannot run the editor"), ("false", "ended with exit code 1")):
        monkeypatch.setenv("EDITOR", wish)
        assert told in command("config", "edit", "hall").err
    monkeypatch.setenv("EDITOR", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    refused = command("config", "edit", "hall")
    assert (refused.code, "set VISUAL or EDITOR" in refused.err) == (2, True)


def test_an_editor_that_nobody_named_is_started_on_a_terminal_only(
    command: Command, models_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("config", "save", "hall", str(models_file))
    programs = home / "bin"
    programs.mkdir()
    (programs / "vi").write_text("#!/bin/sh\nprintf '\\033[2J'\n")
    (programs / "vi").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    refused = command("config", "edit", "hall")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "error: the editor vi needs a terminal\n"
        "hint: edit on a terminal, or set VISUAL or EDITOR to a program that needs none\n"
    )
    monkeypatch.setenv("EDITOR", "vi")
    assert command("config", "edit", "hall").err == "nothing was changed\n"


def test_an_editor_that_takes_the_file_away_is_no_bug(
    command: Command, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("config", "save", "hall", str(models_file))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "rm")
    refused = command("config", "edit", "hall")
    assert (refused.code, "there is no such file" in refused.err, "bug" in refused.err) == (2, True, False)
    assert command("config", "show", "hall").out == models_file.read_text()


def test_the_draft_of_changes_goes_with_its_configuration(
    command: Command, models_file: Path, instance: Instance
) -> None:
    command("config", "save", "hall", str(models_file))
    instance.state_dir.mkdir(parents=True)
    draft = instance.state_dir / "draft-hall.json"
    draft.write_text('{"name": "hall"}')
    assert command("config", "rename", "hall", "yard").code == 0
    assert not draft.exists()
    moved = instance.state_dir / "draft-yard.json"
    assert json.loads(moved.read_text()) == {"name": "yard"}
    assert command("config", "rm", "yard", "-y").err == "removed configuration yard and the draft of changes to it\n"
    assert not moved.exists()


@pytest.mark.parametrize("words", [("save", "hall"), ("import",)])
@pytest.mark.parametrize(
    ("section", "before"),
    [("models[1]", "sim/beta, "), ("defaults", "engine: simulator, "), ("profiles.own", "profiles:\n  own: {")],
)
def test_a_file_that_could_never_start_is_not_kept(
    words: tuple[str, ...], section: str, before: str, command: Command, models_file: Path
) -> None:
    text = models_file.read_text().replace("simulator}", "simulator, threads: 1}") + "profiles:\n  own: {args: {}}\n"
    text = text.replace(before, f"{before}env: {{HF_TOKEN: hf_x}}, ")
    models_file.write_text(text)
    line = text[: text.index("HF_TOKEN")].count("\n") + 1
    refused = command("config", *words, str(models_file))
    assert (refused.code, refused.out) == (2, "")
    assert f"{models_file}:{line}: {section}.env.HF_TOKEN: looks like a secret" in refused.err
    assert "put HF_TOKEN=… into a file of mode 0600 and name it in `env_file`" in refused.err
    assert "hf_x" not in refused.err
    assert command("config", "list").out == ""


@pytest.mark.usefixtures("quiet")
def test_a_configuration_goes_to_another_machine_with_its_profiles(
    command: Command, models_file: Path, instance: Instance, home: Path
) -> None:
    models_file.write_text(models_file.read_text().replace("aliases: [first]", "profile: fast"))
    command("profiles", "new", "fast", "--arg", "max-num-seqs=8")
    command("config", "save", "hall", str(models_file))
    exported = home / "export.yaml"
    assert command("config", "export", "hall", "--output", str(exported)).code == 0
    assert exported.stat().st_mode & 0o777 == 0o600
    assert command("config", "export", "hall").out == exported.read_text()
    command("config", "rm", "hall", "-y")
    command("profiles", "rm", "fast", "-y")
    dry = command("config", "import", str(exported), "--dry-run")
    assert dry.err == "nothing was written\n"
    assert dry.out.splitlines()[0] == "configuration hall: 2 models, alpha, beta"
    assert command("config", "import", str(exported)).code == 0
    assert command("config", "import", str(exported)).code == 1
    assert command("config", "import", str(exported), "--name", "other").code == 0
    assert json.loads(command("check", "hall", "--json").out)["models"][0]["profile"] == "fast"
    assert "--max-num-seqs 8" in command("check", "-v", "other").out


@pytest.mark.usefixtures("quiet")
def test_another_programs_configuration_is_taken_over_and_every_loss_is_told(
    command: Command, home: Path, instance: Instance
) -> None:
    path = home / "pair.yaml"
    path.write_text(
        "proxy: {host: 0.0.0.0, port: 8000, enable_cors: true}\n"
        "models:\n  - {name: big, model_path: /no/such/folder, gpu_ids: [61], port: 8001, profile: standard,\n"
        "     config_overrides: {api-key: sk-secret}}\n"
    )
    taken = command("config", "import", str(path))
    assert taken.code == 0, taken.err
    assert "not taken over:" in taken.out
    assert "config_overrides.api-key" in taken.out
    assert "sk-secret" not in taken.out
    assert "not on this machine:" in taken.out
    assert "/no/such/folder" in taken.out
    assert "model: /no/such/folder" in (instance.configs / "pair.yaml").read_text()
    path.write_text("[1, 2]\n")
    assert command("config", "import", str(path), "--name", "x").code == 2
    assert command("config", "import", str(home / "missing.yaml")).code == 2
    assert [each.name for each in instance.configs.glob("*.yaml")] == ["pair.yaml"]


def test_a_name_that_only_another_user_may_look_up_is_said_to_be_one(
    instance: Instance, home: Path, command: Command, models_file: Path
) -> None:
    command("config", "save", "hall", str(models_file))
    home.chmod(0o755)
    instance.configs.chmod(0o700 if os.geteuid() == 0 else 0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            with pytest.raises(CircusError, match=f"saved configurations here cannot be read by user {os.geteuid()}"):
                config_file(instance, "hall")
            code = 0
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    instance.configs.chmod(0o700)
    assert ended == 0


def test_what_a_file_holds_instead_is_told_with_what_takes_it(command: Command) -> None:
    samples = Path(__file__).parents[1] / "exchange" / "samples"
    folders = command("config", "import", str(samples / "hf_model_tool.json"))
    assert folders.code == 2
    assert "`vllm-circus models folders add /srv/models`, `vllm-circus models folders add /srv/lora`" in folders.err
    assert "`vllm-circus shortcuts import`" in command("config", "import", str(samples / "shortcuts.json")).err


def test_a_profile_that_was_imported_before_is_not_asked_for_again(command: Command) -> None:
    samples = Path(__file__).parents[1] / "exchange" / "samples"
    asked = "note: the profile 'long-context' is not in this file"
    assert asked in command("config", "import", "--dry-run", str(samples / "night_shift.yaml")).out
    assert command("profiles", "import", str(samples / "user_profiles.json")).code == 0
    taken = command("config", "import", str(samples / "night_shift.yaml"))
    assert (taken.code, asked in taken.out) == (0, False)
