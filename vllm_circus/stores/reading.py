"""Bytes of one stored file to its value, with every fault: those of single values, and of options and variables.

What a model's options come to together is said where they are used: in the plan of a models file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vllm_circus.config.load import Loaded, decode, parse_config, parse_section, read_bytes
from vllm_circus.config.models import Config, Model, Profile
from vllm_circus.config.places import Place, make_fault
from vllm_circus.errors import ConfigError
from vllm_circus.plan.draft import Layer, Notes
from vllm_circus.plan.environment import check_environment
from vllm_circus.plan.options import check_layer
from vllm_circus.plan.written import check_written
from vllm_circus.stores.schema import ModelsFile, Settings, Shortcut


def read_kept(path: Path) -> bytes:
    """The bytes of a file that is kept. Raises ConfigError; a pipe or a device, which may have no end, is refused."""
    if path.exists() and not path.is_file():
        fault = make_fault(str(path), 0, (), "is not a file", "remove it")
        raise ConfigError((fault,))
    return read_bytes(path)


def parse_profile(data: bytes, source: Path) -> tuple[Profile, Mapping[Place, int]]:
    """A profile and the lines of its places. Raises ConfigError with every fault."""
    profile, lines = parse_section(data, source, Profile)
    _check_layers(profile, source, lines)
    return profile, lines


def parse_shortcut(data: bytes, source: Path) -> Shortcut:
    """Raises ConfigError with every fault."""
    shortcut, lines = parse_section(data, source, Shortcut)
    _check_layers(shortcut, source, lines)
    return shortcut


def parse_settings(data: bytes, source: Path) -> Settings:
    """Raises ConfigError with every fault."""
    return parse_section(data, source, Settings)[0]


def parse_models_file(data: bytes, source: Path) -> ModelsFile:
    """Raises ConfigError with every fault of single values."""
    return ModelsFile(decode(data, str(source)), parse_config(data, source))


def check_models_file(data: bytes, source: Path) -> None:
    """What can be said of a models file wherever it is used. Raises ConfigError with every fault.

    That is more than reading asks for: a file that is kept already has to be read to be mended.
    """
    loaded = parse_config(data, source)
    notes = Notes(loaded)
    check_written(loaded, notes)
    if notes.faults:
        raise ConfigError(tuple(notes.faults))


def _check_layers(holder: Profile | Shortcut, source: Path, lines: Mapping[Place, int]) -> None:
    """Options and variables that nobody may set. They are told as a models file tells them."""
    alone = Config(models=[Model(name="model", model="model")])
    notes = Notes(Loaded(alone, source, lines))
    check_layer(Layer(("args",), holder.args), notes)
    check_environment(Layer(("env",), holder.env), notes)
    if notes.faults:
        raise ConfigError(tuple(notes.faults))
