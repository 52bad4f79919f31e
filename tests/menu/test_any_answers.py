"""Whatever anybody answers: every menu explains it, goes on, and comes to an end."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from vllm_circus import checkup, gpu
from vllm_circus.catalogue import removal
from vllm_circus.cli.common import Session
from vllm_circus.config.models import Profile
from vllm_circus.errors import CircusError
from vllm_circus.menu.ask import Back, Check, Choice, Heading
from vllm_circus.menu.context import Context
from vllm_circus.menu.main import run_menu
from vllm_circus.menu.typed import complain
from vllm_circus.menu.wizard import starting
from vllm_circus.paths import Instance, find_instance
from vllm_circus.render import service
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.shelf import configuration_shelf, profile_shelf, shortcut_shelf
from vllm_circus.view.table import Line, paint

T = TypeVar("T")

#: Answers in one run, after which only Ctrl-C comes.
PATIENCE = 120
TEXTS = (
    *(
        "",
        "-",
        "a",
        "mine",
        "Mine",
        "one-2",
        "a" * 65,
        "a" * 5000,
        "all",
        "proxy",
        "default",
        "../up",
        "x/y",
        "Qwen/Qwen3-8B",
    ),
    *(
        "0",
        "-1",
        "8000",
        "70000",
        "1e9",
        "0.5",
        "2 GiB",
        "nan",
        "true",
        "null",
        "[",
        "[1, 2]",
        "{a: 1}",
        "*x",
        "!!str a",
    ),
    *(
        "max-model-len=8192",
        "max-model-len=",
        "port=1",
        "A=b",
        "=",
        "a: b: c",
        "# no",
        "'",
        "127.0.0.1",
        "::1",
        "nowhere.invalid",
    ),
    *(
        "vllm serve sim/x --port 1",
        "vllm serve",
        "rm -rf x",
        "über",
        "\x1b[31mred",
        "a\nb",
        "\x00",
        "\udcff",
        "\u202eabc",
    ),
)
#: Never a path outside of the home: what is in folders that are named here is removed, and files are written there.
PATHS = ("", ".", "~", "out.yaml", "no/out.yaml", "bad.yaml", "empty.yaml", "models", "a" * 300, "a\x00b", "\udcff")

#: A configuration by hand, with nulls and a program that is not here.
NULLS = """\
proxy: {port: 8000, cors: false}
defaults: {executable: /no/vllm, gpu_memory: 0.4}
profiles: {own: {args: {seed: 1}}}
models:
  - {name: a, model: sim/a, engine: simulator, port: null, gpus: null, profile: null, gpu_memory: null}
  - {name: b, model: ./x, port: 8005, args: {seed: 2}, aliases: [c]}
"""


@dataclass
class Wild:
    """Answers anything at all."""

    dice: Random
    answers: int = 0
    shown: list[str] = field(default_factory=list)

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        self._move()
        free = [one for one in choices if isinstance(one, Choice) and not one.barred]
        if not free:
            raise Back
        return self.dice.choice(free).value

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        free = [one.value for one in choices if isinstance(one, Choice) and not one.barred]
        while True:
            self._move()
            values = [value for value in free if self.dice.random() < 0.4]
            if explain is not None:
                explain(values)
            if check is None or not check(values):
                return values

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        return self._typed((default, default, *TEXTS), check)

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        return self._typed(PATHS, lambda text: check(os.path.expanduser(text)) if check else "")  # noqa: PTH111 - as the askers do

    def confirm(self, title: str, *, default: bool = True) -> bool:
        self._move()
        return self.dice.random() < 0.6

    def show(self, lines: Iterable[Line]) -> None:
        self.shown += [paint(line, colour=False) for line in lines]

    def say(self, text: str) -> None:
        self.shown.append(text)

    def pause(self) -> None:
        self._move(back=False)

    def _typed(self, texts: Sequence[str], check: Check | None) -> str:
        while True:
            self._move()
            text = self.dice.choice(texts).strip()
            if not complain(text, check):
                return os.path.expanduser(text)  # noqa: PTH111 - as the askers do

    def _move(self, *, back: bool = True) -> None:
        self.answers += 1
        if self.answers > PATIENCE or self.dice.random() < 0.02:
            raise KeyboardInterrupt
        if back and self.dice.random() < 0.12:
            raise Back


@pytest.fixture
def instance(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """A home with something of each kind, broken ones too; no set is started, nothing outside of it is touched."""
    for name in ("VLLM_CIRCUS_HOME", "HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(short_dir / name.lower()[:4]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(short_dir / "bin"))
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.chdir(short_dir)
    (short_dir / "home").mkdir()
    (short_dir / "models" / "tiny").mkdir(parents=True)
    (short_dir / "models" / "tiny" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (short_dir / "bad.yaml").write_text("models: {\n")
    (short_dir / "empty.yaml").write_text("")
    manager = service.Manager(user=True, units=short_dir / "units", environ=())
    monkeypatch.setattr(service, "find_manager", lambda environ, *, user: manager)
    monkeypatch.setattr(starting, "start", _refuse)
    monkeypatch.setattr(gpu, "list_gpus", lambda: ())
    monkeypatch.setattr(removal, "carry_out", _only_below(short_dir))
    monkeypatch.setattr(checkup, "run", lambda *_, **__: (checkup.Finding("A", "b", checkup.Verdict.FAULT, "c", "d"),))
    instance = find_instance()
    profile_shelf(instance).write("mine", Profile(args={"max-model-len": 512}))
    shortcut_shelf(instance).write("one", Shortcut(model="sim/one", profile="mine"))
    configuration_shelf(instance).write_text("one", "models: [{name: a, model: sim/a, engine: simulator}]\n")
    configuration_shelf(instance).write_text("two", NULLS)
    (instance.config_dir / "profiles" / "broken.yaml").write_text("args: [\n")
    (instance.config_dir / "configs" / "Odd Name.yaml").write_text("models: []\n")
    return instance


def _only_below(home: Path) -> Callable[[removal.Removal], int]:
    """Removes what is below the home, and says so loudly where it is anything else."""
    carry_out = removal.carry_out

    def remove(meant: removal.Removal) -> int:
        assert all(path.resolve().is_relative_to(home.resolve()) for path in meant.paths), meant
        return carry_out(meant)

    return remove


def _refuse(*_: object) -> str:
    raise CircusError("nothing is started here")


@pytest.mark.parametrize("seed", range(24))
def test_every_menu_ends_well_whatever_is_answered(instance: Instance, seed: int) -> None:
    dice = Random(seed)
    for _ in range(5):  # one after the other in the same home, which fills meanwhile
        wild = Wild(dice)
        run_menu(Context(Session(), instance, wild, dict(os.environ)))
        assert wild.answers > 0
        assert not any("Traceback" in line for line in wild.shown)
