"""Step 2: what else there is to say of a model, and the order of its questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from vllm_circus.config.models import option_flag
from vllm_circus.logline import clean
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.options import parse_option, refuse
from vllm_circus.menu.wizard import decided, machine
from vllm_circus.menu.wizard.checks import bad_aliases, bad_name, bad_port, split_aliases
from vllm_circus.menu.wizard.gpus import ask_gpus, ask_share, needs_share
from vllm_circus.menu.wizard.setup import Setup
from vllm_circus.menu.wizard.source import source_steps
from vllm_circus.menu.wizard.walk import BackWith, Step
from vllm_circus.plan.ports import FIRST_PORT, LAST_PORT

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.view.outline import Outline

_NO_PROFILE = ""
_GONE = object()


def model_steps(context: Context, running: Outline | None, keep: Callable[[Setup], None]) -> tuple[Step, ...]:
    """The questions about one model, in the order of the walk; `keep` is told what one of them has within itself."""
    return (
        *source_steps(context),
        Step("aliases", lambda setup: ask_aliases(setup, context)),
        Step("gpus", lambda setup: ask_gpus(setup, context, running)),
        Step("port", lambda setup: ask_port(setup, context, running)),
        Step("port number", lambda setup: ask_port_number(setup, context, running), _has_own_port),
        Step("profile", lambda setup: ask_profile(setup, context), lambda setup: not setup.entry.shortcut),
        Step("gpu_memory", lambda setup: ask_share(setup, context, running), needs_share),
        Step("args", lambda setup: ask_args(setup, context, keep)),
    )


def ask_name(setup: Setup, context: Context) -> Setup:
    """What it is called; asked only where somebody wants to change it."""
    taken = {name for other in setup.others for name in other.names} | set(setup.entry.names[1:])
    title = "What clients and every command call it\nName of the model"
    text = context.asker.text(title, default=setup.entry.name, check=lambda text: bad_name(text, taken))
    return setup.with_entry(setup.entry.with_values(name=text))


def ask_aliases(setup: Setup, context: Context) -> Setup:
    """Further names; none is fine."""
    entry = setup.entry
    adapters = [str(one["name"]) for one in entry.values.get("lora", ())]
    taken = {name for other in setup.others for name in other.names} | {entry.name, *adapters}
    title = (
        f"Clients ask for it as {entry.name}; further names have commas between, and none is fine\n"
        "Model Alias (optional)"
    )
    words = (str(entry.values["model"]),) if not str(entry.values["model"]).startswith("/") else ()
    text = context.asker.text(
        title,
        default=", ".join(entry.values.get("aliases", ())),
        check=lambda text: bad_aliases(text, taken),
        words=words,
    )
    return setup.with_entry(entry.with_values(aliases=split_aliases(text)))


# -- the port ----------------------------------------------------------------------------------------------------------


def ask_port(setup: Setup, context: Context, running: Outline | None) -> Setup:
    """The engine's own port on this machine: found by itself, or one that somebody names."""
    entry, free = setup.entry, next_port(setup, running)
    choices: list[Choice[Literal["auto", "own"]] | Heading] = [
        Choice("auto", "Automatic port", f"the next free one at the start: {free} now"),
        Choice("own", "Custom port", f"now {entry.values['port']}" if "port" in entry.values else "always the same"),
    ]
    default: Literal["auto", "own"] = "own" if _has_own_port(setup) else "auto"
    answer = context.asker.choose(f"Port Assignment for {entry.name}", choices, default=default)
    return setup.with_entry(
        entry.without("port") if answer == "auto" else entry.with_values(port=entry.values.get("port", free))
    )


def _has_own_port(setup: Setup) -> bool:
    return "port" in setup.entry.values


def ask_port_number(setup: Setup, context: Context, running: Outline | None) -> Setup:
    """The port that it is to have."""
    taken = [*_taken_ports(setup), *ports_of_running(setup, running)]
    text = context.asker.text(
        "It listens on this machine alone\nPort of its engine",
        default=str(setup.entry.values["port"]),
        check=lambda text: bad_port(text, taken=taken, busy=machine.busy_ports(running)),
    )
    return setup.with_entry(setup.entry.with_values(port=int(text)))


