"""Shortcuts: models with their options, ready to be added to a set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_circus.menu.fields import Field, edit_fields, shown, words_of
from vllm_circus.menu.kept import Deed, Kind, as_written, ask_name, free_name, open_kept
from vllm_circus.menu.merging import rebase
from vllm_circus.menu.profiles import DESCRIPTION, ask_environment, ask_options, choose_profile

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.stores.schema import Shortcut


def open_shortcuts(context: Context) -> None:
    """List, show, make, change, rename, remove, import and export them."""
    open_kept(context, lambda: _kind(context))


def _kind(context: Context) -> Kind[Shortcut]:
    from vllm_circus.cli.shortcuts import FAMILY
    from vllm_circus.menu.files import export_deed, import_entry
    from vllm_circus.stores.shelf import shortcut_shelf

    return Kind(
        title="Shortcuts: models with their options, ready to be added to a set",
        shelf=shortcut_shelf(context.instance, context.asker.say),
        family=FAMILY,
        summary=summary,
        details=as_written,
        adding=(
            ("New shortcut", "a model, a profile and what differs from it", new_shortcut),
            import_entry("shortcut"),
        ),
        deeds=(
            Deed("Edit", "its model, profile, options …", edit_shortcut),
            Deed("Copy", "a new one like it", copy_shortcut),
            export_deed("shortcut"),
        ),
    )


def summary(shortcut: Shortcut) -> str:
    """One line for a list."""
    profile = f", profile {shortcut.profile}" if shortcut.profile else ""
    return shortcut.description or f"{shortcut.model}{profile}"


def _model(context: Context, record: Mapping[str, Any]) -> str:
    from vllm_circus.menu.models import choose_model

    return choose_model(context, str(record.get("model") or ""))


def _profile(context: Context, record: Mapping[str, Any]) -> str | None:
    none = "vLLM's own defaults, and the models file's"
    return choose_profile(context, "Profile", none=none, default=str(record.get("profile") or "")) or None


def _check_aliases(words: list[str]) -> str:
    from vllm_circus.config.models import ALIAS_PATTERN

    bad = next((word for word in words if not re.match(ALIAS_PATTERN, word)), None)
    return "" if bad is None else f"{bad!r} is no name that a client could ask for"


def _lora(context: Context, record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    from vllm_circus.menu.models import choose_adapters

    return choose_adapters(context, str(record.get("model") or ""), record.get("lora") or []) or None


_MODEL = Field("model", "Model", "a folder, or a Hugging Face id", _model)
_ALIASES = Field(
    "aliases",
    "Aliases",
    "further names that clients may use",
    words_of("Aliases, with blanks between", "aliases", _check_aliases),
)
_LORA = Field("lora", "LoRA adapters", "served on top of it under names of their own", _lora)

#: What a shortcut is asked for; every other key of its file stays as it is.
FIELDS = (
    DESCRIPTION,
    _MODEL,
    Field("profile", "Profile", "a named bundle of options", _profile),
    Field("args", "Options", "they win over the profile's", ask_options),
    Field("env", "Environment", "variables of the engine; secrets belong into `env_file`", ask_environment),
    _ALIASES,
    _LORA,
)


def new_shortcut(context: Context) -> None:
    """A model, a name, and the rest. Raises Back."""
    model = _model(context, {})
    _make(context, re.sub(r"[^a-z0-9_]+", "-", model.rpartition("/")[2].lower()).strip("-_")[:60], {"model": model})


def copy_shortcut(context: Context, name: str) -> None:
    """A new one like the one of that name. Raises Back."""
    from vllm_circus.stores.shelf import shortcut_shelf
    from vllm_circus.stores.yamltext import plain

    _make(context, name, plain(shortcut_shelf(context.instance).read(name)))


def _make(context: Context, wanted: str, record: Mapping[str, Any]) -> None:
    from vllm_circus.stores.shelf import shortcut_shelf

    shelf = shortcut_shelf(context.instance, context.asker.say)
    name = ask_name(context, shelf, free_name(shelf, wanted) if wanted else "")
    shelf.write(name, _shortcut(edit_fields(context, f"New shortcut {name!r}", FIELDS, record)))
    context.asker.say(f"The shortcut {name!r} is kept.")


def edit_shortcut(context: Context, name: str) -> None:
    """Change one; what others change meanwhile stays. Raises Back."""
    from vllm_circus.stores.shelf import shortcut_shelf
    from vllm_circus.stores.yamltext import plain

    shelf = shortcut_shelf(context.instance, context.asker.say)
    before = plain(shelf.read(name))
    others = [key for key in before if key not in {field.key for field in FIELDS}]
    if others:
        rest = ", ".join(f"{key}: {shown(before[key])}" for key in others)
        context.asker.say(f"What else its file says stays as it is: {rest}")
    after = edit_fields(context, f"The shortcut {name!r}", FIELDS, before)
    if after != before:
        shelf.change(name, lambda current: _shortcut(rebase(before, after, plain(current))))
        context.asker.say(f"The shortcut {name!r} is changed; sets that it was added to stay as they are.")


def _shortcut(record: Mapping[str, Any]) -> Shortcut:
    from vllm_circus.stores.schema import Shortcut

    return Shortcut.model_validate(dict(record))
