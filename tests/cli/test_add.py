"""`add` and `remove` where nothing runs: files are changed, checked beforehand, and made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.plan.conftest import gpu
from vllm_circus import facts
from vllm_circus.cli import change
from vllm_circus.cli.change import adding, name_for, own_path, propose, write
from vllm_circus.cli.outcome import run_safely
from vllm_circus.config.load import load_config
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance
from vllm_circus.supervise.lock import hold_lock

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def own_file(instance: Instance, models_file: Path) -> Path:
    """The instance's own models file."""
    instance.config_dir.mkdir(parents=True)
    instance.config_file.write_text(models_file.read_text() + "# the end\n")
    return instance.config_file


def test_a_model_is_added_to_the_instances_file_and_taken_out_again(command: Command, own_file: Path) -> None:
    before = own_file.read_text()
    added = command(
        *("add", "org/Model-8B", "--engine", "simulator", "--alias", "m", "--priority", "2", "--gpus", "none"),
        *("--arg", "max-model-len=100", "--env", "A=1", "--lora", "law=org/law", "--replicas", "2", "--port", "9111"),
    )
    assert (added.code, added.err) == (0, f"wrote {own_file}; `vllm-circus up` starts it\n")
    model = load_config(own_file).config.models[-1]
    assert model.model_dump(exclude_unset=True, exclude={"lora"}) == {
        "name": "model-8b",
        "model": "org/Model-8B",
        "gpus": [],
        "port": 9111,
        "replicas": 2,
        "aliases": ["m"],
        "engine": "simulator",
        "priority": 2,
        "args": {"max-model-len": 100},
        "env": {"A": "1"},
    }
    assert [adapter.path for adapter in model.lora] == ["org/law"]
    assert command("add", "org/Model-8B").code == 1
    assert command("remove", "model-8b").code == 0
    assert own_file.read_text() == before
    assert command("remove", "alpha", "beta").code == 2
    assert "did you mean 'beta'?" in command("remove", "beat").err
    assert own_file.read_text() == before


@pytest.mark.parametrize(
    ("names", "which"),
    [
        (["chat", "coder", "r"], "'chat', 'coder' and 'r' are all models"),
        (["r", "chat", "r", "coder"], "'r', 'chat' and 'coder' are all models"),
    ],
)
def test_whoever_removes_all_models_is_told_so_and_what_to_do_instead(
    names: list[str], which: str, command: Command, instance: Instance
) -> None:
    listed = "".join(f"- {{name: {name}, model: org/x}}\n" for name in ("chat", "coder", "r"))
    text = f"defaults: {{engine: simulator}}\nmodels:\n{listed}"
    instance.config_dir.mkdir(parents=True)
    instance.config_file.write_text(text)
    refused = command("remove", *names, "--yes")
    assert refused.code == 2
    assert refused.err == f"error: {which} of the models file\nhint: at least one has to stay\n"
    command("config", "save", "hall")
    removes = "`vllm-circus config rm hall` removes the configuration"
    assert removes in command("remove", "--to", "hall", *names).err
    assert "no model 'nobody'" in command("remove", *names, "nobody").err
    assert instance.config_file.read_text() == text
    command("render", "--output", str(instance.run_dir))
    with hold_lock(instance):
        assert command("remove", *names, "--yes").err.endswith(
            "\nhint: at least one has to stay; `vllm-circus down` ends the set\n"
        )
    one = "models:\n- {name: chat, model: org/x}\n"
    instance.config_file.write_text(one)
    assert "error: 'chat' is the only model of the models file\n" in command("remove", "chat").err


def test_an_option_of_the_engine_is_checked_before_anything_is_written(command: Command, own_file: Path) -> None:
    before = own_file.read_text()
    wrong = ("--arg", "max-model-len=abc", "--arg", "dtype", "--arg", "max-num-seqs=2.5")
    refused = command("add", "org/model", "--engine", "simulator", "--gpus", "none", *wrong)
    assert refused.code == 2
    assert "error: --arg max-model-len: needs a whole number from 1, not 'abc'" in refused.err
    assert "error: --arg dtype: needs a value (write one of auto" in refused.err
    assert "error: --arg max-num-seqs: needs a whole number from 1, not 2.5" in refused.err
    assert own_file.read_text() == before


