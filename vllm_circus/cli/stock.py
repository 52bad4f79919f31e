"""The models of this disk, for the commands and the menu alike: found, told, used, fetched and removed.

Everything takes plain arguments and an instance, whose settings name the folders and the token's file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.cli.common import running_pid
from vllm_circus.config.places import nearest
from vllm_circus.errors import CircusError
from vllm_circus.paths import expanded

if TYPE_CHECKING:
    from vllm_circus.catalogue.fetching import Watcher
    from vllm_circus.catalogue.hub import Access, HubModel
    from vllm_circus.catalogue.pull import Shipment
    from vllm_circus.catalogue.removal import Removal
    from vllm_circus.catalogue.types import LocalModel, Survey
    from vllm_circus.catalogue.usage import Use
    from vllm_circus.gpu import Gpu
    from vllm_circus.paths import Instance
    from vllm_circus.view.catalogue import Stock


class UnknownLocalModel(CircusError):
    """No model of that name is on this disk."""

    exit_code = 4


class InUse(CircusError):
    """A model is not removed while somebody needs it."""


def look(instance: Instance) -> Survey:
    """Every model in Hugging Face's cache and in the folders of the settings. Raises ConfigError for those."""
    from vllm_circus.catalogue.find import survey
    from vllm_circus.facts import Disk

    return survey(model_folders(instance), os.environ, Disk())


def model_folders(instance: Instance) -> tuple[Path, ...]:
    """The folders of the settings."""
    from vllm_circus.stores.settings import read_settings

    return tuple(expanded(folder) for folder in read_settings(instance).model_folders)


def with_rooms(models: Sequence[LocalModel], cards: Sequence[Gpu] | None = None) -> Stock:
    """The models with the room that the GPUs have for each; without `cards` those of this machine, if any."""
    from vllm_circus.catalogue.room import room_for
    from vllm_circus.gpu import NoDriver, list_gpus
    from vllm_circus.view.catalogue import Stock

    if cards is None:
        try:
            cards = list_gpus()
        except NoDriver:
            cards = ()
    return Stock(tuple(models), {(model.id, model.revision): room_for(model, cards) for model in models})


def matching(models: Sequence[LocalModel], text: str) -> tuple[LocalModel, ...]:
    """Those whose name, architecture, kind, base or own title holds every word of the text."""
    words = text.lower().split()
    return tuple(model for model in models if all(word in _spoken(model) for word in words))


def _spoken(model: LocalModel) -> str:
    parts = (model.id, model.architecture, model.kind, model.quantization, model.base, model.title)
    return " ".join(parts).lower()


def find_one(models: Sequence[LocalModel], name: str) -> LocalModel:
    """The model of that name, path, or last part of a name. Raises UnknownLocalModel, with a guess."""
    wanted = name.rstrip("/").lower()
    for same in (
        lambda model: model.id == name,
        lambda model: model.id.lower() == wanted,
        lambda model: _same_place(model, name),
        lambda model: Path(model.id).name.lower() == wanted,
    ):
        if len(found := [model for model in models if same(model)]) == 1:
            return found[0]
        if found:
            revisions = ", ".join(model.revision or model.id for model in found)
            raise UnknownLocalModel(f"{name} may be several models", hint=f"there are: {revisions}")
    near = nearest(name, (model.id for model in models), cutoff=0.4)
    guess = f"did you mean `{near}`?" if near else "`vllm-circus models list` shows those that there are"
    raise UnknownLocalModel(f"no model {name!r} on this disk", hint=guess)


def _same_place(model: LocalModel, name: str) -> bool:
    path = expanded(name).absolute()
    return path in {model.folder, model.home} and model.kind != "gguf"


def uses_of(instance: Instance, model: LocalModel) -> tuple[Use, ...]:
    """Who uses the model: the running set, processes, and what is saved."""
    from vllm_circus.catalogue.usage import process_uses, saved_uses, served_uses

    return (*served_uses(model, _served(instance)), *process_uses(model), *saved_uses(model, instance))


