"""The argument vector of an engine: vLLM, the simulator (which takes vLLM's flags), or the operator's own command.

Rule: aliases are served names too: the engine answers them, and no body has to be rewritten. Its own name comes first.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass

from vllm_circus.config.models import CommandEngine
from vllm_circus.config.places import did_you_mean
from vllm_circus.facts import Facts
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.options import Merged, words
from vllm_circus.plan.sources import Sources
from vllm_circus.plan.types import Adapter, Endpoint

HOST = "127.0.0.1"

_FILLED = re.compile(r"\{(model|name|host|port|gpus)\}")
_BRACED = re.compile(r"\{([a-z_]+)\}")
_INSTALL = "install vLLM where this program runs, name its `executable`, or try `engine: simulator`"


@dataclass(frozen=True)
class Served:
    """What an engine serves, and where: all that its argument vector is made of.

    `others` are names of models that fall back on it.
    """

    model: str
    endpoint: Endpoint
    adapters: tuple[Adapter, ...]
    options: Merged
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argv:
    """An argument vector in three parts: `names` are the words that tell the engine what clients call it."""

    before: tuple[str, ...]
    names: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def whole(self) -> tuple[str, ...]:
        """All words, program first."""
        return (*self.before, *self.names, *self.after)

    @property
    def nameless(self) -> tuple[str, ...]:
        """What has to stay for the engine to stay: the proxy sees to names."""
        return (*self.before, *self.after)


def engine_name(draft: Draft) -> str:
    """`vllm`, `simulator` or `command`."""
    return draft.model.engine if isinstance(draft.model.engine, str) else "command"


def engine_argv(draft: Draft, served: Served, facts: Facts, sources: Sources, notes: Notes) -> Argv:
    """The whole argument vector; its program is absolute."""
    if draft.command is not None:
        return Argv(_command_argv(draft, draft.command, served, sources, notes), (), ())
    program = _vllm(draft, facts, sources, notes) if draft.model.engine == "vllm" else _simulator(facts)
    return Argv(
        before=(*program, "serve", served.model, *_address(served.endpoint)),
        names=("--served-model-name", draft.group, *draft.own.aliases, *served.others),
        after=(*_adapters(served), *_options(served)),
    )


def _vllm(draft: Draft, facts: Facts, sources: Sources, notes: Notes) -> tuple[str, ...]:
    if draft.model.executable is not None:
        return (
            sources.program(draft.model.executable, draft.at("executable"), notes, "install it, or correct the path"),
        )
    if "vllm" not in facts.programs:
        notes.lack(draft.at("engine"), "there is no `vllm` on the PATH", _INSTALL)
    return (facts.programs.get("vllm", "vllm"),)


def _simulator(facts: Facts) -> tuple[str, ...]:
    return (facts.programs.get("python", sys.executable), "-m", "vllm_circus.simulator")


def _address(endpoint: Endpoint) -> list[str]:
    if endpoint.uds is not None:
        return ["--uds", endpoint.uds]
    return ["--host", endpoint.host, "--port", str(endpoint.port)]


def _adapters(served: Served) -> list[str]:
    if not served.adapters:
        return []
    return ["--enable-lora", "--lora-modules", *map(_lora_module, served.adapters)]


def _lora_module(adapter: Adapter) -> str:
    """vLLM takes `name=path` for what has no comma, else JSON."""
    if "," in adapter.path:
        return json.dumps({"name": adapter.name, "path": adapter.path})
    return f"{adapter.name}={adapter.path}"


def _options(served: Served) -> list[str]:
    ours = {"enable-lora"} if served.adapters else set()
    return [word for flag, (value, _) in served.options.items() if flag not in ours for word in words(flag, value)]


def _command_argv(
    draft: Draft, engine: CommandEngine, served: Served, sources: Sources, notes: Notes
) -> tuple[str, ...]:
    values = {
        "model": served.model,
        "name": draft.group,
        "host": served.endpoint.host,
        "port": str(served.endpoint.port),
        "gpus": ",".join(map(str, draft.gpus or ())),
    }
    filled = [_FILLED.sub(lambda match: values[match[1]], word) for word in engine.command]
    place = draft.at("engine", "command")
    for number, word in enumerate(engine.command):
        for left in _BRACED.findall(_FILLED.sub("", word)):
            if guess := did_you_mean(f"{{{left}}}", [f"{{{name}}}" for name in values]):
                notes.warn((*place, number), f"{{{left}}} stays as it is; {guess}")
    if not any("{port}" in word for word in engine.command) and (draft.port is None or draft.replica is not None):
        fix = "pass {port} on, or write the port that it uses in `port`"
        fix = fix if draft.replica is None else "pass {port} on: each replica has a port of its own"
        notes.fault(place, "the command never says {port}", fix)
    return (sources.program(filled[0], (*place, 0), notes, "install it, or correct the path"), *filled[1:])


def check_engine(draft: Draft, options: Merged, notes: Notes) -> None:
    """Note what does not go together with the engine: options for a command, adapters that are turned off."""
    if draft.own.lora and options.get("enable-lora", (True, ()))[0] is False:
        notes.fault(options["enable-lora"][1], "turns the model's `lora` off", "remove one of the two")
    if draft.command is None:
        return
    for key in ("args", "lora", "executable"):
        if key in draft.own.model_fields_set and getattr(draft.own, key):
            fix = "write it into `engine.command`"
            notes.fault(("models", draft.index, key), "is not passed to a command of your own", fix)
