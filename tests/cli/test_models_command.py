"""`models`: what is listed, found, shown, fetched and removed on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.catalogue.fakehub import COMMIT, REPOSITORY, FakeHub, serving
from tests.catalogue.samples import GIB, adapter_folder, in_cache, model_folder
from tests.cli.conftest import Command
from vllm_circus import gpu
from vllm_circus.cli import stock
from vllm_circus.errors import CircusError
from vllm_circus.gpu import Gpu, NoDriver
from vllm_circus.paths import Instance
from vllm_circus.stores import locking
from vllm_circus.supervise.lock import hold_lock

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 2000, "pytorch_model.bin": b"others"}


def no_driver() -> tuple[Gpu, ...]:
    raise NoDriver("no NVIDIA driver")


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a machine without a GPU."""
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpu, "list_gpus", no_driver)
    return home / "hf" / "hub"


@pytest.fixture
def disk(cache: Path, home: Path, command: Command) -> Path:
    """A model of the cache, and a folder with an adapter for it and a model of one's own; the folder."""
    in_cache(cache, "meta-llama/Llama-3-8B", model_folder(home / "source", shards=4), "abc")
    base = home / "own"
    adapter_folder(base / "sql", "meta-llama/Llama-3-8B")
    model_folder(base / "tuned", "mistral-7b-v0.1", size=14 * GIB)
    assert command("models", "folders", "add", str(base)).code == 0
    return base


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving(FakeHub(dict(FILES))) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_list_is_a_table_of_what_is_here(command: Command, disk: Path) -> None:
    outcome = command("models", "list")
    head, *rows = [line.split() for line in outcome.out.splitlines()]
    assert head == ["NAME", "SIZE", "ARCHITECTURE", "CONTEXT", "QUANTISATION", "KIND", "FITS", "NOTE"]
    assert rows == [
        [str(disk / "sql"), "1.0M", "LORA", "-", "-", "adapter", "-", "on", "meta-llama/Llama-3-8B"],
        [str(disk / "tuned"), "14.0G", "MistralForCausalLM", "32k", "bfloat16", "model", "-"],
        ["meta-llama/Llama-3-8B", "16.0G", "LlamaForCausalLM", "8192", "bfloat16", "model", "-", "1", "adapter"],
    ]


