"""Every model on this disk: in Hugging Face's cache, and in the folders that the settings name.

Rules: what may be huge, unreadable or a circle of links is looked at within bounds, and what was not is told in a
note; a folder that is reached by several ways is shown once, the cache first. Nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vllm_circus.catalogue.describe import Contents, describe, is_model_folder
from vllm_circus.catalogue.gguf import quantisation_of_name
from vllm_circus.catalogue.types import File, LocalModel, Survey
from vllm_circus.facts import Disk, Entry
from vllm_circus.plan.fit.weights import hub_folder
from vllm_circus.plan.sources import is_repo_id

_DEEPEST = 6  # folders within a folder of the settings
_MOST_FOLDERS = 20_000
_MOST_FILES = 5_000  # of one model
_MODEL_DEPTH = 3  # folders within a model's own
_REPOSITORY = "models--"
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_INCOMPLETE = re.compile(r"^(?P<blob>[^.]+)(?:\.[0-9a-f]{8})?\.incomplete$")
_COMMIT = re.compile(r"[\w.-]+")


def find_models(folders: Sequence[Path], environ: Mapping[str, str], disk: Disk) -> tuple[LocalModel, ...]:
    """Every model in Hugging Face's cache and in these folders, by id."""
    return survey(folders, environ, disk).models


def survey(folders: Sequence[Path], environ: Mapping[str, str], disk: Disk) -> Survey:
    """The same, with notes on what could not be looked at."""
    search = _Search(disk)
    found = [*search.cache(hub_folder(environ, disk))]
    for folder in folders:
        found += search.configured(folder)
    return Survey(tuple(sorted(found, key=lambda model: (model.id.lower(), model.revision))), search.notes)


