"""One model as planning sees it: its own values with the defaults filled in, and where each value was written.

A model of the file is one draft; `replicas.deal_out` makes one for each of its engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from vllm_circus.config.load import Loaded
from vllm_circus.config.models import CommandEngine, Model, ModelOptions, Profile, Section
from vllm_circus.config.places import Place, did_you_mean, show_place, show_value
from vllm_circus.config.profiles import BUILTIN, find_profile, known_profiles
from vllm_circus.errors import Fault


@dataclass
class Notes:
    """Everything found while one plan is made: faults that forbid it, and warnings; each once."""

    loaded: Loaded
    faults: dict[Fault, None] = field(default_factory=dict)
    _warnings: dict[tuple[int, str], None] = field(default_factory=dict)

    def fault(self, place: Place, message: str, fix: str = "", *, lack: bool = False) -> None:
        """Something that cannot be started like this, unless it may only follow from a fault that is known."""
        if self.loaded.doubts(place):
            return
        self.faults[replace(self.loaded.fault(place, message, fix), lack=lack)] = None

    def lack(self, place: Place, message: str, fix: str = "") -> None:
        """The same where only this machine does not have what is named."""
        self.fault(place, message, fix, lack=True)

    def take(self, faults: Iterable[Fault]) -> None:
        """What was found wrong in another file than the models file."""
        self.faults.update(dict.fromkeys(faults))

    def warn(self, place: Place, message: str) -> None:
        """Something that the operator should know."""
        where = f"{show_place(place)}: " if place else ""
        self._warnings[self.loaded.line(place), f"{where}{message}"] = None

    def warnings(self) -> tuple[str, ...]:
        """The sentences in file order."""
        return tuple(sentence for _, sentence in sorted(self._warnings, key=lambda warning: warning[0]))


@dataclass(frozen=True)
class Layer:
    """Where options or variables come from; later layers win over earlier ones."""

    place: Place
    values: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """A model with its inheritance settled.

    Attributes:
        index: its position in the file.
        own: what the operator wrote.
        model: the same with every option that it does not set itself taken from `defaults` (args and env excepted:
            those are merged key by key, see `args_layers`).
        profile: the profile's values, None without one or when it is not known.
        replica: which of the model's engines this is, from 1; None where it has only one.
        gpus: those of this engine; None where CUDA_VISIBLE_DEVICES is left alone.
        port: the one that is written for this engine, if any.
    """

    index: int
    own: Model
    model: Model
    defaults: ModelOptions
    profile: Profile | None
    profile_place: Place
    replica: int | None
    gpus: tuple[int, ...] | None
    port: int | None

    @property
    def name(self) -> str:
        """What the engine is called: as the model, or with its number behind that."""
        return self.group if self.replica is None else replica_name(self.group, self.replica)

    @property
    def group(self) -> str:
        """The model's name."""
        return self.own.name

    @property
    def command(self) -> CommandEngine | None:
        """The operator's own engine, if it has one."""
        return self.model.engine if isinstance(self.model.engine, CommandEngine) else None

    def at(self, *steps: str | int) -> Place:
        """The place of one of its values: in the model, or in `defaults` where it was inherited."""
        inherited = steps and steps[0] not in self.own.model_fields_set and steps[0] in self.defaults.model_fields_set
        return ("defaults", *steps) if inherited else ("models", self.index, *steps)

    def args_layers(self) -> tuple[Layer, ...]:
        """Engine options: defaults, profile, own."""
        return self._layers("args")

    def env_layers(self) -> tuple[Layer, ...]:
        """Environment variables: defaults, profile, own."""
        return self._layers("env")

    def _layers(self, name: str) -> tuple[Layer, ...]:
        profile: dict[str, Any] = getattr(self.profile, name) if self.profile else {}
        return (
            Layer(("defaults", name), getattr(self.defaults, name)),
            Layer((*self.profile_place, name), profile),
            Layer(("models", self.index, name), getattr(self.own, name)),
        )


def replica_name(group: str, number: int) -> str:
    """What an engine of a model with replicas is called; `number` is from 1."""
    return f"{group}-{number}"


def make_drafts(notes: Notes) -> tuple[Draft, ...]:
    """Every model of the file with its inheritance settled; unknown profiles are noted."""
    return tuple(_drafts(notes))


def _drafts(notes: Notes) -> Iterator[Draft]:
    config = notes.loaded.config
    for index, own in enumerate(config.models):
        model = inherit(own, config.defaults)
        profile = _profile(model.profile, notes) if model.profile is not None else None
        place: Place = ("profiles", model.profile or "")
        gpus = None if own.gpus is None else tuple(own.gpus)
        draft = Draft(index, own, model, config.defaults, profile, place, None, gpus, own.port)
        if model.profile is not None and profile is None and model.profile not in notes.loaded.library.profiles:
            _note_unknown(model.profile, draft.at("profile"), notes)
        yield draft


def _profile(name: str, notes: Notes) -> Profile | None:
    """What the name stands for; what is wrong with a stored one is noted."""
    library = notes.loaded.library
    if name in library.profiles:
        notes.take(library.profiles[name].faults)
    elif library.barred and name in BUILTIN and name not in notes.loaded.config.profiles:
        notes.warn((), f"{library.barred}; the built-in profile {name!r} is taken")
    return find_profile(name, notes.loaded.config, library)


def _note_unknown(name: str, place: Place, notes: Notes) -> None:
    library, known = notes.loaded.library, known_profiles(notes.loaded.config, notes.loaded.library)
    fix = did_you_mean(name, known) or library.barred or f"profiles are {', '.join(known)}"
    notes.fault(place, f"there is no profile {show_value(name)}", fix)


def inherit(own: Model, defaults: ModelOptions) -> Model:
    """`own` with every option that it does not set itself taken from `defaults`, inside of sections too."""
    return own.model_copy(update=_inherited(own, defaults))


def _inherited(own: BaseModel, defaults: BaseModel) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for name in defaults.model_fields_set:
        if name not in own.model_fields_set:
            taken[name] = getattr(defaults, name)
        elif _is_plain_section(mine := getattr(own, name)) and _is_plain_section(theirs := getattr(defaults, name)):
            taken[name] = mine.model_copy(update=_inherited(mine, theirs))
    return taken


def _is_plain_section(value: object) -> bool:
    """Sections like `restart` are merged; an engine's command is one thing."""
    return isinstance(value, Section) and not isinstance(value, CommandEngine)
