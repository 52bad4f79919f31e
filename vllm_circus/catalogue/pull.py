"""Getting a model from the hub, into Hugging Face's cache, where every engine looks for it.

Rules: what comes is told before it begins, with its size, and nothing begins where the disk has no room for it; what
no engine loads (the same weights in another form) stays away unless it is asked for. `fetching` does the rest.
"""

from __future__ import annotations

import fnmatch
import glob
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.catalogue.gguf import PART
from vllm_circus.catalogue.hub import ANSWER_WITHIN, Access, load_hub
from vllm_circus.catalogue.huberrors import HubError, explained
from vllm_circus.catalogue.types import File
from vllm_circus.errors import CircusError
from vllm_circus.facts import Disk
from vllm_circus.logline import clean
from vllm_circus.plan.fit.weights import hub_folder
from vllm_circus.plan.sources import is_repo_id

#: Where a repository holds safetensors, engines leave these alone.
_OTHER_FORMS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.gguf")
_OTHER_FOLDERS = ("original/*", "onnx/*", "openvino/*", "coreml/*", "metal/*", "gguf/*")


@dataclass(frozen=True)
class Order:
    """What is to be fetched: `include` are patterns of file names; none leaves the choice to us."""

    repository: str
    revision: str = "main"
    include: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shipment:
    """What an order comes to.

    Attributes:
        files: all that belong to it; `missing` those that are not here yet.
        left_out: how many files of the repository are not fetched.
        folder: where it will be.
    """

    order: Order
    commit: str
    files: tuple[File, ...]
    missing: tuple[File, ...]
    left_out: int
    cache: Path
    folder: Path

    @property
    def size(self) -> int:
        """Bytes that are to come."""
        return sum(file.size or 0 for file in self.missing)


def make_order(model: str, revision: str | None, include: Sequence[str]) -> Order:
    """The order that a name means; `org/name:Q4_K_M` is the GGUF file of that kind.

    Raises CircusError where it is no id.
    """
    repository, _, kind = model.partition(":")
    if not is_repo_id(repository):
        raise _NoId(f"{clean(model)!r} is no id of a model on the hub", hint="write an id such as Qwen/Qwen3-8B")
    patterns = (f"*{glob.escape(kind)}*.gguf", "*.json", "tokenizer*") if kind and not include else tuple(include)
    return Order(repository, revision or "main", patterns)


class _NoId(CircusError):
    exit_code = 2


def look_up(order: Order, access: Access, environ: Mapping[str, str], disk: Disk) -> Shipment:
    """Ask the hub what the order comes to. Raises NoHub, and HubError where it cannot be had."""
    api = load_hub(environ).HfApi(endpoint=access.endpoint, token=access.token)
    try:
        info = api.model_info(order.repository, revision=order.revision, files_metadata=True, timeout=ANSWER_WITHIN)
    except Exception as error:
        raise explained(error, order.repository) from error
    there = tuple(File(str(one.rfilename), one.size) for one in info.siblings or ())
    files = choose(order, there)
    cache = hub_folder(environ, disk)
    folder = cache / f"models--{order.repository.replace('/', '--')}" / "snapshots" / str(info.sha)
    missing = tuple(file for file in files if disk.size(folder / file.name) is None)
    return Shipment(order, str(info.sha), files, missing, len(there) - len(files), cache, folder)


def choose(order: Order, there: Sequence[File]) -> tuple[File, ...]:
    """The files that are fetched. Raises HubError where none is, or where nobody could want all of them."""
    if order.include:
        chosen = tuple(file for file in there if _matches(file.name, order.include))
        if not chosen:
            names = ", ".join(clean(file.name) for file in there[:8])
            raise HubError(f"{order.repository} has no file like {' '.join(order.include)}", hint=f"it has: {names}")
        return chosen
    if any(file.name.endswith(".safetensors") for file in there):
        return tuple(file for file in there if not _matches(file.name, (*_OTHER_FORMS, *_OTHER_FOLDERS)))
    ggufs = sorted(file.name for file in there if file.name.endswith(".gguf") and "mmproj" not in file.name)
    if len({found["stem"] if (found := PART.match(name)) else name for name in ggufs}) > 1:
        some = ", ".join(clean(Path(name).name) for name in ggufs[:6])
        hint = f"name a kind, such as `{order.repository}:Q4_K_M`, or `--include '*'` for all; it has: {some}"
        raise HubError(f"{order.repository} holds several GGUF models", hint=hint)
    return tuple(there)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_room(shipment: Shipment, free: Callable[[Path], int] | None = None) -> None:
    """Raises HubError where the disk has no room for what is to come. `free` says how many bytes a folder has left."""
    place = next(parent for parent in (shipment.cache, *shipment.cache.parents) if parent.exists())
    left = (free or _free)(place)
    if shipment.size > left:
        need, have = shipment.size / 2**30, left / 2**30
        raise HubError(
            f"{shipment.order.repository} needs {need:.1f} GiB, and {shipment.cache} has {have:.1f} GiB free",
            hint="`vllm-circus models rm` makes room; HF_HOME names a folder on another disk",
        )


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free