@dataclass
class _Search:
    """One look at the disk: what was seen already, and what is to be told."""

    disk: Disk
    told: dict[str, None] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)
    folders: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Every sentence once."""
        return tuple(self.told)

    def note(self, text: str) -> None:
        """Tell something, once."""
        self.told.setdefault(text)

    def cache(self, hub: Path) -> Iterator[LocalModel]:
        """Every repository in Hugging Face's cache."""
        if not self.disk.exists(hub):
            return
        for entry in self._entries(hub):
            if entry.folder and entry.name.startswith(_REPOSITORY):
                yield from self._repository(hub / entry.name, named=True)

    def configured(self, folder: Path) -> Iterator[LocalModel]:
        """Every model in a folder of the settings."""
        if not self.disk.is_folder(folder):
            self.note(f"{folder} is no folder" if self.disk.exists(folder) else f"{folder} is not there")
            return
        self.folders = 0
        yield from self._below(folder, 0)

    def _below(self, folder: Path, depth: int) -> Iterator[LocalModel]:
        if not self._first_time(folder):
            return
        self.folders += 1
        if self.folders > _MOST_FOLDERS:
            self.note(f"more than {_MOST_FOLDERS:,} folders: {folder} and what follows was not looked at")
            return
        entries = self._entries(folder)
        names = [entry.name for entry in entries]
        if folder.name.startswith(_REPOSITORY) and "snapshots" in names:
            yield from self._repository(folder, named=False)
            return
        whole = is_model_folder(names)
        if whole or any(name.endswith(".gguf") for name in names):
            yield from self._folder(folder, deep=whole)
        for entry in entries:
            if not entry.folder or entry.name.startswith(".") or (whole and not _CHECKPOINT.fullmatch(entry.name)):
                continue
            if depth == _DEEPEST:
                self.note(f"{folder}: what lies deeper was not looked at")
                return
            yield from self._below(folder / entry.name, depth + 1)

    def _folder(self, folder: Path, *, deep: bool) -> Iterator[LocalModel]:
        """The models of a folder that is none of the cache."""
        contents = self._contents(folder, _MODEL_DEPTH if deep else 0)
        yield from describe(
            contents,
            name_gguf=lambda name: str(folder / name),
            id=str(folder),
            source="folder",
            revision="",
            home=folder,
        )

    def _repository(self, home: Path, *, named: bool) -> Iterator[LocalModel]:
        """A repository of the cache; where it is not the cache that is used, its models go by their paths."""
        repository = home.name.removeprefix(_REPOSITORY).replace("--", "/")
        if not is_repo_id(repository):
            return
        lacks = "a download was broken off, or still goes on" if self._unfinished(home / "blobs") else ""
        revisions = self._revisions(home)
        for revision, commit in revisions.items():
            folder = home / "snapshots" / commit
            if not self._first_time(folder):
                continue
            yield from describe(
                self._contents(folder, _MODEL_DEPTH),
                name_gguf=_gguf_namer(repository if named else "", folder),
                id=repository if named else str(folder),
                source="hub" if named else "folder",
                revision=revision,
                commit=commit,
                home=home,
                lacks=lacks,
            )
        if lacks and named and not any(self.disk.is_folder(home / "snapshots" / each) for each in revisions.values()):
            yield _begun(repository, home, lacks)

    def _revisions(self, home: Path) -> dict[str, str]:
        """What `main` stands for; without it every other name, and without any the snapshots themselves."""
        refs = {entry.name: self._commit(home / "refs" / entry.name) for entry in self._listed(home / "refs")}
        refs = {name: commit for name, commit in refs.items() if commit}
        if "main" in refs:
            return {"main": refs["main"]}
        return refs or {entry.name: entry.name for entry in self._listed(home / "snapshots") if entry.folder}

    def _commit(self, ref: Path) -> str:
        commit = (self.disk.head(ref, 200) or b"").decode("utf-8", "replace").strip()
        return commit if _COMMIT.fullmatch(commit) and commit not in {".", ".."} else ""

    def _unfinished(self, blobs: Path) -> bool:
        """Whether something is half here: leftovers of what came later do not count."""
        names = {entry.name for entry in self._listed(blobs)}
        halves = (found["blob"] for name in names if (found := _INCOMPLETE.match(name)))
        return any(blob not in names for blob in halves)

    def _contents(self, folder: Path, depth: int) -> Contents:
        files = tuple(self._files(folder, "", depth))
        if len(files) > _MOST_FILES:
            self.note(f"{folder} holds more than {_MOST_FILES:,} files; the rest was not looked at")
        return Contents(folder, files[:_MOST_FILES], self.disk, self.note)

    def _files(self, folder: Path, prefix: str, depth: int) -> Iterator[File]:
        for number, entry in enumerate(self._listed(folder)):
            if number > _MOST_FILES:
                return
            if not entry.folder:
                yield File(prefix + entry.name, entry.size)
            elif depth and not entry.link and not entry.name.startswith(".") and not _CHECKPOINT.fullmatch(entry.name):
                yield from self._files(folder / entry.name, f"{prefix}{entry.name}/", depth - 1)

    def _listed(self, folder: Path) -> tuple[Entry, ...]:
        """What is in a folder that may well not be there."""
        return self.disk.entries(folder) or ()

    def _entries(self, folder: Path) -> tuple[Entry, ...]:
        entries = self.disk.entries(folder)
        if entries is None:
            self.note(f"{folder} cannot be read")
        return entries or ()

    def _first_time(self, folder: Path) -> bool:
        identity = self.disk.identity(folder)
        if identity is None or identity in self.seen:
            return False
        self.seen.add(identity)
        return True


def _gguf_namer(repository: str, folder: Path) -> Callable[[str], str]:
    """How vLLM is told of a GGUF file: in the cache by the repository and its kind, elsewhere by its path."""

    def name(file: str) -> str:
        kind = quantisation_of_name(Path(file).name)
        short = f"{repository}:{kind}"
        return short if repository and kind and is_repo_id(short) else str(folder / file)

    return name


def _begun(repository: str, home: Path, lacks: str) -> LocalModel:
    """A repository of which no file is whole yet."""
    return LocalModel(
        id=repository,
        folder=home,
        kind="model",
        size=0,
        architecture="",
        context=None,
        quantization="",
        base="",
        rank=None,
        source="hub",
        complete=False,
        revision="main",
        lacks=lacks,
        home=home,
    )
