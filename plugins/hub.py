"""Models and adapters on disk: their own folders, and the cache of Hugging Face.

The cache's form is that of huggingface_hub: `models--ORG--NAME/snapshots/REVISION/`, below HF_HUB_CACHE, else
`hub` in HF_HOME, else `huggingface/hub` in XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

#: What tells a model's architecture: Hugging Face's file, or Mistral's.
CONFIGS = ("config.json", "params.json")
_TRUE = frozenset({"1", "on", "yes", "true"})
_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the engine may fetch nothing. ModelScope, where it is used instead, keeps another cache."""
    if environ.get("VLLM_USE_MODELSCOPE", "").lower() in _TRUE:
        return False
    return any(environ.get(name, "").lower() in _TRUE for name in _SWITCHES)


def caches(environ: Mapping[str, str], download_dir: str | None) -> tuple[Path, ...]:
    """Where models that were fetched are looked for, the usual place first."""
    home = Path(environ.get("HOME", "/"))
    base = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environ.get("HF_HOME") or base / "huggingface") / "hub"
    usual = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    places = (Path(usual) if usual else hub, *([Path(download_dir)] if download_dir else ()))
    return tuple(home / str(place)[2:] if str(place).startswith("~/") else place for place in places)


def is_cached(name: str, places: Iterable[Path], files: Sequence[str]) -> bool:
    """Whether a snapshot with one of the files is there. `:Q4_K_M` picks a file of a repository, which has none."""
    repository, _, quantised = name.partition(":")
    folder = "models--" + repository.replace("/", "--")
    found = [snapshot for place in places for snapshot in (place / folder / "snapshots").glob("*")]
    return any(bool(quantised) or holds(snapshot, files) for snapshot in found)


def holds(folder: Path, files: Iterable[str]) -> bool:
    """Whether one of the files is in the folder."""
    return any((folder / file).is_file() for file in files)


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of an engine's option, `--NAME VALUE` or `--NAME=VALUE`; None where it is not there."""
    flag = f"--{name}"
    for number, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
        if word == flag and number + 1 < len(argv):
            return argv[number + 1]
    return None
