"""A models file from disk: everything that one value alone can be wrong in, all at once, with file and line.

Rules: reading has no side effects; nothing in the file is expanded or executed; every fault is a `Fault`, whatever
the bytes are. Checks between values are `plan`'s.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vllm_circus.config.document import Document, parse_document
from vllm_circus.config.explain import Finding, explain
from vllm_circus.config.models import Config, Section
from vllm_circus.config.places import Place, make_fault
from vllm_circus.config.profiles import Library
from vllm_circus.config.salvage import salvage
from vllm_circus.errors import ConfigError, Fault
from vllm_circus.files import Content, content_of

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILE_BYTES = 1 << 20

#: Keys of a model whose faults come of their own values, and the other keys that have a say in them as well. What is
#: wrong with any other key may come of everything that the model has.
_COMES_OF: Mapping[str | int, tuple[str, ...]] = {
    "name": (),
    "aliases": (),
    "profile": (),
    "fallback": (),
    "env_file": (),
    "model": ("engine",),
    "env": ("profile", "sleep"),
    "args": ("profile", "engine", "gpus", "replicas", "gpu_memory", "sleep", "lora"),
}
_NAMES = frozenset({"name", "aliases", "lora"})

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Loaded:
    """A models file: its values are each in order, or else left out and named in `faults`.

    Attributes:
        source: the file as it was named.
        lines: the line of every place in the file.
        faults: what is wrong with single values; empty unless it comes from `survey_config`.
        faulty: where that is.
        library: the operator's stored profiles that it uses; whoever plans with it puts them in.
        content: what tells the file's content from another's; None where it stands in no file.
    """

    config: Config
    source: Path
    lines: Mapping[Place, int] = field(repr=False)
    faults: tuple[Fault, ...] = ()
    faulty: frozenset[Place] = frozenset()
    library: Library = field(default_factory=Library)
    content: Content | None = None

    def line(self, loc: Place) -> int:
        """The line (from 1) of a place, or of the nearest thing around it that stands in the file; else 0."""
        return nearest_line(self.lines, loc)

    def fault(self, loc: Place, message: str, fix: str = "") -> Fault:
        """Something wrong at a place of this file, or of a stored profile that it uses."""
        stored = self.library.profiles.get(str(loc[1])) if loc[:1] == ("profiles",) and len(loc) > 1 else None
        if stored is not None:
            return make_fault(str(stored.source), nearest_line(stored.lines, loc[2:]), loc[2:], message, fix)
        return make_fault(str(self.source), self.line(loc), loc, message, fix)

    def doubts(self, place: Place) -> bool:
        """Whether something found at a place may come of a value that was left out."""
        if place == ("proxy", "default_model") or place[2:] == ("fallback",):  # it may be a name that was left out
            named = (known for known in self.faulty if known[:1] == ("models",))
            if any(len(known) < 3 or known[2] in _NAMES for known in named):
                return True
        owners = _comes_of(place)
        return any(
            known[: len(owner)] == owner or owner[: len(known)] == known for known in self.faulty for owner in owners
        )

    @property
    def read(self) -> tuple[tuple[str, Content], ...]:
        """The files that this was read from, stored profiles included: their absolute paths, and what they held."""
        stored = ((each.source, each.content) for each in self.library.profiles.values())
        every = ((self.source, self.content), *stored)
        return tuple((str(path.absolute()), content) for path, content in every if content is not None)

    @property
    def folder(self) -> Path:
        """Where relative paths in the file begin."""
        return self.source.absolute().parent


def _comes_of(place: Place) -> tuple[Place, ...]:
    """The places whose values have a say in what is wrong at this one."""
    if place[:1] != ("models",):
        return (place,)
    others = _COMES_OF.get(place[2]) if len(place) > 2 else None
    return (place[:2],) if others is None else (place[:3], *((*place[:2], other) for other in others))


def nearest_line(lines: Mapping[Place, int], loc: Place) -> int:
    """The line of `loc` or of its nearest known parent; 0 where not even the top is known."""
    return next((lines[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in lines), 0)


def load_config(path: Path) -> Loaded:
    """Read and check a models file.

    Raises:
        ConfigError: with every fault that was found; the file may also be missing, unreadable or too large.
    """
    return parse_config(read_bytes(path), path)


def parse_config(data: bytes, source: Path) -> Loaded:
    """Check the bytes of a models file; `source` is what faults name. Raises ConfigError with every fault."""
    loaded = survey_bytes(data, source)
    if loaded.faults:
        raise ConfigError(loaded.faults)
    return loaded


def survey_config(path: Path) -> Loaded:
    """Read a models file for planning: what single values have wrong is noted, and planning goes on with the rest.

    Raises:
        ConfigError: with every fault that was found, where nothing is left to plan with.
    """
    return survey_bytes(read_bytes(path), path)


def survey_bytes(data: bytes, source: Path) -> Loaded:
    """The same for bytes that stand in no file yet; `source` is where they would."""
    text = decode(data, str(source))
    document = parse_document(text, str(source))
    if document.data is None and document.faults:
        raise ConfigError(document.faults)
    config, found = _validated(document.data, document)
    if config is not None and not document.faults:
        return Loaded(config, source, document.lines, content=content_of(data))
    faults = (*document.faults, *_faults(found, document, str(source)))
    faulty = document.spoilt | {place for place, _, _ in found}
    config, _ = _validated(salvage(document.data, faulty), document)
    if config is None:
        raise ConfigError(faults)
    return Loaded(config, source, document.lines, faults, faulty, content=content_of(data))


def parse_section(data: bytes, source: Path, kind: type[S]) -> tuple[S, Mapping[Place, int]]:
    """Check the bytes of a file that holds one section alone, such as a profile; also the lines of its places.

    A file without content is a section with nothing set. Raises ConfigError with every fault; `source` is what they
    name.
    """
    from pydantic import ValidationError

    document = parse_document(decode(data, str(source)), str(source), empty={})
    if document.data is None:
        raise ConfigError(document.faults)
    found: list[Finding] = []
    try:
        section = kind.model_validate(document.data)
    except ValidationError as error:
        found = explain(error, document, kind)
    if faults := (*document.faults, *_faults(found, document, str(source))):
        raise ConfigError(faults)
    return section, document.lines


def _validated(data: object, document: Document) -> tuple[Config | None, list[Finding]]:
    """The configuration, or what the schema says against it."""
    from pydantic import ValidationError

    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        return None, explain(error, document)


def _faults(found: Iterable[Finding], document: Document, file: str) -> Iterable[Fault]:
    for place, message, fix in found:
        yield make_fault(file, nearest_line(document.lines, place), place, message, fix)


def read_bytes(path: Path) -> bytes:
    """The file's bytes, no more than allowed (a device or pipe has no size to look at first). Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _refuse(
            path, "there is no such file", "name a file that is there; `vllm-circus example` shows a models file"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _refuse(path, f"cannot be read: {reason}", "name a file that you may read") from None
    if len(data) > MAX_FILE_BYTES:
        raise _refuse(path, f"larger than {MAX_FILE_BYTES >> 20} MiB", "a models file is a few KB; is it this one?")
    return data


def _refuse(path: Path, message: str, fix: str) -> ConfigError:
    return ConfigError((make_fault(str(path), 0, (), message, fix),))


def decode(data: bytes, file: str) -> str:
    """The text of a file, without a byte order mark. Raises ConfigError where it is not UTF-8."""
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        raise ConfigError((make_fault(file, line, (), message, "save the file in UTF-8"),)) from None
