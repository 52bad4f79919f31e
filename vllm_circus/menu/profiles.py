"""The operator's own profiles, and those that come with the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.fields import Field, edit_fields, line_of
from vllm_circus.menu.kept import Deed, Kind, as_written, ask_name, free_name, open_kept
from vllm_circus.menu.merging import rebase

if TYPE_CHECKING:
    from vllm_circus.config.models import Profile
    from vllm_circus.menu.context import Context


def open_profiles(context: Context) -> None:
    """List, show, make, change, rename, remove, import and export them."""
    open_kept(context, lambda: _kind(context))


def _kind(context: Context) -> Kind[Profile]:
    from vllm_circus.cli.profiles import FAMILY
    from vllm_circus.config.profiles import BUILTIN
    from vllm_circus.menu.files import export_deed, import_entry
    from vllm_circus.stores.shelf import profile_shelf

    return Kind(
        title="Profiles: named bundles of engine options",
        shelf=profile_shelf(context.instance, context.asker.say),
        family=FAMILY,
        summary=summary,
        details=as_written,
        adding=(
            ("New profile", "from another one, or from nothing", new_profile),
            import_entry("profile"),
        ),
        deeds=(
            Deed("Edit", "its description, options and environment", edit_profile),
            Deed("Copy", "a new one like it", copy_profile),
            export_deed("profile"),
        ),
        builtin=BUILTIN,
        builtin_deeds=(Deed("Copy", "a profile of your own like it", copy_profile),),
    )


def summary(profile: Profile) -> str:
    """One line for a list."""
    from vllm_circus.menu.fields import shown

    return profile.description or shown({**profile.args, **profile.env})


def ask_options(context: Context, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The field `args`, option by option."""
    from vllm_circus.menu.options import edit_options

    return edit_options(context.asker, "Options of `vllm serve`", record.get("args") or {}) or None


def ask_environment(context: Context, record: Mapping[str, Any]) -> dict[str, str] | None:
    """The field `env`, variable by variable."""
    from vllm_circus.menu.options import edit_environment

    return edit_environment(context.asker, "Environment of the engine", record.get("env") or {}) or None


#: What profiles and shortcuts have both.
DESCRIPTION = Field("description", "Description", "one line for lists", line_of("Description", "description"))
FIELDS = (
    DESCRIPTION,
    Field("args", "Options", "options of `vllm serve`", ask_options),
    Field("env", "Environment", "variables of the engine; secrets belong into a model's `env_file`", ask_environment),
)


def every_profile(context: Context) -> dict[str, Profile]:
    """Built-in and stored profiles that can be read, by name; stored ones win."""
    from vllm_circus.config.profiles import BUILTIN
    from vllm_circus.stores.shelf import profile_shelf

    entries = profile_shelf(context.instance).entries()
    return {**BUILTIN, **{entry.name: entry.value for entry in entries if entry.value is not None}}


def choose_profile(context: Context, title: str, *, none: str, default: str = "") -> str:
    """A profile's name, or nothing; `none` says what nothing is. Raises Back."""
    choices: list[Choice[str] | Heading] = [Choice("", "None", none)]
    choices += [Choice(name, name, summary(profile)) for name, profile in every_profile(context).items()]
    return context.asker.choose(title, choices, default=default)


def new_profile(context: Context) -> None:
    """Ask for another one to begin with, then as `copy_profile`."""
    _make(context, choose_profile(context, "Begin with which one?", none="an empty profile"))


def copy_profile(context: Context, name: str) -> None:
    """A new profile like the one of that name. Raises Back."""
    _make(context, name)


def _make(context: Context, beginning: str) -> None:
    from vllm_circus.stores.shelf import profile_shelf
    from vllm_circus.stores.yamltext import plain

    shelf = profile_shelf(context.instance, context.asker.say)
    profiles = every_profile(context)
    record = plain(profiles[beginning]) if beginning in profiles else {}
    name = ask_name(context, shelf, free_name(shelf, beginning, besides=profiles) if beginning else "")
    shelf.write(name, _profile(edit_fields(context, f"New profile {name!r}", FIELDS, record)))
    context.asker.say(f"The profile {name!r} is kept.")


def edit_profile(context: Context, name: str) -> None:
    """Change one; what others change meanwhile stays. Raises Back."""
    from vllm_circus.stores.shelf import profile_shelf
    from vllm_circus.stores.yamltext import plain

    shelf = profile_shelf(context.instance, context.asker.say)
    before = plain(shelf.read(name))
    after = edit_fields(context, f"The profile {name!r}", FIELDS, before)
    if after != before:
        shelf.change(name, lambda current: _profile(rebase(before, after, plain(current))))
        context.asker.say(f"The profile {name!r} is changed; sets that use it take it over with `reload`.")


def _profile(record: Mapping[str, Any]) -> Profile:
    from vllm_circus.config.models import Profile

    return Profile.model_validate(dict(record))