@pytest.mark.parametrize(
    ("total", "used", "word"),
    [(80, 0, "fits GPU 0"), (80, 70, "not now"), (15, 0, "fits 2 GPUs"), (2, 0, "no")],
)
def test_list_says_whether_it_fits_now(
    total: int, used: int, word: str, command: Command, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = tuple(Gpu(n, f"GPU-{n}", "NVIDIA", total * GIB, used * GIB, 0, 40) for n in range(2))
    monkeypatch.setattr(gpu, "list_gpus", lambda: cards)
    assert word in next(line for line in command("models", "list").out.splitlines() if "LlamaForCausalLM" in line)
    (model,) = json.loads(command("models", "search", "llama-3-8b model", "--json").out)["models"][-1:]
    assert bool(model["fits"]["gpus"]) == (word != "no")


def test_an_empty_disk_says_how_to_fill_it(command: Command) -> None:
    outcome = command("models", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "no model is on this disk: `vllm-circus models pull ID` fetches one\n"


def test_what_cannot_be_looked_at_is_a_note(command: Command, disk: Path) -> None:
    (disk / "tuned" / "config.json").write_text("{")
    outcome = command("models", "list")
    assert outcome.err == f"note: {disk}/tuned/config.json is no JSON object\n"
    assert "incomplete" in outcome.out
    document = json.loads(command("models", "list", "--json").out)
    assert document["notes"] == [f"{disk}/tuned/config.json is no JSON object"]
    assert [model["complete"] for model in document["models"]] == [True, False, True]


def test_search_finds_every_word(command: Command, disk: Path) -> None:
    assert "tuned" in command("models", "search", "mistral").out
    assert command("models", "search", "mistral adapter").err == "nothing on this disk is like 'mistral adapter'\n"


def test_search_asks_the_hub_when_it_is_told_to(command: Command, disk: Path, hub: FakeHub) -> None:
    outcome = command("models", "search", "tiny", "--hub")
    assert outcome.out.splitlines()[-1].split() == ["org/tiny", "1234", "5", "text-generation"]
    assert json.loads(command("models", "search", "tiny", "--hub", "--json").out)["hub"][0]["id"] == "org/tiny"


def test_show_tells_everything_and_what_to_type_next(command: Command, disk: Path, instance: Instance) -> None:
    instance.config_file.parent.mkdir(exist_ok=True)
    instance.config_file.write_text("models: [{name: chat, model: meta-llama/Llama-3-8B}]\n")
    outcome = command("models", "show", "llama-3-8b")
    shown = outcome.out
    assert "revision     main, commit abc" in shown
    assert f"adapters\n  {disk}/sql, rank 16\n" in shown
    assert "model-00004-of-00004.safetensors" in shown
    assert f"used by\n  models file {instance.config_file} names it" in shown
    assert outcome.err.splitlines() == [
        "next: `vllm-circus fit meta-llama/Llama-3-8B`",
        "next: `vllm-circus add meta-llama/Llama-3-8B`",
    ]
    document = json.loads(command("models", "show", "llama-3-8b", "--json").out)
    assert document["adapters"] == [{"id": f"{disk}/sql", "confidence": "same"}]
    assert document["used_by"] == [f"models file {instance.config_file} names it"]


def test_show_tells_of_an_adapter_what_it_belongs_on(command: Command, disk: Path) -> None:
    outcome = command("models", "show", str(disk / "sql"))
    assert "bases here\n  meta-llama/Llama-3-8B\n" in outcome.out
    assert outcome.err == f"next: `vllm-circus add meta-llama/Llama-3-8B --lora sql={disk}/sql`\n"


def test_show_tells_of_damaged_files(command: Command, disk: Path) -> None:
    (disk / "tuned" / "model.safetensors").write_bytes(b"nonsense" * 10)
    assert "model.safetensors has no header: it is damaged" in command("models", "show", "tuned").out


@pytest.mark.parametrize("words", [("show", "lama-3-8b"), ("rm", "lama-3-8b")])
def test_an_unknown_name_is_guessed_at(words: tuple[str, ...], command: Command, disk: Path) -> None:
    outcome = command("models", *words)
    assert outcome.code == 4
    assert "hint: did you mean `meta-llama/Llama-3-8B`?" in outcome.err


def test_folders_come_and_go(command: Command, home: Path) -> None:
    assert "none: `vllm-circus models folders add PATH`" in command("models", "folders").err
    assert command("models", "folders", "add", str(home / "none")).code == 1
    assert command("models", "folders", "add").code == 2
    assert command("models", "folders", "add", str(home)).err == f"{home} is searched from now on\n"
    assert command("models", "folders", "add", str(home)).code == 1
    assert json.loads(command("models", "folders", "--json").out) == {"folders": [str(home)]}
    assert command("models", "folders", "rm", str(home)).code == 0
    assert command("models", "folders", "rm", str(home)).code == 4
    assert command("models", "folders").out == ""


@pytest.mark.parametrize(("deed", "told"), [("add", "is searched already"), ("remove", "is not searched")])
def test_what_another_did_to_the_folders_meanwhile_is_seen(
    deed: str, told: str, home: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "TELL_AFTER", 0.0)
    if deed == "remove":
        stock.add_folder(instance, str(home), print)
    waits, ends = threading.Event(), list[str]()

    def change() -> None:
        try:
            getattr(stock, f"{deed}_folder")(instance, str(home), lambda _text: waits.set())
        except CircusError as error:
            ends.append(str(error))

    instance.settings.parent.mkdir(exist_ok=True)
    with locking.hold(instance.settings.with_name(".settings.lock"), "the settings", print):
        other = threading.Thread(target=change)
        other.start()
        assert waits.wait(30)
        instance.settings.write_text(f"model_folders: [{home}]\n" if deed == "add" else "model_folders: []\n")
    other.join(30)
    assert [told in end for end in ends] == [True]


def test_rm_shows_what_would_go_and_asks(command: Command, disk: Path, cache: Path) -> None:
    outcome = command("models", "rm", "meta-llama/Llama-3-8B")
    assert outcome.code == 2  # nobody is here to be asked
    assert f"meta-llama/Llama-3-8B: 16.0G would be free\n  {cache}/models--meta-llama--Llama-3-8B\n" in outcome.err
    assert list(cache.iterdir())
    assert command("models", "rm", "meta-llama/Llama-3-8B", "--yes").err.endswith(": 16.0G are free\n")
    assert not list(cache.iterdir())


def test_rm_keeps_what_something_saved_names(command: Command, disk: Path, instance: Instance) -> None:
    instance.config_file.write_text(f"models: [{{name: chat, model: {disk}/tuned}}]\n")
    outcome = command("models", "rm", "tuned", "--yes")
    assert (outcome.code, (disk / "tuned").exists()) == (1, True)
    assert outcome.err == (
        f"error: {disk}/tuned is needed: models file {instance.config_file} names it\n"
        "hint: `--force` removes it all the same\n"
    )
    assert command("models", "rm", "tuned", "--yes", "--force").code == 0
    assert not (disk / "tuned").exists()


def test_rm_keeps_what_the_running_set_serves(
    command: Command, disk: Path, home: Path, instance: Instance, free_port: Callable[[], int]
) -> None:
    file = home / "set.yaml"
    lora = f"lora: [{{name: sql, path: {disk}/sql}}]"
    model = f"{{name: chat, model: {disk}/tuned, engine: simulator, port: {free_port()}, {lora}}}"
    file.write_text(f"proxy: {{port: {free_port()}}}\nmodels: [{model}]\n")
    assert command("render", str(file), "--output", str(instance.run_dir)).code == 0
    with hold_lock(instance):
        for name in ("tuned", "sql"):
            outcome = command("models", "rm", name, "--yes")
            assert outcome.code == 1
            assert f"{disk}/{name} is needed: the running set serves it as chat" in outcome.err
    assert command("models", "rm", "sql", "--yes").code == 0


def test_a_folder_of_ones_own_has_to_be_named(disk: Path, home: Path) -> None:
    child = pexpect.spawn(sys.executable, ["-m", "vllm_circus", "models", "rm", "tuned"], timeout=60, encoding="utf-8")
    child.expect_exact("type tuned to remove it")
    child.sendline("y")
    child.expect_exact("nothing was removed")
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, (disk / "tuned").exists()) == (0, True)


def test_pull_tells_what_comes_and_prints_the_folder(command: Command, hub: FakeHub, cache: Path) -> None:
    outcome = command("models", "pull", REPOSITORY)
    folder = cache / "models--org--tiny" / "snapshots" / COMMIT
    assert (outcome.code, outcome.out) == (0, f"{folder}\n")
    first, *others = outcome.err.splitlines()
    assert first == "fetching org/tiny: 2 files, 500.0K (1 other left out)"
    assert all("% of" in line or "%: " in line for line in others)
    again = command("models", "pull", REPOSITORY)
    assert again.err == f"org/tiny is here already: 2 files, commit {COMMIT[:12]}\n"


def test_pull_shows_a_bar_on_a_terminal_and_ctrl_c_ends_it(hub: FakeHub, cache: Path) -> None:
    hub.stall.add("model.safetensors")
    child = pexpect.spawn(
        sys.executable, ["-m", "vllm_circus", "models", "pull", REPOSITORY], timeout=60, encoding="utf-8"
    )
    child.expect_exact("1 of 2 files")
    hub.stalled.wait(60)
    child.sendintr()
    child.expect_exact("broken off; `vllm-circus models pull org/tiny` goes on: files that are whole stay")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not list(cache.rglob("*.*.incomplete"))


def test_a_token_s_file_that_others_may_read_is_refused(command: Command, hub: FakeHub, home: Path) -> None:
    file = home / "token"
    file.write_text("hf_secret")
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "settings.yaml").write_text(f"token_file: {file}\n")
    file.chmod(0o644)
    outcome = command("models", "pull", REPOSITORY)
    assert outcome.err == f"error: token file {file} may be read by others (mode 0644)\nhint: chmod 600 {file}\n"
    file.chmod(0o600)
    assert command("models", "pull", REPOSITORY).code == 0
    assert hub.tokens() == {"Bearer hf_secret"}


WITHOUT_THE_LIBRARY = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "huggingface_hub":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from vllm_circus.cli.outcome import run_safely
sys.exit(run_safely(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [("pull", "org/tiny"), ("search", "tiny", "--hub")])
def test_without_the_library_it_is_said_how_to_install_it(words: tuple[str, ...], cache: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_THE_LIBRARY, "models", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "error: the hub needs the package huggingface_hub, which is not installed" in ended.stderr
    assert f"hint: {sys.executable} -m pip install 'huggingface_hub>=1.1'" in ended.stderr
    everything = subprocess.run([*command[:4], "list"], capture_output=True, text=True, check=False, timeout=60)
    assert everything.returncode == 0
