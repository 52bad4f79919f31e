"""`profiles`, `shortcuts` and `settings`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import Command
from vllm_circus.cli import common
from vllm_circus.config.profiles import BUILTIN
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.lock import hold_lock
from vllm_circus.view.outline import Outline, OutlineModel


def test_a_profile_is_made_from_another_and_used_by_a_models_file(
    command: Command, models_file: Path, instance: Instance
) -> None:
    made = command(
        *("profiles", "new", "quick", "--from", "low_memory", "--description", "quick one", "--env", "A=b=c"),
        *(
            "--arg",
            "max-num-seqs=16",
            "--arg",
            "quantization=null",
            "--arg",
            "--enable-x",
            "--arg",
            "note=yes please",
        ),
    )
    assert (made.code, made.err) == (0, f"wrote {instance.profiles}/quick.yaml\n")
    document = json.loads(command("profiles", "show", "quick", "--json").out)
    assert document["args"] == {
        **BUILTIN["low_memory"].args,
        "max-num-seqs": 16,
        "quantization": None,
        "enable-x": True,
        "note": "yes please",
    }
    assert (document["env"], document["description"]) == ({"A": "b=c"}, "quick one")
    models_file.write_text(models_file.read_text().replace("aliases: [first]", "profile: quick"))
    shown = command("check", "-v", str(models_file))
    assert "--max-num-seqs 16" in shown.out
    assert "--quantization" not in shown.out
    listed = command("profiles", "list").out.splitlines()
    assert listed[1].split()[:2] == ["quick", "own"]
    assert len(listed) == 2 + len(BUILTIN)


def test_every_running_set_that_uses_a_profile_is_named(
    command: Command, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("profiles", "new", "quick")
    model = OutlineModel("a", "sim/a", ("a",), (), 8001, True, "model-a", "a", profile="quick")
    outlines = {name: Outline(name, "m.yaml", "127.0.0.1", 8000, 1, (model,)) for name in ("default", "ev")}
    monkeypatch.setattr(common, "read_plan_outline", lambda each: outlines.get(each.name))
    with hold_lock(find_instance("ev")):
        renamed = command("profiles", "rename", "quick", "quick-2")
    assert "the profile quick is used by the running set of instance ev, which cannot start" in renamed.err
    command("profiles", "new", "quick")
    monkeypatch.setenv("VISUAL", "sed -i s/^/#/")
    with hold_lock(instance), hold_lock(find_instance("ev")):
        edited = command("profiles", "edit", "quick")
    assert "it is used by the running set, the running set of instance ev; a set that runs takes it with " in edited.err
    assert "`vllm-circus reload`, `vllm-circus --instance ev reload`" in edited.err


def test_an_unknown_profile_is_guessed_among_the_stored_ones(command: Command, models_file: Path) -> None:
    command("profiles", "new", "quick")
    text = models_file.read_text()
    models_file.write_text(text.replace("aliases: [first]", "profile: quik"))
    assert "there is no profile 'quik' (did you mean 'quick'?)" in command("check", str(models_file)).err
    models_file.write_text(text.replace("aliases: [first]", "profile: zzzzz"))
    assert "gpt_oss_blackwell, quick)" in command("check", str(models_file)).err


def test_a_fault_of_a_stored_profile_names_its_own_file_and_hinders_only_those_who_use_it(
    command: Command, models_file: Path, instance: Instance
) -> None:
    command("profiles", "new", "quick")
    path = instance.profiles / "quick.yaml"
    path.write_text("description: a\nargs: {port: 1}\n")
    assert command("check", str(models_file)).code == 0
    models_file.write_text(models_file.read_text().replace("aliases: [first]", "profile: quick"))
    refused = command("check", str(models_file))
    assert refused.code == 2
    assert f"error: {path}:2: args.port: the program sets this itself" in refused.err
    assert refused.err.count("error:") == 1
    path.write_text("args: ]\n")
    assert f"error: {path}:1: not valid YAML" in command("check", str(models_file)).err
    listed = command("profiles", "list")
    assert (listed.code, f"warning: {path}:1: not valid YAML" in listed.err) == (0, True)


def test_a_stored_profile_wins_over_a_built_in_one_and_the_files_own_over_both(
    command: Command, models_file: Path
) -> None:
    command("profiles", "new", "low_memory", "--arg", "max-model-len=77")
    text = models_file.read_text().replace("aliases: [first]", "profile: low_memory")
    models_file.write_text(text)
    assert "--max-model-len 77" in command("check", "-v", str(models_file)).out
    models_file.write_text(text + "profiles: {low_memory: {args: {max-model-len: 78}}}\n")
    assert "--max-model-len 78" in command("check", "-v", str(models_file)).out


def test_built_in_profiles_are_shown_and_not_changed(command: Command) -> None:
    assert "fp8" in command("profiles", "show", "low_memory").out
    for words in (("edit", "standard"), ("rm", "standard", "-y"), ("rename", "standard", "mine")):
        refused = command("profiles", *words)
        assert refused.code == 2
        assert "`vllm-circus profiles new NAME --from standard` makes one like it" in refused.err
    assert command("profiles", "new", "x", "--from", "nothing").code == 4
    assert command("profiles", "new", "x", "--env", "nothing").code == 2
    assert command("profiles", "new", "x", "--arg", "host=1").code == 2


def test_who_asks_for_a_profile_that_is_not_there_hears_of_those_that_come_with_the_program(command: Command) -> None:
    command("profiles", "new", "quick", "--arg", "max-num-seqs=16")
    for words in (("show", "nope"), ("new", "mine", "--from", "nope")):
        refused = command("profiles", *words)
        assert (refused.code, f"there are: quick, {', '.join(BUILTIN)}" in refused.err) == (4, True)
        assert "did you mean 'low_memory'?" in command("profiles", *(*words[:-1], "low")).err
    assert "there are: quick\n" in command("profiles", "rm", "nope", "-y").err


def test_profiles_and_shortcuts_go_out_and_come_back(command: Command, home: Path) -> None:
    command("profiles", "new", "quick", "--arg", "max-num-seqs=16")
    command("shortcuts", "new", "eight", "--model", "Qwen/Qwen3-8B", "--profile", "quick")
    before = {
        kind: sorted(command(kind, "show", name).out.splitlines())
        for kind, name in (("profiles", "quick"), ("shortcuts", "eight"))
    }
    for kind, name, other in (("profiles", "quick", "shortcuts"), ("shortcuts", "eight", "profiles")):
        path = home / f"{kind}.yaml"
        assert command(kind, "export", name, "--output", str(path)).code == 0
        wrong = command(other, "import", str(path))
        assert (wrong.code, f"`vllm-circus {kind} import` takes them" in wrong.err) == (2, True)
        assert command(kind, "import", str(path)).code == 1
        command(kind, "rm", name, "-y")
        assert command(kind, "import", str(path)).code == 0
        assert sorted(command(kind, "show", name).out.splitlines()) == before[kind]


def test_an_export_replaces_a_file_only_where_somebody_says_so(command: Command, home: Path) -> None:
    command("profiles", "new", "quick", "--arg", "max-num-seqs=16")
    path, link = home / "mine.yaml", home / "link.yaml"
    path.write_text("precious\n")
    link.symlink_to("nowhere")
    for target in (path, link):
        refused = command("profiles", "export", "quick", "--output", str(target))
        assert (refused.code, refused.out) == (2, "")
        assert f"{target} exists already, and nobody is here to be asked: say --yes" in refused.err
    folder = command("profiles", "export", "quick", "--output", str(home), "--yes")
    assert (folder.code, "directory" in folder.err) == (1, True)
    assert (path.read_text(), link.is_symlink()) == ("precious\n", True)
    assert "max-num-seqs" in command("profiles", "export", "quick", "--output", "-").out

    words = ["profiles", "export", "quick", "--output", str(path)]
    for answer, told in (("n", "nothing was written"), ("y", "wrote")):
        environ = {**os.environ, "VLLM_CIRCUS_HOME": str(home)}
        child = pexpect.spawn(sys.executable, ["-m", "vllm_circus", *words], env=environ, encoding="utf-8", timeout=60)
        child.expect(r"mine.yaml exists already; replace it\? \[y/N\]")
        child.send(f"{answer}\r")
        child.expect(told)
        child.expect(pexpect.EOF)
        child.close()
        assert (path.read_text() == "precious\n") == (answer == "n")
    path.write_text("precious\n")
    assert command(*words, "-y").code == 0
    assert "max-num-seqs" in path.read_text()


def test_a_shortcut_is_made_listed_and_shown(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no shortcut" in command("shortcuts", "list").err
    monkeypatch.chdir(home)
    made = command(
        *("shortcuts", "new", "eight", "--model", "./weights", "--alias", "a", "--alias", "b", "--gpu-memory", "20GiB"),
        *("--lora", "law=./law", "--engine", "simulator", "--priority", "3", "--arg", "max-model-len=100"),
    )
    assert made.code == 0
    document = json.loads(command("shortcuts", "show", "eight", "--json").out)
    assert document["model"] == f"{home}/weights"
    assert document["lora"] == [{"name": "law", "path": f"{home}/law"}]
    assert (document["aliases"], document["gpu_memory"], document["priority"]) == (["a", "b"], "20GiB", 3)
    assert command("shortcuts", "list").out.splitlines()[1].split()[0] == "eight"
    assert json.loads(command("shortcuts", "list", "--json").out)[0]["name"] == "eight"
    for wrong in (("--gpu-memory", "2"), ("--lora", "law"), ("--alias", "a b"), ("--engine", "x")):
        assert command("shortcuts", "new", "nine", "--model", "m", *wrong).code == 2


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_are_set_shown_and_unset(
    command: Command, instance: Instance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert command("settings", "set", "proxy.port", "8080").code == 0
    assert command("settings", "set", "model_folders", "models", "/abs").code == 0
    assert command("settings", "set", "proxy.tls", "{certificate: /c, key: /k}").code == 0
    assert command("settings", "show", "proxy.port").out == "8080\n"
    assert json.loads(command("settings", "show", "model_folders", "--json").out) == [f"{home}/models", "/abs"]
    document = json.loads(command("settings", "show", "--json").out)
    assert document["proxy.tls.key"] == {"value": "/k", "set": True}
    assert document["proxy.host"] == {"value": "0.0.0.0", "set": False}
    for key in ("proxy.port", "model_folders", "proxy.tls"):
        assert command("settings", "unset", key).code == 0
    assert instance.settings.read_text() == "{}\n"


@pytest.mark.parametrize("key", ["token_file", "proxy.keys.file", "proxy.tls.key"])
def test_a_file_of_secrets_that_others_may_read_is_refused(
    key: str, command: Command, instance: Instance, home: Path
) -> None:
    file = home / "secret"
    file.write_text("hf_x\n")
    file.chmod(0o644)
    if key == "proxy.tls.key":
        assert command("settings", "set", "proxy.tls", "{certificate: /c, key: /k}").code == 0
    before = instance.settings.read_text() if instance.settings.exists() else ""
    refused = command("settings", "set", key, str(file))
    assert refused.code == 2
    assert refused.err == (
        f"error: {file} may be read by others (mode 0644)\nhint: name a file of mode 0600, which holds nothing else\n"
    )
    assert (instance.settings.read_text() if instance.settings.exists() else "") == before
    file.chmod(0o600)
    assert command("settings", "set", key, str(file)).code == 0


def test_every_setting_is_shown_with_its_meaning(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = command("settings", "show").out.splitlines()[1:]
    assert len(lines) > 20
    assert all(line.endswith(".") for line in lines)
    monkeypatch.setattr("vllm_circus.cli.common.terminal_width", lambda: 60)
    narrow = command("settings", "show").out.splitlines()
    assert max(map(len, narrow)) <= 60
    assert "    Port to listen on." in narrow


@pytest.mark.parametrize(
    ("key", "value", "code", "told"),
    [
        ("proxy.prt", "1", 4, "did you mean 'proxy.port'?"),
        ("proxy", "1", 4, "proxy is a section"),
        ("proxy.port", "x", 2, "needs a whole number"),
        ("proxy.port", "0", 2, "must be at least 1"),
        ("zzz", "1", 4, "`vllm-circus settings show` lists them"),
    ],
)
def test_a_wrong_setting_is_refused(
    key: str, value: str, code: int, told: str, command: Command, instance: Instance
) -> None:
    refused = command("settings", "set", key, value)
    assert (refused.code, told in refused.err) == (code, True), refused.err
    assert not instance.settings.exists()
    assert command("settings", "unset", "proxy.prt").code == 4


@pytest.mark.parametrize("group", ["config", "profiles", "shortcuts", "settings"])
def test_a_group_alone_shows_its_help_and_guesses(group: str, command: Command) -> None:
    alone = command(group)
    assert (alone.code, "Commands:" in alone.err) == (2, True)
    assert "did you mean `show`?" in command(group, "shwo").err
