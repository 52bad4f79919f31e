"""What keeps an engine from starting, all of it at once, before a process is wasted on finding out one by one.

Rules: an engine is refused only for what it would surely fail on. So what cannot be told is no fault, and a full disk
of our logs and states is only told, since it costs lines and not answers; what an engine of another kind than vLLM
needs is not known, beyond its program and its address. A fault that may pass by itself in a moment (a predecessor that
is just leaving) says so. This reads files and asks the kernel: keep it away from the loop.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vllm_circus.gpu import Gpu, Holder
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.paths import Instance
from vllm_circus.plan.memory import GIB, USUAL_SHARE
from vllm_circus.plan.types import Endpoint, ModelPlan
from vllm_circus.supervise.launch import Refused, read_env_file, read_environ

from . import hub, processes

#: Bytes that vLLM's shared memory, and the folders of logs and states, need at least.
FLOOR = 16 << 20
#: The part of a GPU that may be missing: what NVML and CUDA call its size and its free memory differs a little.
_SLACK = 0.02
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own, not a folder for temporary files


@dataclass(frozen=True)
class Fault:
    """One reason not to start: what is wrong and what to do, for people.

    `passing`: it may be gone in a moment. `minor`: it starts all the same.
    """

    cause: str
    fix: str
    passing: bool = False
    minor: bool = False


@dataclass(frozen=True)
class Cards:
    """The GPUs, and who has memory of them where that is known."""

    gpus: tuple[Gpu, ...]
    holders: Mapping[int, tuple[Holder, ...]]


def find_faults(model: ModelPlan, instance: Instance, cards: Cards | None) -> tuple[Fault, ...]:
    """Everything that is wrong before a start; `cards` None where there is no driver, or it does not answer."""
    faults = [*_program(model.argv[0]), *_address(model.endpoint)]
    if model.engine == "vllm":
        environ = environment(model, instance)
        faults += (*_model(model, environ), *_adapters(model, environ), *_room(_SHARED_MEMORY))
    for folder in (instance.log_dir, instance.state_dir):
        faults += (replace(fault, minor=True) for fault in _room(folder))
    if cards is not None and model.engine != "simulator":
        faults += _gpus(model, cards)
    return tuple(faults)


def diagnose_faults(faults: tuple[Fault, ...]) -> Diagnosis:
    """All of them as one reason; there is at least one."""
    causes = "; ".join(fault.cause for fault in faults)
    fixes = "; ".join(dict.fromkeys(fault.fix for fault in faults))
    return Diagnosis(f"not started: {causes}", fixes, "preflight")


def environment(model: ModelPlan, instance: Instance) -> dict[str, str]:
    """The variables that the launcher will give to the engine, as far as they can be read."""
    environ = dict(os.environ) | dict(model.env)
    with suppress(Refused):
        environ |= read_environ(instance.secrets / f"{model.name}.json")
    if model.env_file is not None:
        with suppress(Refused):
            environ |= read_env_file(Path(model.env_file))
    return environ


def needed_share(model: ModelPlan) -> float | None:
    """The part of each of its GPUs that has to be free when it starts; None where nobody knows."""
    return model.memory_share or (USUAL_SHARE if model.engine == "vllm" else None)


def lacks(model: ModelPlan, gpu: Gpu) -> float:
    """Bytes that are missing on one of its GPUs; not above 0 where there is enough, or nobody knows."""
    share = needed_share(model)
    if share is None or gpu.memory_total is None or gpu.memory_used is None:
        return 0.0
    return (share - _SLACK) * gpu.memory_total - (gpu.memory_total - gpu.memory_used)


def tell_holders(holders: tuple[Holder, ...]) -> str:
    """Who has memory of a GPU, the largest first; empty where nobody is known."""
    largest = sorted(holders, key=lambda holder: -(holder.memory or 0))
    told = [
        f"process {each.pid}{_called(each.pid)}" + (f" has {each.memory / GIB:.1f} GiB" if each.memory else "")
        for each in largest[:3]
    ]
    return ", ".join(told) + (f" and {len(largest) - 3} more" if len(largest) > 3 else "")


def _called(pid: int) -> str:
    name = processes.name_of(pid)
    return f" ({name})" if name else ""


def _program(program: str) -> Iterator[Fault]:
    if shutil.which(program) is None:
        there = "cannot be executed" if Path(program).exists() else "does not exist"
        yield Fault(f"its program {program} {there}", "install it, or correct `executable` or `engine.command`")


def _address(endpoint: Endpoint) -> Iterator[Fault]:
    if endpoint.uds is not None:
        if _answers(endpoint.uds):
            yield Fault(f"somebody listens on {endpoint.uds}", "end that process", passing=True)
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                yield Fault(f"port {endpoint.port} cannot be used: {error.strerror}", "give it another `port`")
                return
            pid = processes.listener_on(endpoint.port)
            holder = "" if pid is None else f" by process {pid}{_called(pid)}"
            yield Fault(
                f"port {endpoint.port} is taken{holder}", "end that process, or give it another `port`", passing=True
            )


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(path) == 0


def _model(model: ModelPlan, environ: Mapping[str, str]) -> Iterator[Fault]:
    if model.model.startswith("/"):
        yield from _folder(model)
    elif "://" not in model.model and hub.is_offline(environ):
        places = hub.caches(environ, hub.option(model.argv, "download-dir"))
        if not hub.is_cached(model.model, places, hub.CONFIGS):
            yield _not_cached(model.model, places)


def _folder(model: ModelPlan) -> Iterator[Fault]:
    path = Path(model.model)
    if not path.exists():
        yield Fault(f"there is no {path}", "put the model there, or correct `model`")
    elif path.is_dir() and hub.option(model.argv, "hf-config-path") is None and not _is_model(path):
        yield Fault(f"{path} holds no config.json", "name the model's own folder, or finish its download")


def _is_model(folder: Path) -> bool:
    return hub.holds(folder, hub.CONFIGS) or any(folder.glob("*.gguf"))


def _adapters(model: ModelPlan, environ: Mapping[str, str]) -> Iterator[Fault]:
    wanted = ("adapter_config.json",)
    for adapter in model.adapters:
        if adapter.path.startswith("/"):
            if not hub.holds(Path(adapter.path), wanted):
                cause = f"the adapter {adapter.name} has no adapter_config.json in {adapter.path}"
                yield Fault(cause, "put the adapter there, or correct its `path`")
        elif "://" not in adapter.path and hub.is_offline(environ):
            places = hub.caches(environ, None)
            if not hub.is_cached(adapter.path, places, wanted):
                yield _not_cached(adapter.path, places)


def _not_cached(name: str, places: tuple[Path, ...]) -> Fault:
    cause = f"{name} is not in {places[0]}, and HF_HUB_OFFLINE forbids to fetch it"
    return Fault(cause, f"fetch it once with `vllm-circus models pull {name}`, or take HF_HUB_OFFLINE away")


def _gpus(model: ModelPlan, cards: Cards) -> Iterator[Fault]:
    known = {gpu.index: gpu for gpu in cards.gpus}
    for index in model.gpus or ():
        gpu = known.get(index)
        if gpu is None:
            yield Fault(f"there is no GPU {index}", "see `vllm-circus gpus`, and correct `gpus`")
        elif gpu.fault:
            yield Fault(gpu.fault, "give the model other `gpus` until it is back")
        elif lacks(model, gpu) > 0:
            yield _too_full(model, gpu, cards.holders.get(index, ()))


def _too_full(model: ModelPlan, gpu: Gpu, holders: tuple[Holder, ...]) -> Fault:
    total, used = gpu.memory_total or 0, gpu.memory_used or 0
    need = (needed_share(model) or 0.0) * total
    told = tell_holders(holders)
    free = f"GPU {gpu.index} has {(total - used) / GIB:.1f} of its {total / GIB:.1f} GiB free"
    cause = f"{free}, and it takes {need / GIB:.1f}" + (f": {told}" if told else "")
    return Fault(cause, "end what holds the memory, or write a smaller `gpu_memory`", passing=True)


def _room(folder: Path) -> Iterator[Fault]:
    try:
        about = os.statvfs(folder)
    except OSError:
        return
    free = (about.f_bfree if os.geteuid() == 0 else about.f_bavail) * about.f_frsize
    if free < FLOOR:
        yield Fault(f"{folder} has {free / (1 << 20):.0f} MiB left", f"make room there: `df -h {folder}`")
