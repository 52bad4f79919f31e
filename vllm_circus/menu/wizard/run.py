"""The wizard from its first question to what becomes of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.errors import CircusError
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.wizard import saving
from vllm_circus.menu.wizard.careful import Abandoned, CarefulAsker
from vllm_circus.menu.wizard.drafts import Draft, free_draft, left_over
from vllm_circus.menu.wizard.engine import ask_engine, lacks_vllm
from vllm_circus.menu.wizard.models import ask_models, edit_model
from vllm_circus.menu.wizard.proxy import first_values, proxy_steps
from vllm_circus.menu.wizard.review import Ending, review
from vllm_circus.menu.wizard.setup import Entry, Setup, said
from vllm_circus.menu.wizard.walk import BackWith, Step, walk

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context


def configure_new(context: Context) -> None:
    """A new set, or the draft of one. Raises KeyboardInterrupt where somebody leaves the menu; the draft stays."""
    with _opened(context, "", "") as (draft, setup):
        run_wizard(context, draft, setup or _fresh(context), resumed=setup is not None)


def edit_saved(context: Context, name: str) -> None:
    """Change a saved configuration, or go on with that. Raises CircusError where it cannot be read."""
    from vllm_circus.stores.shelf import configuration_shelf

    text = configuration_shelf(context.instance).read_text(name)
    with _opened(context, name, "from the file as it stands; ") as (draft, setup):
        run_wizard(context, draft, setup or setup_of(name, text), resumed=setup is not None)


@contextmanager
def _opened(context: Context, name: str, anew: str) -> Iterator[tuple[Draft, Setup | None]]:
    """A draft that is this menu's alone, and what it says where it is gone on with. Raises Back."""
    with ExitStack() as stack:
        left = [stack.enter_context(draft) for draft in left_over(context.instance, name)]
        chosen = _resume(context, left, anew) if left else None
        for draft in left:
            if draft is not chosen:
                draft.release()
        setup = chosen.read() if chosen is not None else None
        draft = chosen or stack.enter_context(free_draft(context.instance, name))
        if draft.number > 1 and chosen is None:
            what = f"changing {name}" if name else "setting up a new proxy"
            context.asker.say(f"another menu is {what} as well: each has a draft of its own")
        yield draft, setup


def _resume(context: Context, left: Sequence[Draft], anew: str) -> Draft | None:
    """The draft that is gone on with, if any; else all of them are thrown away. Raises Back."""
    choices: list[Choice[Draft | None] | Heading] = [
        Choice(draft, "Go on with the draft" if draft is left[0] else f"Go on with draft {draft.number}", _words(draft))
        for draft in left
    ]
    gone = "the draft is thrown away" if len(left) == 1 else "the drafts are thrown away"
    choices.append(Choice(None, "Begin anew", f"{anew}{gone}"))
    chosen = context.asker.choose("What was entered the last time is still there", choices)
    for draft in left if chosen is None else ():
        draft.drop()
    return chosen


def _words(draft: Draft) -> str:
    setup = draft.read()
    models = ", ".join(one.name for one in setup.models) if setup else ""
    return f"{draft.name or 'new'}: {models or 'no model yet'}"


def setup_of(name: str, text: str) -> Setup:
    """A models file that is there, as a setup. Raises ConfigError where it is none."""
    from vllm_circus.config.document import parse_document
    from vllm_circus.config.load import parse_config

    parse_config(text.encode(), Path(name))
    data = parse_document(text, name).data
    parts = data if isinstance(data, dict) else {}
    return Setup(
        proxy=first_values(parts.get("proxy") or {}),
        models=tuple(Entry(said(model)) for model in parts.get("models", ())),
        defaults=parts.get("defaults") or {},
        profiles=parts.get("profiles") or {},
        name=name,
        text=text,
    )


