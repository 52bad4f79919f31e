"""Step 3: the whole configuration, what is wrong with it, and what becomes of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from vllm_circus.errors import CircusError
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.lines import flat
from vllm_circus.menu.wizard import decided
from vllm_circus.menu.wizard.engine import ask_engine
from vllm_circus.menu.wizard.models import ask_about
from vllm_circus.menu.wizard.proxy import ask_reach, proxy_steps
from vllm_circus.menu.wizard.walk import BackWith, Step, walk
from vllm_circus.menu.wizard.written import text_of
from vllm_circus.view.table import Cell, Line

if TYPE_CHECKING:
    from vllm_circus.errors import Fault
    from vllm_circus.menu.context import Context
    from vllm_circus.menu.wizard.decided import Decision
    from vllm_circus.menu.wizard.setup import Setup
    from vllm_circus.paths import Instance
    from vllm_circus.view.outline import Outline

Ending = Literal["save and start", "save", "start", "cancel"]

#: What says which program serves a model.
_SERVES = frozenset({"engine", "executable"})
#: What the questions about a model are about.
_ASKED = frozenset({"name", "model", "aliases", "lora", "gpus", "port", "profile", "gpu_memory", "args"})
_PLACE = re.compile(r"(proxy|models|defaults|profiles)(?:\[(\d+)\])?(?:\.([a-z_]+))?")


def review(setup: Setup, context: Context, keep: Callable[[Setup], None]) -> tuple[Setup, Ending]:
    """Show it, mend it, and ask what becomes of it. Raises BackWith."""
    from vllm_circus.cli.common import running_outline

    while True:
        running = running_outline(context.instance)  # anew each time: it may have ended since
        decision = decided.decide(setup, context.instance)
        show_review(setup, context, decision)
        try:
            answer = context.asker.choose("Step 3 of 3: Save Configuration", _choices(decision, running))
        except Back:
            raise BackWith(setup) from None
        if answer in {"save and start", "save", "start", "cancel"}:
            return setup, answer  # type: ignore[return-value]  # the strings that Ending is made of
        if answer == "yaml":
            context.asker.show(yaml_lines(setup))
            context.asker.show([(), *command_lines(setup, context.instance)])
            context.asker.pause()
        elif answer == "models":
            raise BackWith(setup)
        else:
            setup = mend(setup, answer, context, running, keep)
            keep(setup)


def show_review(setup: Setup, context: Context, decision: Decision) -> None:
    """The configuration as a table, its warnings, its faults."""
    from vllm_circus.cli.check import proxy_words, table_lines
    from vllm_circus.logline import clean

    asker = context.asker
    if decision.plan is not None:
        asker.show([(), *flat((line, True) for line in table_lines(decision.plan, context.width - 1))])
        asker.show([()])
        for sentence in (*_more(setup), f"{proxy_words(decision.plan.proxy)}; {_switches(setup)}"):
            asker.say(sentence)
        for warning in decision.plan.warnings:
            asker.say(f"warning: {clean(warning)}")
    else:
        asker.show([(), *yaml_lines(setup), ()])
        for fault in decision.faults:
            asker.say(f"error: {fault_words(fault)}")


def _more(setup: Setup) -> Iterator[str]:
    """What a narrow table has no room for: other names, profiles and options, a line for each model that has some."""
    from vllm_circus.logline import clean

    for entry in setup.models:
        values, said = entry.values, []
        if entry.names[1:]:
            said.append(f"also called {', '.join(entry.names[1:])}")
        said += [f"{key} {values[key]}" for key in ("profile", "gpu_memory") if key in values]
        said += [f"{name}={value}" for name, value in values.get("args", {}).items()]
        if said:
            yield clean(f"{entry.name}: {', '.join(said)}")


def _switches(setup: Setup) -> str:
    """What the proxy offers."""
    named = {"cors": "CORS", "metrics": "metrics", "request_logging": "request logging", "keys": "API keys"}
    return ", ".join(f"{word} {'on' if setup.proxy.get(key) else 'off'}" for key, word in named.items())


def fault_words(fault: Fault) -> str:
    """A fault without its file, which is none yet."""
    what = f"{fault.where}: {fault.message}" if fault.where else fault.message
    return f"{what} ({fault.fix})" if fault.fix else what


def yaml_lines(setup: Setup) -> Iterator[Line]:
    """The models file that it is."""
    from vllm_circus.logline import clean

    for line in text_of(setup).splitlines():
        yield (Cell(clean(line), "dim" if line.lstrip().startswith("#") else ""),)


def command_lines(setup: Setup, instance: Instance) -> Iterator[Line]:
    """What would be typed instead of all the questions."""
    from vllm_circus.cli.common import words

    name = setup.name or "models.yaml"
    yield (Cell("The same on the command line: with this in a file models.yaml," if not setup.name else "Then:"),)
    yield (Cell(f"  {words(instance, f'up {shlex.quote(name)} -d --wait')}", "cyan"),)


def _choices(decision: Decision, running: Outline | None) -> list[Choice[str] | Heading]:
    faults = decision.faults
    wrong = "mend what is wrong first" if faults else ""
    runs = wrong or ("a set runs already: stop it first" if running is not None else "")
    rows: list[Choice[str] | Heading] = []
    if faults:
        rows.append(Heading("what is wrong"))
        rows += [Choice(place, f"Mend {place or 'it'}", message) for place, message in _places(faults)]
        rows.append(Heading("or"))
    rows += [
        Choice("save and start", "Save and start now", "save the configuration and launch the proxy", runs),
        Choice("save", "Save for later use", "save it without starting"),
        Choice("start", "Start without saving", "use it this once", runs),
        Choice("yaml", "Show the configuration file", "and the command that starts it"),
        Choice("models", "Change models", "add, change, take away, put in order"),
        Choice("proxy", "Change the proxy's settings"),
        Choice("cancel", "Cancel", "abort the setup"),
    ]
    return rows


def _places(faults: Sequence[Fault]) -> Iterator[tuple[str, str]]:
    """Where something can be mended, each place once, with what is wrong there first."""
    seen: set[str] = set()
    for fault in faults:
        found = _PLACE.match(fault.where)
        place = found[0] if found else ""
        if place not in seen:
            seen.add(place)
            yield place, fault_words(fault)


def mend(setup: Setup, place: str, context: Context, running: Outline | None, keep: Callable[[Setup], None]) -> Setup:
    """Ask again what a place of the file is about. Raises CircusError where no question is about it."""
    found = _PLACE.match(place)
    if found is None:
        raise BackWith(setup)
    section, position, key = found[1], int(found[2]) if found[2] is not None else None, found[3] or ""
    if key in _SERVES:
        return _ask_engine(setup, context, position)
    if section == "models" and position is not None and (key or "model") in _ASKED:
        return ask_about(setup, position, key or "model", context, running, keep)
    if place == "proxy.keys":
        return _ask_keys(setup, context)
    if section == "proxy":
        steps = [step for step in proxy_steps(context, running) if place in {"proxy", step.place}]
        if steps:
            return _ask_proxy(setup, steps)
    raise _not_asked(place, setup, context)


def _not_asked(place: str, setup: Setup, context: Context) -> CircusError:
    from vllm_circus.cli.common import words

    edit = words(context.instance, f"config edit {setup.name or 'NAME'}")
    return CircusError(f"no question is about {place}", hint=f"save it for later use; `{edit}` corrects it then")


def _ask_engine(setup: Setup, context: Context, position: int | None) -> Setup:
    """What serves the models, or that one where it has a word of its own about it; Back leaves it as it was."""
    try:
        if position is None or not _SERVES & set(setup.models[position].values):
            return ask_engine(setup, context)
        entry = setup.models[position]
        own = {key: value for key, value in entry.values.items() if key in _SERVES}
        answer = ask_engine(replace(setup, defaults=own), context).defaults
    except Back:
        return setup
    values = {key: value for key, value in entry.values.items() if key not in _SERVES}
    return replace(setup.opened(position), pending=replace(entry, values={**values, **answer})).settled()


def _ask_keys(setup: Setup, context: Context) -> Setup:
    """Other keys, or none; Back leaves it as it was."""
    try:
        return ask_reach(context, setup.with_proxy(keys=None))
    except Back:
        return setup


def _ask_proxy(setup: Setup, steps: Sequence[Step]) -> Setup:
    """These questions about the proxy; Back leaves it as it was."""
    try:
        return walk(setup, steps, lambda _: None)
    except BackWith:
        return setup