def _served(instance: Instance) -> dict[str, tuple[str, ...]]:
    """What each model of the running set loads, also where another release started it; nothing where none runs."""
    if running_pid(instance) is None:
        return {}
    try:
        models = json.loads(instance.plan.read_bytes())["models"]
        return {one["name"]: (one["model"], *(adapter["path"] for adapter in one["adapters"])) for one in models}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# -- the hub -----------------------------------------------------------------------------------------------------------


def hub_access(instance: Instance) -> Access:
    """How the hub is asked. Raises CircusError where the token cannot be used."""
    from vllm_circus.catalogue.hub import find_access
    from vllm_circus.facts import Disk
    from vllm_circus.stores.settings import read_settings

    file = read_settings(instance).token_file
    return find_access(os.environ, expanded(file) if file else None, Disk())


def search_hub(instance: Instance, text: str) -> list[HubModel]:
    """Models of the hub. Raises CircusError: without the extra `hub`, without a network, or where it is refused."""
    from vllm_circus.catalogue.hub import search_hub as search

    return search(text, hub_access(instance), os.environ)


def look_up(instance: Instance, model: str, revision: str | None = None, include: Sequence[str] = ()) -> Shipment:
    """What fetching a model comes to, held against the disk. Raises CircusError."""
    from vllm_circus.catalogue.pull import check_room, make_order
    from vllm_circus.catalogue.pull import look_up as ask
    from vllm_circus.facts import Disk

    shipment = ask(make_order(model, revision, include), hub_access(instance), os.environ, Disk())
    check_room(shipment)
    return shipment


def fetch(instance: Instance, shipment: Shipment, watcher: Watcher) -> Path:
    """Fetch it, and return its folder. Raises CircusError; Ctrl-C ends it at once, and the next time goes on."""
    from vllm_circus.catalogue.fetching import fetch as begin

    return begin(shipment, hub_access(instance), os.environ, watcher)


# -- removing ----------------------------------------------------------------------------------------------------------


def propose_removal(instance: Instance, survey: Survey, model: LocalModel, *, force: bool = False) -> Removal:
    """What removing a model takes away. Raises InUse where somebody needs it, unless `force`, and NotRemovable."""
    from vllm_circus.catalogue.removal import plan_removal

    removal = plan_removal(model, survey.models, model_folders(instance))
    uses = () if force else uses_of(instance, model)
    if uses:
        raise InUse(f"{model.id} is needed: {'; '.join(map(str, uses))}", hint="`--force` removes it all the same")
    return removal


# -- folders -----------------------------------------------------------------------------------------------------------


def add_folder(instance: Instance, folder: str, tell: Callable[[str], None]) -> Path:
    """Have a folder searched from now on. Raises CircusError where it is none, or is known."""
    path = expanded(folder).absolute()
    if not path.is_dir():
        raise CircusError(f"{path} is no folder", hint="name one that exists")

    def edit(folders: list[str]) -> list[str]:
        if path in (expanded(each).absolute() for each in folders):
            raise CircusError(f"{path} is searched already")
        return [*folders, str(path)]

    _change_folders(instance, edit, tell)
    return path


def remove_folder(instance: Instance, folder: str, tell: Callable[[str], None]) -> Path:
    """Search a folder no longer; nothing in it is touched. Raises UnknownLocalModel where it is not known."""
    path = expanded(folder).absolute()

    def edit(folders: list[str]) -> list[str]:
        left = [each for each in folders if expanded(each).absolute() != path]
        if left == folders:
            raise UnknownLocalModel(f"{path} is not searched", hint=f"there are: {', '.join(folders) or 'none'}")
        return left

    _change_folders(instance, edit, tell)
    return path


def _change_folders(instance: Instance, edit: Callable[[list[str]], list[str]], tell: Callable[[str], None]) -> None:
    """Look and change with nobody in between. Raises as `edit` does, and nothing is written then."""
    from vllm_circus.stores.settings import change_settings

    change_settings(
        instance,
        lambda settings: settings.model_copy(update={"model_folders": edit(settings.model_folders)}),
        tell,
    )
