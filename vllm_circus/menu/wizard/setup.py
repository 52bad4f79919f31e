"""What was answered so far, and what it comes to as a models file. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vllm_circus.config.models import RESERVED_NAMES, Proxy

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One model: `values` are what the models file says of it; `shortcut` names the one that it came from."""

    values: Values
    shortcut: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.values.get("name", ""))

    @property
    def gpus(self) -> tuple[int, ...]:
        """Its GPUs; none where it has none, or nobody said."""
        return tuple(self.values.get("gpus") or ())

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it takes."""
        adapters = (str(one["name"]) for one in self.values.get("lora", ()))
        return (self.name, *self.values.get("aliases", ()), *adapters)

    def with_values(self, **values: Any) -> Entry:
        """The entry with other values; None and empty ones are left out of the file, `gpus` excepted."""
        merged = {**self.values, **values}
        return replace(
            self, values={k: v for k, v in merged.items() if (v is not None and v not in ("", [], {})) or k == "gpus"}
        )

    def without(self, key: str) -> Entry:
        """The entry without one of its values."""
        return replace(self, values={k: v for k, v in self.values.items() if k != key})


@dataclass(frozen=True)
class Setup:
    """A set that is being put together.

    Attributes:
        proxy, defaults, profiles: as the models file says them.
        models: those that are done.
        pending: the one that questions are being asked about, with its position in `models`, None where it is new.
        name: under which it is saved; empty where it is not yet.
        text: the file that it was made from, whose comments stay; empty for a new one.
        choices: what was chosen where an answer leaves no trace in the file.
    """

    proxy: Values
    models: tuple[Entry, ...] = ()
    defaults: Values = field(default_factory=dict)
    profiles: Values = field(default_factory=dict)
    pending: Entry | None = None
    position: int | None = None
    name: str = ""
    text: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def entry(self) -> Entry:
        """The model that questions are being asked about."""
        return self.pending if self.pending is not None else Entry({})

    @property
    def others(self) -> tuple[Entry, ...]:
        """The models beside that one."""
        return tuple(model for at, model in enumerate(self.models) if at != self.position)

    def with_entry(self, entry: Entry) -> Setup:
        """With another answer about the model in question."""
        return replace(self, pending=entry)

    def with_proxy(self, **values: Any) -> Setup:
        """With another answer about the proxy."""
        return replace(self, proxy={**self.proxy, **values})

    def with_choice(self, key: str, value: str) -> Setup:
        """Remembers a choice."""
        return replace(self, choices={**self.choices, key: value})

    def with_other(self, entry: Entry) -> Setup:
        """With other values for one of the models that are done, by its name."""
        return replace(self, models=tuple(entry if one.name == entry.name else one for one in self.models))

    def settled(self) -> Setup:
        """The model in question is done."""
        if self.pending is None:
            return self
        models = list(self.models)
        if self.position is None:
            models.append(self.pending)
        else:
            models[self.position] = self.pending
        return replace(self, models=tuple(models), pending=None, position=None)

    def opened(self, position: int | None) -> Setup:
        """Questions are about that model now, None for a new one."""
        choices = {key: value for key, value in self.choices.items() if key != "source"}
        pending = Entry({}) if position is None else self.models[position]
        return replace(self, position=position, pending=pending, choices=choices)

    def is_begun(self) -> bool:
        """Whether there is anything to lose."""
        return bool(self.models or self.choices or (self.pending is not None and self.pending.values))


def whole_document(setup: Setup) -> dict[str, Any]:
    """The models file with the model in question, as far as it is known."""
    return document(setup.settled() if setup.pending is not None and setup.pending.name else setup)


def document(setup: Setup) -> dict[str, Any]:
    """The models file as data; values at their default are left out, host and port excepted."""
    usual = Proxy().model_dump()
    proxy = {k: v for k, v in setup.proxy.items() if k in {"host", "port"} or usual.get(k) != v}
    parts: dict[str, Any] = {"proxy": proxy}
    if setup.defaults:
        parts["defaults"] = dict(setup.defaults)
    if setup.profiles:
        parts["profiles"] = dict(setup.profiles)
    parts["models"] = [ordered(entry.values) for entry in setup.models]
    return parts


_ORDER = ("name", "model", "aliases", "lora", "gpus", "gpu_memory", "port", "profile", "args")


def ordered(values: Values) -> dict[str, Any]:
    """The values of a model, those that people look for first."""
    known = {key: values[key] for key in _ORDER if key in values}
    return known | {key: value for key, value in values.items() if key not in known}


def said(values: Values) -> dict[str, Any]:
    """What a models file says of a model, without a port or GPUs of null: that says as much as nothing."""
    return {key: value for key, value in values.items() if value is not None or key not in {"port", "gpus"}}


def name_for(model: str, taken: Collection[str]) -> str:
    """A name that a model can be called by: from its id or path, unlike all that are taken."""
    last = model.rstrip("/").rpartition("/")[2].partition(":")[0].removesuffix(".gguf")
    base = re.sub(r"[^a-z0-9_]+", "-", last.lower()).strip("-_")[:60] or "model"
    spoken_for = {*taken, *RESERVED_NAMES}
    return next(name for name in _numbered(base) if name not in spoken_for)


def _numbered(base: str) -> Iterator[str]:
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"


def dump_draft(setup: Setup) -> str:
    """The setup as JSON."""
    plain = {
        **{key: getattr(setup, key) for key in ("defaults", "profiles", "name", "text", "choices", "position")},
        "proxy": dict(setup.proxy),
        "models": [_plain(entry) for entry in setup.models],
        "pending": _plain(setup.pending) if setup.pending is not None else None,
    }
    return json.dumps(plain, indent=1)


def load_draft(text: str) -> Setup:
    """The setup read back. Raises ValueError on anything that `dump_draft` did not write."""
    try:
        plain = json.loads(text)
        pending = plain["pending"]
        return Setup(
            proxy=dict(plain["proxy"]),
            models=tuple(Entry(dict(one["values"]), str(one["shortcut"])) for one in plain["models"]),
            defaults=dict(plain["defaults"]),
            profiles=dict(plain["profiles"]),
            pending=Entry(dict(pending["values"]), str(pending["shortcut"])) if pending is not None else None,
            position=plain["position"],
            name=str(plain["name"]),
            text=str(plain["text"]),
            choices=dict(plain["choices"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no draft: {error}") from None


def _plain(entry: Entry) -> dict[str, Any]:
    return {"values": dict(entry.values), "shortcut": entry.shortcut}
