"""Taking a model off this disk: what exactly goes, and that nothing else does.

Rules: in Hugging Face's cache a blob goes when no other revision has it, and a payload that several repositories share
when none of them is left; elsewhere a folder goes as a whole, unless other models are in it. Links are removed, and
never followed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.catalogue.types import LocalModel
from vllm_circus.errors import CircusError
from vllm_circus.files import file_errors

_PAYLOAD = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Removal:
    """What is to go.

    Attributes:
        paths: files, links and whole folders, in the order in which they go.
        payloads: files that several repositories may share; each goes when its last link has gone.
        size: bytes that are free then.
        notes: what stays, a sentence each.
    """

    model: LocalModel
    paths: tuple[Path, ...]
    size: int
    payloads: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class NotRemovable(CircusError):
    """What would go is more than the model, or not ours to take."""


def plan_removal(model: LocalModel, models: Sequence[LocalModel], folders: Sequence[Path]) -> Removal:
    """What removing the model comes to; `folders` are those of the settings. Raises NotRemovable."""
    if model.commit or model.source == "hub":
        return _from_cache(model)
    if model.kind == "gguf":
        parts = tuple(model.folder / part for part in model.parts)
        return Removal(model, parts, sum(_room(part) for part in parts), notes=tuple(_links(parts)))
    _refuse_more(model, models, folders)
    if model.home.is_symlink():
        return Removal(model, (model.home,), 0, notes=tuple(_links((model.home,))))
    return Removal(model, (model.home,), sum(_room(path) for path in _below(model.home)))


def carry_out(removal: Removal) -> int:
    """Remove it, and return how many bytes are free then. Raises CircusError where something cannot be removed."""
    with file_errors():
        for path in removal.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return removal.size - sum(
            size for payload in removal.payloads if (size := _room(payload)) and not _sweep(payload)
        )


def _refuse_more(model: LocalModel, models: Sequence[LocalModel], folders: Sequence[Path]) -> None:
    home = model.home.resolve()
    if any(home in {folder.resolve(), *folder.resolve().parents} for folder in folders):
        raise NotRemovable(
            f"{model.home} is a folder of the settings, or holds one",
            hint=f"`vllm-circus models folders rm {model.home}` forgets it; then remove what you mean by hand",
        )
    inner = [other.id for other in models if other.id != model.id and _is_in(home, other.folder.resolve())]
    if inner:
        raise NotRemovable(f"other models are in {model.home}: {', '.join(inner[:3])}", hint="remove those first")


def _is_in(home: Path, folder: Path) -> bool:
    """Whether a model whose files are in `folder` would go with `home`; GGUF files lie beside others."""
    return home == folder or home in folder.parents


def _links(paths: Sequence[Path]) -> Iterator[str]:
    yield from (f"{path} is a link: what it leads to stays" for path in paths if path.is_symlink())


# -- the cache ---------------------------------------------------------------------------------------------------------


def _from_cache(model: LocalModel) -> Removal:
    """A revision, or one GGUF file of it; the repository where nothing else is in it."""
    home = model.home
    if home.is_symlink():
        raise NotRemovable(f"{home} is a link, to {home.resolve()}", hint="remove it by hand")
    snapshots = home / "snapshots"
    here = [path for path in _below(snapshots / model.commit) if model.commit]
    if model.kind == "gguf" and len(here) > len(model.parts):
        here = [snapshots / model.commit / part for part in model.parts]
        return _some_of(model, here)
    others = [path for path in _children(snapshots) if path.name != model.commit]
    if others and not model.commit:
        halves = tuple(path for path in _children(home / "blobs") if path.name.endswith(".incomplete"))
        return Removal(model, halves, sum(map(_room, halves)), notes=("earlier revisions stay",))
    if others:
        refs = [path for path in _below(home / "refs") if _text(path) == model.commit]
        found = _some_of(model, here)
        whole = (*refs, snapshots / model.commit, *(path for path in found.paths if path not in here))
        count = f"{len(others)} other revision" + "s" * (len(others) != 1)
        return Removal(model, whole, found.size, found.payloads, (f"{count} and what they share with it stay",))
    locks = home.parent / ".locks" / home.name
    payloads = tuple(_payloads(home, _below(home / "blobs")))
    size = sum(_room(path) for path in _below(home)) + sum(_room(path) for path in payloads)
    return Removal(model, (home, *([locks] if locks.is_dir() else [])), size, payloads)


def _some_of(model: LocalModel, links: Sequence[Path]) -> Removal:
    """Files of a snapshot, with their blobs as far as nothing else in the repository has them."""
    blobs = model.home / "blobs"
    mine = {blob for link in links if (blob := _blob(link, blobs))}
    kept = {
        blob for link in _below(model.home / "snapshots") if link not in set(links) and (blob := _blob(link, blobs))
    }
    going = sorted(mine - kept)
    payloads = tuple(_payloads(model.home, going))
    size = sum(_room(path) for path in (*links, *going, *payloads))
    notes = ("another revision shares files with it, which stay",) if mine & kept else ()
    return Removal(model, (*links, *going), size, payloads, notes)


def _blob(link: Path, blobs: Path) -> Path | None:
    """The blob that a link of a snapshot leads to, one step on; None where it leads elsewhere."""
    try:
        target = Path(os.path.normpath(link.parent / link.readlink()))
    except OSError:
        return None
    return target if target.parent == blobs else None


def _payloads(home: Path, blobs: Sequence[Path] | Iterator[Path]) -> Iterator[Path]:
    """Files of the cache's common store that blobs are links to: `blobs/ab/ab…` beside the repositories."""
    store = home.parent / "blobs"
    for blob in blobs:
        with suppress(OSError):
            target = Path(os.path.normpath(blob.parent / blob.readlink()))
            if target.parent.parent == store and _PAYLOAD.fullmatch(target.name) and not target.is_symlink():
                yield target


def _sweep(payload: Path) -> bool:
    """Take a payload away if nobody's link leads to it any more; whether it is gone.

    Its manifest lists all links that there ever were; its lock keeps others from adding one (huggingface_hub's
    `utils/_shared_blobs.py`). Where one of them cannot be had, the payload stays.
    """
    manifest, lock = payload.with_name(f"{payload.name}.refs"), payload.with_name(f"{payload.name}.lock")
    cache = payload.parent.parent.parent
    try:
        handle = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        links = manifest.read_text().splitlines()
        if any(_leads_to(cache / link, payload) for link in links):
            return False
        payload.unlink(missing_ok=True)
        manifest.unlink(missing_ok=True)
    except (OSError, ValueError):
        return False
    finally:
        os.close(handle)
    return True


def _leads_to(link: Path, payload: Path) -> bool:
    try:
        return Path(os.path.normpath(link.parent / link.readlink())) == payload
    except FileNotFoundError:
        return False
    except OSError:
        return link.exists()


def _below(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in files)
        yield from (path for name in folders if (path := Path(place, name)).is_symlink())


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _room(path: Path) -> int:
    """Bytes of a file itself; of a link none."""
    try:
        return 0 if path.is_symlink() else path.stat().st_size
    except OSError:
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