def run_wizard(context: Context, draft: Draft, setup: Setup, *, resumed: bool) -> None:
    """Ask everything, and do what is wanted then; `resumed` is from the draft.

    Raises KeyboardInterrupt on a second Ctrl-C.
    """
    careful = replace(context, asker=CarefulAsker(context.asker))
    try:
        _ask(careful, setup, draft)
    except Abandoned as end:
        if not end.keep:
            draft.drop()
        _say_kept(context, draft)
    except BackWith as back:
        if back.setup == setup and not resumed:  # looked at, and nothing changed
            draft.drop()
        _say_kept(context, draft)


def _say_kept(context: Context, draft: Draft) -> None:
    if draft.read() is not None:
        offers = f"it is offered when {draft.name} is edited again" if draft.name else '"Configure new proxy" offers it'
        context.asker.say(f"what was entered is kept: {offers}")


def _ask(context: Context, setup: Setup, draft: Draft) -> None:
    from vllm_circus.cli.common import running_outline

    running = running_outline(context.instance)
    steps = (
        *proxy_steps(context, running),
        Step("engine", lambda setup: ask_engine(setup, context), lambda setup: lacks_vllm(setup, context)),
        Step("models", lambda setup: ask_models(setup, context, running, draft.keep)),
    )
    start = 0 if not setup.name else len(steps) - 1
    if setup.models and setup.pending is None:
        start = len(steps)
    while True:
        setup = walk(setup, steps, draft.keep, start=start)
        try:
            setup, ending = review(setup, context, draft.keep)
            if ending in {"save", "save and start"}:
                setup = saving.save(setup, context)
                draft.saved_as(setup.name)
            edited = finish(setup, ending, context, draft)
        except BackWith as back:
            setup, start = back.setup, len(steps) - 1
            continue
        except Back:
            start = len(steps)
            continue
        except CircusError as error:
            from vllm_circus.menu.main import show_error

            show_error(context.asker, error)
            context.asker.pause()
            start = len(steps)
            continue
        if edited is None:
            return
        setup, start = edited, len(steps)


# -- the end -----------------------------------------------------------------------------------------------------------


def finish(setup: Setup, ending: Ending, context: Context, draft: Draft) -> Setup | None:
    """Start what was set up, and saved where that was wanted. Returns it again where a model is to be edited."""
    if ending == "cancel":
        if setup.is_begun() and not context.asker.confirm("Throw away what was entered?", default=False):
            raise Abandoned(keep=True)
        raise Abandoned(keep=False)
    if ending == "save":
        from vllm_circus.cli.common import words

        context.asker.say(f"`{words(context.instance, f'up {setup.name}')}` starts it, and so does this menu")
        return None
    path = _path_of(setup, context) if ending == "save and start" else saving.write_once(setup, context)
    return _start(setup, context, path, draft)


def _path_of(setup: Setup, context: Context) -> Path:
    from vllm_circus.stores.shelf import configuration_shelf

    return configuration_shelf(context.instance).path(setup.name)


def _start(setup: Setup, context: Context, path: Path, draft: Draft) -> Setup | None:
    from vllm_circus.cli.down import stop_set
    from vllm_circus.menu.wizard.starting import start

    model = start(context, path)
    draft.drop()
    if not model:
        return None
    stop_set(context.instance, tell=context.asker.say)
    position = next((at for at, one in enumerate(setup.models) if model in {one.name, *_replicas(one)}), None)
    if position is None:
        return setup
    try:
        return edit_model(setup, position, context, None, draft.keep)
    except BackWith as back:
        return back.setup


def _replicas(entry: Entry) -> list[str]:
    return [f"{entry.name}-{number}" for number in range(1, int(entry.values.get("replicas", 1)) + 1)]


def _fresh(context: Context) -> Setup:
    """An empty setup with the defaults of the settings."""
    from vllm_circus.stores.settings import read_settings
    from vllm_circus.stores.yamltext import plain

    return Setup(proxy=first_values(plain(read_settings(context.instance).proxy)))