def test_the_whole_result_is_checked_before_anything_is_written(command: Command, own_file: Path) -> None:
    before = own_file.read_text()
    port = str(load_config(own_file).config.models[0].port)
    command("shortcuts", "new", "long", "--model", "org/L", "--engine", "simulator", "--arg", "tensor-parallel-size=2")
    for words, told in (
        (("org/M", "--port", port), f"--port: port {port} is also that of models[0].port ({own_file}, line 4)"),
        (("org/M", "--alias", "first"), f"--alias: 'first' is also models[0].aliases[0] ({own_file}, line 4)"),
        (("org/M", "--profile", "lowmemory"), "--profile: there is no profile 'lowmemory' (did you mean 'low_memory'?"),
        (("org/M", "--arg", "port=1"), "--arg port: the program sets this itself"),
        (("org/M", "--env", "A B=1"), "--env ['A B']: 'A B' cannot be used here"),
        (("org/M", "--lora", "A B=org/x"), "--lora: 'A B' cannot be used here"),
        (("org/M", "--gpus", "0,0"), "--gpus: GPU 0 stands twice"),
        (("./nothing-here",), f"MODEL: there is no {Path.cwd()}/nothing-here"),
        (("org/M", "--name", "A B"), "--name: 'A B' cannot be used here"),
        (("org/all",), "the model to be added: name: 'all' is a name that commands and logs use"),
        (
            ("--shortcut", "long", "--gpus", "0", "--arg", "seed=1"),
            "the model to be added: args.tensor-parallel-size: tensor-parallel-size 2 needs 2 GPUs",
        ),
    ):
        refused = command("add", *words)
        assert refused.code == 2, words
        assert f"error: {told}" in refused.err
        assert f"{own_file}:" not in refused.err
    assert own_file.read_text() == before


def test_no_line_is_told_that_the_file_does_not_have(command: Command, own_file: Path) -> None:
    twice = ("--arg", "gpu-memory-utilization=0.4", "--gpu-memory", "0.5", "--gpus", "0")
    assert "`gpu_memory` says what this says" in command("add", "org/M", *twice).err
    own_file.write_text("models:\n- {name: a, model: org/A}\n\ndefaults:\n  engine: simulator\n  priority: x\n")
    wrong = command("add", "org/M", "--gpus", "none")
    assert f"error: {own_file}:6: defaults.priority: " in wrong.err
    own_file.write_text("models:\n- {name: a, model: org/A, engine: simulator, gpus: []}\n")
    profile = own_file.parent / "profiles" / "long.yaml"
    profile.parent.mkdir()
    profile.write_text("# 1\n# 2\n# 3\n# 4\n# 5\nargs: {max-model-len: abc}\n")
    assert f"error: {profile}:6: " in command("add", "org/M", "--profile", "long", "--gpus", "none").err


def test_a_line_is_that_of_the_text_before() -> None:
    old, new = ["a", "b", "c"], ["a", "b", "new", "newer", "c"]
    assert [change.old_line(old, new, line) for line in range(6)] == [0, 1, 2, 0, 0, 3]
    assert [change.old_line([], new, line) for line in range(6)] == [0] * 6
    assert [change.old_line(["a", "[b]"], ["a", "[b, c]"], line) for line in range(3)] == [0, 1, 2]


def test_what_is_wrong_in_the_file_itself_is_told_with_its_line(command: Command, own_file: Path) -> None:
    own_file.write_text(own_file.read_text().replace("name: beta", "name: Beta"))
    refused = command("add", "org/M", "--name", "A B")
    assert f"error: {own_file}:5: models[1].name: 'Beta' cannot be used here" in refused.err
    assert "error: --name: 'A B' cannot be used here" in refused.err


