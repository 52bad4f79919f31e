"""`check`, `render` and `example`: what would run, and nothing runs."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vllm_circus.cli.common import build_plan, changed_since, held_since, running_outline
from vllm_circus.config.load import load_config
from vllm_circus.paths import Instance
from vllm_circus.stores.lastread import note_read
from vllm_circus.supervise.lock import hold_lock


def test_check_shows_what_would_run(command: Command, models_file: Path) -> None:
    outcome = command("check", str(models_file))
    assert outcome.code == 0
    head, alpha, beta, _, end = outcome.out.splitlines()
    assert head.split() == ["NAME", "ENGINE", "GPU", "PORT", "START", "PROFILE", "ALSO", "CALLED", "MODEL"]
    assert alpha.split()[:2] == ["alpha", "simulator"]
    assert "first" in alpha
    assert "by hand" in beta
    assert end.endswith(f"{models_file} is fine")


def test_check_shows_each_command_when_asked(command: Command, models_file: Path) -> None:
    assert "serve sim/alpha --host 127.0.0.1" in command("check", "-v", str(models_file)).out


def test_check_as_json_is_the_plan(command: Command, models_file: Path) -> None:
    document = json.loads(command("check", "--json", str(models_file)).out)
    assert document["ok"] is True
    assert [model["name"] for model in document["models"]] == ["alpha", "beta"]


def with_keys(models_file: Path, keys: str) -> Path:
    """The same models behind a proxy that asks for keys."""
    models_file.write_text(models_file.read_text().replace("proxy: {", f"proxy: {{keys: {{{keys}}}, "))
    return models_file


def test_check_warns_of_a_variable_without_keys(
    command: Command, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_KEYS", " , ")
    file = str(with_keys(models_file, "env: CLIENT_KEYS"))
    outcome = command("check", file)
    warning = "proxy.keys.env: CLIENT_KEYS holds no key here; where it holds none, nothing is started"
    assert (outcome.code, outcome.err) == (0, f"warning: {warning}\n")
    assert json.loads(command("check", "--json", file).out)["warnings"] == [warning]
    monkeypatch.setenv("CLIENT_KEYS", "sk-1,sk-2")
    assert command("check", file).err == ""


@pytest.mark.parametrize("host", ["203.0.113.7", "nowhere.invalid"])
def test_check_warns_of_an_address_that_is_not_here(host: str, command: Command, models_file: Path) -> None:
    models_file.write_text(models_file.read_text().replace("host: 127.0.0.1", f"host: {host}"))
    outcome = command("check", str(models_file))
    assert outcome.code == 0
    assert f"warning: proxy.host: nobody could listen on {host} now: " in outcome.err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_check_is_silent_on_an_address_that_is_here(host: str, command: Command, models_file: Path) -> None:
    models_file.write_text(models_file.read_text().replace("host: 127.0.0.1", f"host: {host}"))
    assert "proxy.host" not in command("check", str(models_file)).err


@pytest.mark.parametrize("name", [("up",), ("up", "-d"), ("run",)])
def test_no_set_starts_without_the_keys_that_are_to_guard_it(
    name: tuple[str, ...],
    command: Command,
    models_file: Path,
    instance: Instance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLIENT_KEYS", raising=False)
    outcome = command(*name, str(with_keys(models_file, "env: CLIENT_KEYS")))
    assert outcome.code == 2
    assert outcome.err == (
        "error: the variable CLIENT_KEYS, which `proxy.keys.env` names, holds no API key\n"
        "hint: set CLIENT_KEYS in the environment of vllm-circus, or take `keys.env` out of the models file\n"
    )
    assert not instance.ini.exists()


@pytest.mark.parametrize("name", ["check", "up", "run"])
def test_a_keys_file_without_a_key_is_a_fault(name: str, command: Command, models_file: Path) -> None:
    keys = models_file.with_name("keys")
    keys.write_text("# none yet\n")
    keys.chmod(0o600)
    outcome = command(name, str(with_keys(models_file, "file: keys")))
    assert outcome.code == 2
    assert f"{models_file}:1: proxy.keys.file: {keys} holds no key (write one key a line)" in outcome.err


@pytest.mark.usefixtures("quiet")
def test_check_names_every_fault(command: Command, models_file: Path) -> None:
    models_file.write_text("proxy: {prot: 1}\nmodels:\n  - {name: A b, model: x}\n  - {name: c}\n")
    outcome = command("check", str(models_file))
    assert outcome.code == 2
    assert outcome.out == ""
    places = [line.split(": ")[1] for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert places == [f"{models_file}:1", f"{models_file}:3", f"{models_file}:4"]
    assert "`port`" in outcome.err or "'port'" in outcome.err
    assert outcome.err.endswith("3 faults; nothing was started or written\n")


def test_check_as_json_lists_the_faults(command: Command, models_file: Path) -> None:
    models_file.write_text("models: []\n")
    outcome = command("check", "--json", str(models_file))
    assert outcome.code == 2
    document = json.loads(outcome.out)
    assert document["ok"] is False
    assert document["faults"][0]["line"] == 1
    assert document["faults"][0]["where"] == "models"


@pytest.mark.parametrize("name", ["check", "render", "up", "run"])
def test_a_missing_models_file_is_named_with_the_way_to_get_one(
    name: str, command: Command, instance: Instance
) -> None:
    outcome = command(name)
    assert outcome.code == 2
    assert outcome.err == (
        f"error: models file {instance.config_file}: there is no such file\n"
        f"hint: `vllm-circus example --output {instance.config_file}` writes one to begin with\n"
    )


def test_the_way_to_a_models_file_works_as_it_is_typed(command: Command, instance: Instance, home: Path) -> None:
    for arguments in ([], [str(home / "new folder" / "my models.yaml")]):
        (typed,) = re.findall("hint: `vllm-circus (.*)` writes", command("check", *arguments).err)
        assert command(*shlex.split(typed)).code == 0
        assert "no such file" not in command("check", *arguments).err
    assert instance.config_file.is_file()


def test_a_folder_is_no_place_for_an_example(command: Command, home: Path) -> None:
    outcome = command("check", str(home))
    assert outcome.code == 2
    assert outcome.err == f"error: models file {home}: is not a file\nhint: name the models file itself\n"


def test_the_example_replaces_nothing(command: Command, home: Path, models_file: Path) -> None:
    before = models_file.read_bytes()
    outcome = command("example", "--output", str(models_file))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"error: {models_file} exists already\nhint: name another file\n"
    assert models_file.read_bytes() == before
    assert command("example", "--output", str(models_file / "x")).code == 1
    assert command("example", "--output", str(home)).code == 1


def test_a_dash_stands_for_stdout(
    command: Command, models_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert command("config", "save", "hall", str(models_file)).code == 0
    for words in (["example"], ["render", str(models_file)], ["config", "export", "hall"]):
        shown = command(*words)
        assert shown.code == 0
        assert shown.out
        assert command(*words, "--output", "-") == shown
    assert not (home / "-").exists()


@pytest.mark.parametrize("words", ["check", "render", "run", "up", "doctor", "config save x", "fit chat --config"])
def test_a_dash_is_no_models_file_and_none_is_written_to_begin_with(words: str, command: Command) -> None:
    outcome = command(*words.split(), "-")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: a models file is not read from stdin\nhint: name a file; ")
    assert "example" not in outcome.err


@pytest.mark.parametrize("name", ["check", "render", "run"])
def test_the_instances_own_file_is_read_when_none_is_named(
    name: str, command: Command, instance: Instance, models_file: Path
) -> None:
    instance.config_file.parent.mkdir(parents=True)
    instance.config_file.write_text("models: 7\n")
    outcome = command(name)
    assert outcome.code == 2
    assert f"{instance.config_file}:1: models:" in outcome.err


def test_render_prints_the_ini(command: Command, models_file: Path, instance: Instance) -> None:
    outcome = command("render", str(models_file))
    assert outcome.code == 0
    assert "[watcher:model-alpha]" in outcome.out
    assert not instance.ini.exists()


def test_render_writes_the_files_into_a_folder(command: Command, models_file: Path, home: Path) -> None:
    outcome = command("render", str(models_file), "--output", str(home / "there" / "new"))
    assert outcome.code == 0
    assert outcome.out == ""
    assert {path.name for path in (home / "there" / "new").iterdir()} == {"circus.ini", "plan.json"}


def test_a_file_is_no_folder_to_render_into(command: Command, models_file: Path) -> None:
    outcome = command("render", str(models_file), "--output", str(models_file))
    assert outcome.code == 1
    assert f"error: cannot write into {models_file}: File exists\nhint: name another folder\n" in outcome.err


def test_render_diff_without_a_running_set_says_so(command: Command, models_file: Path) -> None:
    outcome = command("render", "--diff", str(models_file))
    assert (outcome.code, outcome.out) == (3, "")
    assert "vllm-circus is not running" in outcome.err


@pytest.fixture
def running(command: Command, models_file: Path, instance: Instance) -> Iterator[Path]:
    """The models file of a set that runs, as far as others can see. It began when port 8001 was somebody else's."""
    models_file.write_text(re.sub(r"(name: alpha.*), port: \d+", r"\1", models_file.read_text()))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then somebody has it already, which serves as well
            other.bind(("127.0.0.1", 8001))
            other.listen()
        command("render", str(models_file), "--output", str(instance.run_dir))
    with hold_lock(instance):
        yield models_file


