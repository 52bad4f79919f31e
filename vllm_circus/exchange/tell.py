"""An import, an export or a machine's lacks in sentences, whoever shows them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from vllm_circus.exchange.doubts import Doubt
from vllm_circus.exchange.found import Imported, Loss


def tell_import(imported: Imported, profiles: Container[str] = ()) -> tuple[str, ...]:
    """What was taken over, what became something else, and what was lost; one sentence each.

    `profiles` are those that are kept here: only others have yet to be imported.
    """
    lacking = (name for name in imported.profiles_elsewhere if name not in profiles)
    needs = (
        f"the profile {name!r} is not in this file: import vllm-cli's user_profiles.json as well" for name in lacking
    )
    return (*_taken(imported), *tell_losses(imported.losses, (*needs, *imported.notes)))


def tell_losses(losses: Sequence[Loss], notes: Sequence[str]) -> tuple[str, ...]:
    """What was lost, each thing with its reason, or that nothing was."""
    told = [f"note: {note}" for note in notes]
    if not losses:
        return (*told, "nothing was lost")
    count = "1 thing was" if len(losses) == 1 else f"{len(losses)} things were"
    return (*told, f"{count} not taken over:", *(f"  {loss}" for loss in losses))


def tell_doubts(found: Iterable[Doubt]) -> tuple[str, ...]:
    """What is not on this machine; empty where everything is."""
    lines = tuple(f"  {doubt}" for doubt in found)
    return ("not on this machine:", *lines) if lines else ()


def _taken(imported: Imported) -> Iterator[str]:
    for name, document in imported.configurations.items():
        models = [model["name"] for model in document.get("models", [])]
        count = "1 model" if len(models) == 1 else f"{len(models)} models"
        yield f"configuration {name}: {count}, {', '.join(models)}"
    for kind, names in (("profile", imported.profiles), ("shortcut", imported.shortcuts)):
        if names:
            yield f"{kind if len(names) == 1 else f'{kind}s'} {', '.join(names)}"
    if imported.model_folders:
        yield f"model folders {', '.join(imported.model_folders)}"