def next_port(setup: Setup, running: Outline | None) -> int:
    """The port that the model would get by itself: those that have none are served in the file's order."""
    taken = {port for port, _ in _taken_ports(setup)}
    busy = machine.busy_ports(running)
    free = (port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in taken and port not in busy)
    before = setup.models if setup.position is None else setup.models[: setup.position]
    for _ in [one for one in before if "port" not in one.values]:
        next(free)
    return next(free)


def _taken_ports(setup: Setup) -> list[tuple[int, str]]:
    taken = [(int(setup.proxy["port"]), "the proxy's own")]
    return taken + [(int(one.values["port"]), f"that of {one.name}") for one in setup.others if "port" in one.values]


def ports_of_running(setup: Setup, running: Outline | None) -> list[tuple[int, str]]:
    """Where others of the set run that have no port of their own: they would have to move."""
    others = {one.name for one in setup.others if "port" not in one.values}
    return [(one.port, f"where {one.name} runs") for one in (running.models if running else ()) if one.group in others]


# -- the profile -------------------------------------------------------------------------------------------------------


def ask_profile(setup: Setup, context: Context) -> Setup:
    """One of the profiles, those of one's own first, with what they come to."""
    from vllm_circus.config.models import Profile
    from vllm_circus.config.profiles import BUILTIN

    own = decided.stored_profiles(context.instance)
    in_file = {name: Profile.model_validate(values) for name, values in setup.profiles.items()}
    choices: list[Choice[str] | Heading] = [Choice(_NO_PROFILE, "No profile", "vLLM's own defaults")]
    seen: set[str] = set()
    for heading, profiles in (("of this configuration", in_file), ("your own", own), ("built in", BUILTIN)):
        named = {name: profile for name, profile in profiles.items() if name not in seen}
        choices += [Heading(heading)] if named else []
        choices += [Choice(name, name, _about(setup, context, name, profile)) for name, profile in named.items()]
        seen |= set(named)
    now = str(setup.entry.values.get("profile") or _NO_PROFILE)
    title = f"Profile Selection for {setup.entry.name}"
    name = context.asker.choose(title, choices, default=now if now in seen else _NO_PROFILE)
    return setup.with_entry(setup.entry.with_values(profile=name))


def _about(setup: Setup, context: Context, name: str, profile: Any) -> str:
    """Its options, and which of them the GPUs override."""
    spread = decided.spread_words(setup, context, profile=name).split("; ")
    overridden = [words for words in spread if decided.BECOMES in words]
    gone = {words.partition(" ")[0] for words in overridden}
    options = [f"{flag} {_told(value)}" for flag, value in profile.args.items() if flag not in gone]
    return clean(", ".join([*overridden, *options]) or profile.description)


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else json.dumps(value)


# -- options -----------------------------------------------------------------------------------------------------------


def ask_args(setup: Setup, context: Context, keep: Callable[[Setup], None]) -> Setup:
    """Options of the engine, one at a time, until nothing is typed."""
    args: dict[str, Any] = dict(setup.entry.values.get("args", {}))
    while True:
        title = f"{_listed(args)}\nAnother one, such as max-model-len=8192; an empty line is the end\nEngine option"
        try:
            text = context.asker.text(title, check=lambda text: refuse(text, _read_option))
        except Back:
            raise BackWith(setup.with_entry(setup.entry.with_values(args=args))) from None
        if not text:
            return setup.with_entry(setup.entry.with_values(args=args))
        _put(args, *_read_option(text))
        keep(setup.with_entry(setup.entry.with_values(args=args)))


def _read_option(text: str) -> tuple[str, Any]:
    """A name and a value; `NAME=` is to take it away. Raises ValueError with a sentence."""
    name, equals, value = text.partition("=")
    return (parse_option(f"{name}=null")[0], _GONE) if equals and not value.strip() else parse_option(text)


def _put(args: dict[str, Any], name: str, value: Any) -> None:
    """Set an option in whichever spelling it is there, or take it away."""
    same = next((known for known in args if option_flag(known) == name), name)
    if value is _GONE:
        args.pop(same, None)
    else:
        args[same] = value


def _listed(args: Mapping[str, Any]) -> str:
    if not args:
        return "Options of `vllm serve` for this model win over the profile's; none is set"
    options = ", ".join(f"{name}={_told(value)}" for name, value in args.items())
    return f"Set: {clean(options)}  (NAME= takes one away)"
