"""Whether the files of a model or an adapter are on this machine, and whole: the catalogue's view of one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vllm_circus.catalogue.find import find_models
from vllm_circus.facts import Disk
from vllm_circus.plan.fit.weights import find_model

_TRUE = frozenset({"1", "on", "yes", "true"})
_MAIN = "main"
#: Where no cache is: only the place itself is looked at.
_NO_CACHE = {"HF_HUB_CACHE": "/dev/null/hub"}


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether an engine with these variables may fetch nothing: huggingface_hub's own reading of them."""
    return any(environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of an engine's option, `--NAME VALUE` or `--NAME=VALUE`; None where it is not there."""
    flag = f"--{name}"
    for number, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
        if word == flag and number + 1 < len(argv):
            return argv[number + 1]
    return None


def lacks(place: str, environ: Mapping[str, str], revision: str = _MAIN) -> str | None:
    """What a model lacks, one sentence: empty where it is whole, None where it is not on this machine at all.

    `place` is a path or a Hugging Face id, `environ` says where the cache is.
    """
    disk = Disk()
    folder = find_model(place, Path("/"), environ, disk, revision)
    if folder is None:
        return None
    snapshot = not place.startswith("/")
    whole = snapshot and revision == _MAIN  # then the repository also tells of a download that was broken off
    found = find_models([folder.parent.parent if whole else folder], _NO_CACHE, disk)
    here = [model for model in found if model.folder == folder]
    meant = [model for model in here if model.id == place] or here
    if not meant:
        return f"{folder} holds no model"
    if any(model.complete for model in meant):
        return ""
    return f"{folder}: {meant[0].lacks}"