def test_render_diff_of_an_unchanged_file_is_none(command: Command, running: Path, instance: Instance) -> None:
    assert b'"port": 8001' not in instance.plan.read_bytes()
    for arguments in ([], [str(running)]):
        outcome = command("render", "--diff", *arguments)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "no difference\n")


def test_check_of_a_running_set_shows_the_ports_that_it_has(
    command: Command, running: Path, instance: Instance
) -> None:
    ports = [model["endpoint"]["port"] for model in json.loads(instance.plan.read_bytes())["models"]]
    for arguments in ([], [str(running)]):
        shown = json.loads(command("check", "--json", *arguments).out)["models"]
        assert [model["endpoint"]["port"] for model in shown] == ports


def test_render_without_a_file_goes_by_that_of_the_running_set(command: Command, running: Path) -> None:
    assert "[watcher:model-alpha]" in command("render").out
    running.write_text(running.read_text().replace("alpha", "omega"))
    assert "[watcher:model-omega]" in command("render").out


def test_render_diff_of_a_changed_file_is_the_change(command: Command, running: Path) -> None:
    running.write_text(running.read_text().replace("sim/beta", "sim/gamma"))
    outcome = command("render", "--diff")
    assert outcome.code == 1
    assert any(line.startswith("+") and "sim/gamma" in line for line in outcome.out.splitlines())
    assert "8001" not in outcome.out


