"""Around a running set: its monitors, its models, reload and its end. Whoever started it does not matter.

Rules: leaving the menu stops nothing, and is said so; Ctrl-C ends waiting and never takes a wish back; a set that ends
while somebody looks at it is told, and the main menu follows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_circus.errors import NotRunning
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.main import headline
from vllm_circus.menu.trying import attempt

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.view.status import Picture


@dataclass(frozen=True)
class Entry:
    """One entry of the menu."""

    label: str
    hint: str
    run: Callable[[Context, Instance], None]


def open_running(context: Context, instance: Instance | None = None) -> None:
    """The menu of a set that runs: of `instance`, else of the only one, else of the one that is chosen.

    Raises NotRunning where none runs, and Back where none is chosen.
    """
    instance = instance or choose_instance(context)
    choices: list[Choice[Entry | None] | Heading] = [Choice(entry, entry.label, entry.hint) for entry in ENTRIES]
    choices.append(Choice(None, "Back to main menu", "the proxy goes on running in the background"))
    last: Entry | None = ENTRIES[0]
    while runs(instance):
        try:
            last = context.asker.choose(f"{headline(instance)}\nThe running proxy", choices, default=last)
        except Back:
            last = None
        if last is None:
            say_stays(context, instance)
            return
        attempt(context, last.run, instance)
        if last.run is stop_all and not runs(instance):
            return
    say_ended(context, instance)


def look_after_new(context: Context, do: Callable[[], object]) -> bool:
    """Do something that may start the set; returns whether it did, after its menu."""
    ran = runs(context.instance)
    do()
    if ran or not runs(context.instance):
        return False
    open_running(context, context.instance)
    return True


def running_instances(context: Context) -> list[Instance]:
    """Those of our instances that run now; the one that `--instance` names first."""
    from vllm_circus.cli.common import running_beside, running_pid
    from vllm_circus.paths import find_instance

    own = [context.instance] if running_pid(context.instance) is not None else []
    return [*own, *(find_instance(other.name, context.environ) for other in running_beside(context.instance))]


def choose_instance(context: Context) -> Instance:
    """The instance that is meant. Raises NotRunning where none runs."""
    from vllm_circus.cli.common import need_running

    running = running_instances(context)
    if not running:
        need_running(context.instance)  # which says why not
    if len(running) == 1:
        return running[0]
    choices = [Choice(instance.name, instance.name, headline(instance)) for instance in running]
    chosen = context.asker.choose("Several sets run. Which one?", choices)
    return next(instance for instance in running if instance.name == chosen)


def runs(instance: Instance) -> bool:
    """Whether the set is still there."""
    from vllm_circus.cli.common import running_pid

    return running_pid(instance) is not None


def say_ended(context: Context, instance: Instance) -> None:
    """Tell that the set has gone, and what became of it where that is known."""
    from vllm_circus.cli.common import find_fallen, instance_words

    fallen = find_fallen(instance)
    context.asker.say(f"{instance_words(instance)} does not run any more{f': {fallen}' if fallen else ''}.")


def say_stays(context: Context, instance: Instance) -> None:
    """Tell that nothing was stopped, and how to come back."""
    from vllm_circus.cli.common import words
    from vllm_circus.paths import goes_with_login
    from vllm_circus.view.outline import read_plan_outline

    outline = read_plan_outline(instance)
    where = f" at {outline.url}" if outline else ""
    context.asker.say(
        f"The proxy goes on running in the background{where}, also when this program has ended; "
        f"`{words(instance, 'menu')}` comes back to it, `{words(instance, 'down')}` stops it."
    )
    if goes_with_login(instance.run_dir, os.geteuid()):
        context.asker.say("It ends when you log out; `loginctl enable-linger` keeps it running.")


def look(instance: Instance) -> Picture:
    """The set as it is now; takes up to two seconds where a plugin is silent. Raises NotRunning."""
    from vllm_circus.cli.status import pictures_of

    with closing(pictures_of(instance)) as pictures:  # type: ignore[type-var]  # it is a generator
        return next(pictures)


def in_flight(picture: Picture, names: Sequence[str] | None = None) -> int:
    """Requests that these engines serve now, or all of them."""
    counts = picture.counts.models if picture.counts else {}
    return sum(each.in_flight for name, each in counts.items() if names is None or name in names)


def monitor_proxy(context: Context, instance: Instance) -> None:
    """Backends, requests, GPUs and the proxy's log, until somebody leaves. Raises NotRunning."""
    from vllm_circus.screens.monitor import show_proxy

    show_proxy(instance, plain=context.plain)


def monitor_models(context: Context, instance: Instance) -> None:
    """All models' logs, or those of one that is chosen."""
    from vllm_circus.cli.common import need_outline
    from vllm_circus.screens.monitor import show_models

    targets = need_outline(instance).targets
    choices: list[Choice[str] | Heading] = [Choice("", "Overview", "the logs of all models, mixed by time")]
    choices += [Choice(name, name) for name in targets]
    show_models(instance, context.asker.choose("Which model's log?", choices) or None, plain=context.plain)


def manage_models(context: Context, instance: Instance) -> None:
    """The table of models, and what can be done with each."""
    from vllm_circus.menu.manage import manage

    manage(context, instance)


def reload(context: Context, instance: Instance) -> None:
    """Show what the models file as it is now would change, and do it."""
    from vllm_circus.menu.reloading import reload_file

    reload_file(context, instance)


def stop_all(context: Context, instance: Instance) -> None:
    """Stop the proxy and every model, requests in flight first."""
    from vllm_circus.cli.common import instance_words, words
    from vllm_circus.cli.down import stop_set
    from vllm_circus.paths import DEFAULT_INSTANCE
    from vllm_circus.view.units import counted

    picture = look(instance)
    asked = in_flight(picture)
    number = len(picture.outline.models)
    waits = f"{counted(asked, 'request')} in flight may end first." if asked else "No request is in flight."
    whose = "" if instance.name == DEFAULT_INSTANCE else f" of {instance_words(instance)}"
    context.asker.say(f"The proxy and {counted(number, 'model')}{whose} will stop. {waits}")
    if not context.asker.confirm("Stop all servers?", default=not asked):
        return
    try:
        with suppress(NotRunning):  # somebody else was faster
            stop_set(instance, tell=context.asker.say)
    except KeyboardInterrupt:
        context.asker.say(
            f"no longer waiting; it goes on stopping, and `{words(instance, 'status')}` tells how far it is"
        )
        context.asker.pause()


ENTRIES: tuple[Entry, ...] = (
    Entry("Monitor proxy logs", "backends, requests, GPUs, and its log as it comes", monitor_proxy),
    Entry("Monitor model logs", "one model's engine, or all of them mixed", monitor_models),
    Entry("Manage models", "add, start, stop, restart, sleep, wake, remove, why", manage_models),
    Entry("Reload", "apply the models file; what did not change goes on", reload),
    Entry("Stop all servers", "the proxy and every model; requests may end first", stop_all),
)
