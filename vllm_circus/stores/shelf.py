"""One folder of YAML files of one kind, each under a name.

Rules: a file is checked against its schema on every read, and every fault is told with its line; a write is atomic,
checked beforehand and mode 0600; whoever changes something holds the shelf's lock from reading to writing. One broken
file is no fault of the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from vllm_circus.config.load import decode
from vllm_circus.config.models import NAME_PATTERN, Profile
from vllm_circus.config.places import did_you_mean, show_value
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.files import cure, file_errors, make_directory, write_as_owner
from vllm_circus.paths import Instance
from vllm_circus.stores.locking import ChangedMeanwhile, hold
from vllm_circus.stores.reading import parse_models_file, parse_profile, parse_shortcut, read_kept
from vllm_circus.stores.schema import ModelsFile, Shortcut
from vllm_circus.stores.yamltext import dump_section

T = TypeVar("T")

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_SUFFIX = ".yaml"


class UnusableEntry(CircusError):
    """Nothing can be kept under that name."""

    exit_code = 2


class UnknownEntry(CircusError):
    """Nothing of that name is kept."""

    exit_code = 4


class EntryExists(CircusError):
    """Something of that name is kept already."""


class Unreadable(CircusError):
    """The folder belongs to somebody who lets us not in."""

    exit_code = 2


def _silent(_text: str) -> None:
    """Nobody is there to be told."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One file of a shelf: its value, or what is wrong with it; `changed` is in seconds since 1970."""

    name: str
    path: Path
    changed: float
    value: T | None
    error: CircusError | None = None


