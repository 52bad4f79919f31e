"""What a configuration from elsewhere names and this machine does not have: pointed out, never guessed.

Rules: the machine is asked through `facts` and `disk` alone; nothing here says that something is wrong, only that it is
not there now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_circus.config.places import Place, harmless, show_place
from vllm_circus.facts import Disk, Facts

_PATH_STARTS = ("/", "./", "../", "~")


@dataclass(frozen=True)
class Doubt:
    """Something that is not on this machine.

    Attributes:
        where: its place in the document (`models[1].gpus`).
        what: one sentence.
        fix: what could be done about it.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.fix})"


def doubts(document: Mapping[str, Any], facts: Facts, disk: Disk, folder: Path = Path("/")) -> tuple[Doubt, ...]:
    """What a configuration's document names and is not here; `folder` is where its relative paths begin.

    The document has to be one that `config.models.Config` takes.
    """
    looker = _Looker(facts, disk, folder)
    return tuple(
        Doubt(harmless(show_place(place)), harmless(what), fix) for place, what, fix in looker.everything(document)
    )


#: A place, what is not there, and what could be done.
_Found = Iterator[tuple[Place, str, str]]


@dataclass(frozen=True)
class _Looker:
    facts: Facts
    disk: Disk
    folder: Path

    def everything(self, document: Mapping[str, Any]) -> _Found:
        proxy = document.get("proxy") or {}
        yield from self.proxy(proxy)
        defaults = document.get("defaults") or {}
        yield from self.files(defaults, ("defaults",))
        yield from self.options(defaults, ("defaults",))
        for name, profile in (document.get("profiles") or {}).items():
            yield from self.options(profile, ("profiles", name))
        models = document.get("models") or []
        yield from self.for_all(models, defaults)
        for position, model in enumerate(models):
            place: Place = ("models", position)
            yield from self.model(model, place)
            yield from self.files(model, place)
            yield from self.options(model, place)
            yield from self.ports(model, place)

    def for_all(self, models: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> _Found:
        """What the machine lacks for every model alike, told once at the first one."""
        with_gpus = [position for position, model in enumerate(models) if model.get("gpus")]
        if self.facts.gpus is None and with_gpus:
            what = f"no GPU driver was found on this machine, and {_count(with_gpus)} GPUs"
            yield ("models", with_gpus[0], "gpus"), what, "install it, or write `gpus: []` for the CPU"
        with_vllm = [position for position, model in enumerate(models) if _needs_vllm(model, defaults)]
        if "vllm" not in self.facts.programs and with_vllm:
            what = f"there is no `vllm` on the PATH of this machine, and {_count(with_vllm)} it"
            yield ("models", with_vllm[0], "engine"), what, "install vLLM, or name its `executable`"

    def proxy(self, proxy: Mapping[str, Any]) -> _Found:
        port = proxy.get("port", 8000)
        if port in self.facts.busy_ports:
            yield ("proxy", "port"), f"port {port} is in use on this machine", "choose another one, or stop what has it"
        for keys in (("keys", "file"), ("tls", "certificate"), ("tls", "key")):
            value = (proxy.get(keys[0]) or {}).get(keys[1])
            if value and self.disk.mode(self.locate(value)) is None:
                yield ("proxy", *keys), f"there is no file {self.locate(value)}", "put it there, or name another one"

    def model(self, model: Mapping[str, Any], place: Place) -> _Found:
        yield from self.source(model.get("model"), (*place, "model"))
        for number, adapter in enumerate(model.get("lora") or []):
            yield from self.source(adapter.get("path"), (*place, "lora", number, "path"))
        known = [gpu.index for gpu in self.facts.gpus or ()]
        missing = [index for index in model.get("gpus") or [] if index not in known]
        if missing and self.facts.gpus is not None:
            which = ", ".join(map(str, missing))
            fix = f"choose among {', '.join(map(str, known))}" if known else "write `gpus: []` for the CPU"
            yield (*place, "gpus"), f"this machine has no GPU {which}", fix

    def source(self, value: Any, place: Place) -> _Found:
        if not isinstance(value, str) or not value.startswith(_PATH_STARTS):
            return
        if not self.disk.exists(self.locate(value)):
            yield place, f"there is no {self.locate(value)}", "copy it there, or name where it is on this machine"

    def files(self, section: Mapping[str, Any], place: Place) -> _Found:
        if (value := section.get("env_file")) and self.disk.mode(self.locate(value)) is None:
            yield (*place, "env_file"), f"there is no file {self.locate(value)}", "put it there with mode 0600"
        if (value := section.get("executable")) and self.disk.which(self.program(value)) is None:
            yield (*place, "executable"), f"there is no executable {value}", "install it, or name another one"
        command = (section.get("engine") or {}).get("command") if isinstance(section.get("engine"), dict) else None
        if command and "{" not in command[0] and self.disk.which(self.program(command[0])) is None:
            yield (
                (*place, "engine", "command", 0),
                f"there is no executable {command[0]}",
                "install it, or name another one",
            )

    def options(self, section: Mapping[str, Any], place: Place) -> _Found:
        """Options that name a file, such as a chat template, are known by the slash that they begin with."""
        for name, value in (section.get("args") or {}).items():
            if isinstance(value, str) and value.startswith("/"):
                yield from self.source(value, (*place, "args", name))

    def ports(self, model: Mapping[str, Any], place: Place) -> _Found:
        first = model.get("port")
        for port in range(first, first + model.get("replicas", 1)) if first else ():
            if port in self.facts.busy_ports:
                yield (
                    (*place, "port"),
                    f"port {port} is in use on this machine",
                    "leave `port` away: a free one is taken",
                )

    def locate(self, value: str) -> Path:
        if value == "~" or value.startswith("~/"):
            return self.disk.home() / value[2:]
        return self.folder / value

    def program(self, value: str) -> str:
        return str(self.locate(value)) if "/" in value or value.startswith("~") else value


def _count(positions: Sequence[int]) -> str:
    return "1 model needs" if len(positions) == 1 else f"{len(positions)} models need"


def _needs_vllm(model: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    engine = model.get("engine", defaults.get("engine", "vllm"))
    return engine == "vllm" and not (model.get("executable") or defaults.get("executable"))