def test_a_saved_configuration_is_made_with_the_proxy_of_the_settings(command: Command, instance: Instance) -> None:
    command("settings", "set", "proxy.host", "127.0.0.1")
    command("settings", "set", "proxy.port", "8111")
    assert command("remove", "x", "--to", "hall").code == 4
    made = command("add", "org/M", "--engine", "simulator", "--to", "hall")
    path = instance.configs / "hall.yaml"
    assert (made.code, made.err) == (0, f"wrote {path}; `vllm-circus up hall` starts it\n")
    assert path.read_text() == (
        "proxy:\n  host: 127.0.0.1\n  port: 8111\n\nmodels:\n  - name: m\n    model: org/M\n    engine: simulator\n"
    )
    assert command("add", "org/N", "--engine", "simulator", "--to", "hall", "--dry-run").err == "nothing was changed\n"
    assert command("add", "org/N", "--engine", "simulator", "--to", "hall").code == 0
    assert [model.name for model in load_config(path).config.models] == ["m", "n"]
    assert command("remove", "m", "--to", "hall").code == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_only_this_machine_lacks_is_no_fault_of_a_saved_configuration(
    command: Command, instance: Instance, own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_which", lambda _program: None)
    monkeypatch.setattr(facts, "_gpus", lambda: (gpu(0),))
    asked = ("add", "org/M", "--engine", "vllm", "--gpus", "3", "--lora", "law=/srv/no/law")
    lacks = (
        (
            "there is no `vllm` on the PATH (install vLLM where this program runs, name its `executable`, "
            "or try `engine: simulator`)"
        ),
        "there is no GPU 3 (this machine has 0; see `vllm-circus gpus`)",
        "there is no /srv/no/law (relative paths begin at the models file's folder)",
    )
    refused = command(*asked)
    assert (refused.code, "error: --gpus: there is no GPU 3" in refused.err) == (2, True)
    made = command(*asked, "--to", "hall")
    path = instance.configs / "hall.yaml"
    assert made.code == 0
    places = ("models[0].engine", "models[0].gpus[0]", "models[0].lora[0].path")
    first, *told, last = made.err.splitlines()
    assert (first, last) == ("not on this machine:", f"wrote {path}; `vllm-circus up hall` starts it")
    assert sorted(told) == sorted(f"  {place}: {lack}" for place, lack in zip(places, lacks, strict=True))
    wrong = command("add", "org/N", "--gpus", "3", "--alias", "m", "--to", "hall")
    assert (wrong.code, "error: --alias: 'm' is also models[0].name" in wrong.err) == (2, True)
    assert command("add", "org/N", "--gpus", "none", "--to", "hall", "--dry-run").err.count("models[0].gpus[0]:") == 1
    assert [model.name for model in load_config(path).config.models] == ["m"]
    assert load_config(own_file).config.models[-1].name == "beta"


def test_a_shortcut_is_where_a_model_begins(command: Command, instance: Instance) -> None:
    command(
        "shortcuts",
        "new",
        "eight",
        "--model",
        "org/E",
        "--engine",
        "simulator",
        "--arg",
        "max-num-seqs=1",
        "--arg",
        "seed=2",
    )
    assert command("add", "--shortcut", "eight", "--arg", "seed=3", "--to", "hall").code == 0
    assert command("add", "org/Other", "--shortcut", "eight", "--name", "o", "--to", "hall").code == 0
    first, second = load_config(instance.configs / "hall.yaml").config.models
    assert (first.name, first.model, first.args) == ("eight", "org/E", {"max-num-seqs": 1, "seed": 3})
    assert (second.name, second.model, second.args) == ("o", "org/Other", {"max-num-seqs": 1, "seed": 2})
    assert command("add", "--shortcut", "eigth", "--to", "hall").code == 4
    assert command("add", "--to", "hall").code == 2


def test_where_nothing_could_be_meant_it_says_how_to_make_something(command: Command) -> None:
    refused = command("add", "org/M")
    assert refused.code == 3
    assert "`--to NAME` makes a saved configuration" in refused.err


def test_a_file_that_cannot_be_read_is_named(command: Command, own_file: Path) -> None:
    own_file.write_text("models: [\n")
    for words in (("add", "org/M"), ("remove", "alpha")):
        refused = command(*words)
        assert (refused.code, f"error: {own_file}:" in refused.err) == (2, True)


@pytest.mark.parametrize("saved", [True, False])
def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(
    saved: bool, command: Command, own_file: Path, instance: Instance
) -> None:
    command("config", "save", "hall", str(own_file))
    path = instance.configs / "hall.yaml" if saved else own_file
    model = {"name": "m", "model": "org/M", "engine": "simulator"}
    proposal = propose(instance, "hall" if saved else None, adding(model, {}))
    theirs = path.read_text() + "# theirs\n"
    path.write_text(theirs)
    with pytest.raises(CircusError, match="changed meanwhile"):
        write(proposal)
    assert path.read_text() == theirs
    write(propose(instance, "hall" if saved else None, adding(model, {})))
    assert path.read_text().endswith("# theirs\n")
    assert change.is_written(propose(instance, "hall" if saved else None, lambda text: text or ""))


def test_those_who_add_at_once_all_come_in(home: Path, instance: Instance) -> None:
    def work(letter: str) -> None:
        code = 1
        try:
            words = ("--engine", "simulator", "--to", "hall")
            code = max(run_safely(("add", f"org/{letter}{number}", *words)) for number in range(4))
        finally:
            os._exit(code)

    children = []
    for letter in "abc":
        children.append(os.fork())
        if children[-1] == 0:
            work(letter)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    names = sorted(model.name for model in load_config(instance.configs / "hall.yaml").config.models)
    assert names == sorted(f"{letter}{n}" for letter in "abc" for n in range(4))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("/models/Llama 3.1 (8B)/", "llama-3-1-8b"),
        ("org/Model:Q4_K_M", "model"),
        ("org/--", "model"),
        ("x" * 80, "x" * 64),
        ("Ä/Ö", "model"),
    ],
)
def test_a_model_is_called_after_its_path(model: str, name: str) -> None:
    assert name_for(model) == name


def test_a_path_of_here_becomes_absolute_and_a_hugging_face_id_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    (home / "org").mkdir()
    (home / "org/here").mkdir()
    assert own_path("org/here") == f"{home}/org/here"
    assert own_path("org/there") == "org/there"
    assert own_path("./there") == f"{home}/there"
    assert own_path("~/there") == f"{home}/there"
    assert own_path("/abs") == "/abs"