@dataclass(frozen=True)
class Shelf(Generic[T]):
    """The files of one kind, `FOLDER/NAME.yaml`.

    Attributes:
        kind: what one of them is called: "profile".
        parse: bytes to a value; the path is what faults name. Raises ConfigError with every fault.
        dump: a value to the text of its file.
        tell: takes a sentence for whoever waits.
    """

    kind: str
    folder: Path
    parse: Callable[[bytes, Path], T]
    dump: Callable[[T], str]
    tell: Callable[[str], None] = _silent

    def names(self) -> tuple[str, ...]:
        """Every name that something is kept under, sorted. Raises Unreadable."""
        return tuple(name for name in sorted(map(_stem, self._files())) if _NAME.match(name))

    def entries(self) -> tuple[Entry[T], ...]:
        """Everything on the shelf, sorted by name; what is broken is there with its fault. Raises Unreadable."""
        return tuple(self._entry(path) for path in sorted(self._files()))

    def path(self, name: str) -> Path:
        """The file of that name, whether it exists or not. Raises UnusableEntry."""
        if not _NAME.match(name):
            raise UnusableEntry(
                f"{self.kind} name {show_value(name)} is not usable",
                hint="use up to 64 of a-z, 0-9, '_' and '-', and begin with a letter or digit",
            )
        return self.folder / f"{name}{_SUFFIX}"

    def holds(self, name: str) -> bool:
        """Whether something is kept under that name; one that is not usable is nobody's."""
        return bool(_NAME.match(name)) and self.path(name).exists()

    def need(self, name: str, *, besides: Iterable[str] = ()) -> None:
        """Raises UnknownEntry where nothing is kept under that name, with a guess at what was meant.

        `besides` are names that could have been meant as well.
        """
        if not os.path.lexists(self.path(name)):
            raise self._unknown(name, besides)

    def read(self, name: str) -> T:
        """The value of that name.

        Raises:
            UnknownEntry: nothing is kept under it.
            ConfigError: with every fault of the file.
        """
        return self.parse(self._bytes(name), self.path(name))

    def read_text(self, name: str) -> str:
        """The file's text as it is, whatever is wrong with it. Raises UnknownEntry, and ConfigError without UTF-8."""
        return decode(self._bytes(name), str(self.path(name)))

    def write(self, name: str, value: T, *, replace: bool = False) -> Path:
        """Keep the value under that name; returns the file. Raises EntryExists where that is taken."""
        return self.write_text(name, self.dump(value), replace=replace)

    def write_text(self, name: str, text: str, *, replace: bool = False, instead_of: str | None = None) -> Path:
        """Keep a text, which is checked first, under that name; returns the file.

        With `instead_of` it takes the place of that text and of no other.

        Raises:
            ConfigError: with every fault of the text.
            EntryExists: the name is taken.
            ChangedMeanwhile: the file is no longer what it was.
        """
        path = self.path(name)
        self.parse(text.encode(), path)
        with self._alone():
            if instead_of is not None and (not path.exists() or self.read_text(name) != instead_of):
                raise ChangedMeanwhile(
                    f"{path} was changed meanwhile", hint="nothing was written; look at it, try again"
                )
            if instead_of is None and not replace and path.exists():
                hint = "choose another name, or replace it"
                raise EntryExists(f"there is a {self.kind} {name!r} already", hint=hint)
            self._put(path, text)
        return path

    def change(self, name: str, edit: Callable[[T], T]) -> T:
        """Read, edit and write back with nobody in between; returns the new value. Raises as `read` does."""
        with self._alone():
            value = edit(self.read(name))
            text = self.dump(value)
            self.parse(text.encode(), self.path(name))
            self._put(self.path(name), text)
        return value

    def rename(self, old: str, new: str) -> None:
        """Raises UnknownEntry, and EntryExists where the new name is taken."""
        source, target = self.path(old), self.path(new)
        with self._alone():
            self.need(old)
            if target.exists():
                hint = f"choose another name, or remove {new!r} first"
                raise EntryExists(f"there is a {self.kind} {new!r} already", hint=hint)
            source.rename(target)

    def remove(self, name: str) -> None:
        """Raises UnknownEntry."""
        self.need(name)
        with self._alone():
            self.need(name)
            self.path(name).unlink()

    # -- the folder ----------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == _SUFFIX and not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(error) from error

    def _bytes(self, name: str) -> bytes:
        path = self.path(name)
        try:
            path.stat()
        except FileNotFoundError:
            raise self._unknown(name) from None
        except OSError as error:
            raise self._unreadable(error) from error
        return read_kept(path)

    def _entry(self, path: Path) -> Entry[T]:
        name = _stem(path)
        try:
            changed = path.stat().st_mtime
            return Entry(name, path, changed, self.read(name))
        except FileNotFoundError:
            return Entry(name, path, 0.0, None, CircusError(f"{path}: leads nowhere", hint="remove it"))
        except CircusError as error:
            return Entry(name, path, changed, None, error)

    def _unknown(self, name: str, besides: Iterable[str] = ()) -> UnknownEntry:
        names = tuple(dict.fromkeys((*self.names(), *besides)))
        guess = did_you_mean(name, names) or f"there are: {', '.join(names) or 'none'}"
        return UnknownEntry(f"no {self.kind} {name!r}", hint=guess)

    def _unreadable(self, error: OSError) -> Unreadable:
        theirs = isinstance(error, PermissionError)
        give = f"let that user have them: `chown -R {os.geteuid()} {self.folder}`"
        return Unreadable(
            f"{self.folder}: the {self.kind}s here cannot be read by user {os.geteuid()}: {error.strerror}",
            hint=give if theirs else cure(error),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with file_errors():
            _make_folder(self.folder)
            with hold(self.folder / ".lock", f"the {self.kind}s", self.tell):
                for left in self.folder.glob(".*.tmp"):  # of a writer that was killed: we alone write here
                    left.unlink(missing_ok=True)
                yield

    def _put(self, path: Path, text: str) -> None:
        write_as_owner(path, text.encode(), mode=0o600)


def _stem(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX)


def _make_folder(folder: Path) -> None:
    """Make it if it is missing, for us alone; where root makes it in somebody's folder, for that one alone."""
    if folder.is_dir():
        return
    make_directory(folder, mode=0o700)
    owner = folder.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(folder, owner.st_uid, owner.st_gid)


def faults_of(error: CircusError) -> tuple[str, ...]:
    """What is wrong, a sentence each."""
    return tuple(map(str, error.faults)) if isinstance(error, ConfigError) else (str(error),)


# -- the kinds ---------------------------------------------------------------------------------------------------------


def profile_shelf(instance: Instance, tell: Callable[[str], None] = _silent) -> Shelf[Profile]:
    """The operator's own profiles, which every models file may name."""
    return Shelf("profile", instance.profiles, _parse_profile, dump_section, tell)


def shortcut_shelf(instance: Instance, tell: Callable[[str], None] = _silent) -> Shelf[Shortcut]:
    """Models with their options, ready to be added to a set."""
    return Shelf("shortcut", instance.shortcuts, parse_shortcut, dump_section, tell)


def configuration_shelf(instance: Instance, tell: Callable[[str], None] = _silent) -> Shelf[ModelsFile]:
    """Saved configurations: models files."""
    return Shelf("configuration", instance.configs, parse_models_file, _text_of, tell)


def _parse_profile(data: bytes, source: Path) -> Profile:
    return parse_profile(data, source)[0]


def _text_of(file: ModelsFile) -> str:
    return file.text
