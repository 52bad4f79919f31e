"""What a new plan would do to a set that runs: pure, for showing it before it is done.

Rules, the same as those that the health plugin goes by: an engine is restarted only where its digest has changed; all
else about a model takes effect at once. What a running set holds of its proxy (see `held`) stays until it is started
anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from vllm_circus.plan.held import held_back
from vllm_circus.plan.types import ModelPlan, Plan, ProxyPlan

#: Of a model: what follows from the rest and says nothing by itself.
_SILENT = frozenset({"digest", "watcher", "argv", "env", "serves", "memory_share", "env_version"})
_ENGINE = ("model", "engine", "argv", "env", "env_file", "env_version", "endpoint", "gpus")


@dataclass(frozen=True)
class Change:
    """What becomes of one model; `what` names the options that say so, shortly."""

    name: str
    what: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """From one plan to another.

    Attributes:
        added, removed: models that come and go.
        restarted: engines that get a new process.
        changed: models of which something takes effect at once, without a restart.
        proxy: options of the proxy that take effect at once.
        fixed: options of the proxy that need the set to be started anew.
        warnings: of the new plan, those that the old one has not: what stays as it was has been read already.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    restarted: tuple[Change, ...]
    changed: tuple[Change, ...]
    proxy: tuple[str, ...]
    fixed: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether the two plans are one."""
        return not (self.applies or self.fixed)

    @property
    def applies(self) -> bool:
        """Whether a running set would be another one at once."""
        return bool(self.added or self.removed or self.restarted or self.changed or self.proxy)


def compare(old: Plan, new: Plan) -> Difference:
    """What differs, models in the new plan's order."""
    before = {model.name: model for model in old.models}
    after = {model.name: model for model in new.models}
    both = [(before[name], model) for name, model in after.items() if name in before]
    fixed = held_back(old.proxy, new.proxy)
    return Difference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        restarted=tuple(Change(b.name, tuple(_engine(a, b))) for a, b in both if a.digest != b.digest),
        changed=tuple(
            Change(b.name, what) for a, b in both if a.digest == b.digest and (what := tuple(_different(a, b, _SILENT)))
        ),
        proxy=tuple(_of_proxy(old.proxy, new.proxy, fixed)),
        fixed=fixed,
        warnings=tuple(_new_warnings(old, new)),
    )


def _new_warnings(old: Plan, new: Plan) -> Iterator[str]:
    known = frozenset(map(_by_names(old), old.warnings))
    by_names = _by_names(new)
    yield from (warning for warning in new.warnings if by_names(warning) not in known)


def _by_names(plan: Plan) -> Callable[[str], str]:
    """Names models in a warning that has their numbers: those shift as models come and go."""
    names = list(dict.fromkeys(model.group for model in plan.models))

    def named(found: re.Match[str]) -> str:
        number = int(found[1])
        return names[number] if number < len(names) else found[0]

    return lambda warning: re.sub(r"\bmodels\[(\d+)\]", named, warning)


def _of_proxy(old: ProxyPlan, new: ProxyPlan, fixed: tuple[str, ...]) -> Iterator[str]:
    """Its options that take effect at once; of another file of keys it is known that it holds others."""
    for name in _different(old, new, frozenset(fixed)):
        if name != "keys_version":
            yield name
        elif old.keys_file == new.keys_file:
            yield "keys"


def _engine(old: ModelPlan, new: ModelPlan) -> Iterator[str]:
    """Which parts of an engine have changed: its own options by name."""
    for name in _ENGINE:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name == "argv":
            yield from _options(old, new)
        elif name == "env":
            yield from (f"env {key}" for key in sorted({pair[0] for pair in {*before} ^ {*after}}) if key != _THREADS)
        elif name == "env_version":
            yield from ("what is in env_file",) if old.env_file == new.env_file else ()
        elif name == "endpoint":
            yield "port" if before.port != after.port else "listening"
        else:
            yield name


#: Shared out among the models, and no reason to restart one.
_THREADS = "OMP_NUM_THREADS"


def _options(old: ModelPlan, new: ModelPlan) -> Iterator[str]:
    before, after = _flags(old.argv), _flags(new.argv)
    for flag in dict.fromkeys((*before, *after)):
        if before.get(flag) != after.get(flag) and flag not in {"--served-model-name", "--port", "--uds"}:
            yield flag.removeprefix("--")


def _flags(argv: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Each option with the words behind it."""
    found: dict[str, tuple[str, ...]] = {}
    flag = ""
    for word in argv:
        if word.startswith("--"):
            flag = word
            found[flag] = ()
        elif flag:
            found[flag] = (*found[flag], word)
    return found


def _different(old: ModelPlan | ProxyPlan, new: ModelPlan | ProxyPlan, silent: frozenset[str]) -> Iterator[str]:
    for field in fields(old):
        if field.name not in silent and getattr(old, field.name) != getattr(new, field.name):
            yield field.name
