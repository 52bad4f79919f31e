"""The stored profiles that a models file uses, as planning wants them: read here, decided there."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.config.load import Loaded
from vllm_circus.config.models import Config, Profile
from vllm_circus.config.profiles import Library, StoredProfile, used_profiles
from vllm_circus.errors import ConfigError, Fault
from vllm_circus.files import content_of
from vllm_circus.paths import Instance
from vllm_circus.plan.draft import Notes, make_drafts
from vllm_circus.plan.fallbacks import check_fallbacks
from vllm_circus.plan.names import check_names
from vllm_circus.stores.reading import parse_profile, read_kept
from vllm_circus.stores.shelf import Shelf, Unreadable, profile_shelf


def with_library(loaded: Loaded, instance: Instance) -> Loaded:
    """The models file with the stored profiles that it names; it may use them from then on."""
    return replace(loaded, library=read_library(loaded.config, instance))


def faults_of_names(loaded: Loaded, instance: Instance) -> tuple[Fault, ...]:
    """What is wrong with its names alone, on any machine: profiles and models that are not there, and names twice."""
    notes = Notes(with_library(loaded, instance))
    drafts = make_drafts(notes)
    check_names(drafts, notes)
    check_fallbacks(drafts, notes)
    return tuple(sorted(notes.faults))


def read_library(config: Config, instance: Instance) -> Library:
    """The stored profiles that the file names and does not have itself. Never raises: faults are in what it returns."""
    shelf = profile_shelf(instance)
    try:
        names = shelf.names()
        used = used_profiles(config)
        return Library(names, {name: _stored(shelf, name) for name in names if name in used})
    except Unreadable as error:
        return Library(barred=str(error))


def _stored(shelf: Shelf[Profile], name: str) -> StoredProfile:
    path = shelf.path(name)
    try:
        data = read_kept(path)
        profile, lines = parse_profile(data, path)
    except ConfigError as error:
        return StoredProfile(None, path, faults=error.faults)
    return StoredProfile(profile, path, lines, content=content_of(data))