def test_a_models_file_that_changed_since_the_start_is_told(running: Path, instance: Instance) -> None:
    outline = running_outline(instance)
    assert outline is not None
    assert changed_since(instance, outline) == ""
    running.write_text(running.read_text() + "# more\n")
    assert changed_since(instance, outline) == (
        "models.yaml has changed since it was last read; `vllm-circus reload` applies it"
    )
    running.unlink()
    assert (
        changed_since(instance, outline) == f"{running} is no longer there; the set goes on as the file was last read"
    )
    running.mkdir()
    assert (
        changed_since(instance, outline) == f"{running} is no longer a file; the set goes on as the file was last read"
    )


def test_a_models_file_with_the_same_content_has_not_changed(running: Path, instance: Instance, home: Path) -> None:
    outline = running_outline(instance)
    assert outline is not None
    note_read(build_plan(instance, running))
    text = running.read_text()
    running.touch()
    assert changed_since(instance, outline) == ""
    running.rename(home / "elsewhere")
    assert "no longer there" in changed_since(instance, outline)
    (home / "elsewhere").rename(running)
    assert changed_since(instance, outline) == ""
    running.write_text(text.replace("alpha", "omega"))
    assert "has changed" in changed_since(instance, outline)
    running.write_text(text)
    assert changed_since(instance, outline) == ""


def test_what_only_a_new_start_applies_is_told_as_long_as_the_file_says_so(running: Path, instance: Instance) -> None:
    outline = running_outline(instance)
    assert outline is not None
    plan = build_plan(instance, running)
    note_read(plan, ("port", "workers"))
    assert held_since(instance, outline) == (
        "models.yaml says otherwise of proxy.port, proxy.workers, which only a new start applies: "
        f"`vllm-circus down`, then `vllm-circus up -d {running}`"
    )
    note_read(plan)
    assert held_since(instance, outline) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "q/x", "--gpus", "none", "--yes"),
        ("remove", "alpha", "--yes"),
        ("reload", "--yes"),
        ("check",),
        ("render",),
        ("render", "--diff"),
        ("config", "save", "kept"),
    ],
)
def test_a_set_whose_models_file_has_gone_is_not_said_to_be_down(
    arguments: tuple[str, ...], command: Command, running: Path
) -> None:
    running.unlink()
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.err == (
        f"error: {running} is no longer there; the set goes on as the file was last read\n"
        "hint: put it back, or `vllm-circus reload FILE` has the set go by another models file\n"
    )


def test_render_takes_either_a_difference_or_a_folder(command: Command, models_file: Path) -> None:
    assert command("render", "--diff", "--output", "x", str(models_file)).code == 2


def test_the_example_is_the_one_of_the_package_and_loads(command: Command, home: Path) -> None:
    outcome = command("example")
    assert outcome.out == files("vllm_circus.conf").joinpath("example.yaml").read_text()
    (home / "models.yaml").write_text(outcome.out)
    assert load_config(home / "models.yaml").config.models
