"""What may run out: processors, open files, shared memory, disk, memory."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.scene import Scene
from vllm_circus.config.models import Limits
from vllm_circus.facts import Disk
from vllm_circus.plan.fit.weights import hub_folder
from vllm_circus.plan.types import ModelPlan
from vllm_circus.view.units import counted, size

#: Files that a worker needs beside those of its clients: its own, and some for engines.
_OTHER_FILES = 320
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own, not a folder for temporary files
#: Bytes below which an engine does not start, or a set loses its logs.
FLOOR = 16 << 20
#: Bytes of shared memory that engines on several GPUs are known to be content with.
_ENOUGH_SHARED = 1 << 30
_LOGS_ROOM = 1 << 30
_MODELS_ROOM = 20 << 30
_MEMORY = 2 << 30


def check_cores(scene: Scene) -> Iterator[Found]:
    """Whether there are as many processors as processes that are busy while tokens are made."""
    if busy := busy_processes(scene.engines):
        yield judge_cores(len(os.sched_getaffinity(0)), busy)


def busy_processes(engines: Iterable[ModelPlan]) -> tuple[int, ...]:
    """For each vLLM engine that runs beside the others, how many of its processes are busy while it makes tokens.

    They are its server, its core, and a worker for each GPU. Of engines that take turns the largest counts.
    """
    most: dict[str, int] = {}
    for model in engines:
        if model.engine == "vllm" and model.enabled:
            turn = f"turn {model.exclusive}" if model.exclusive else model.name
            most[turn] = max(most.get(turn, 0), 2 + max(1, len(model.gpus or ())))
    return tuple(most.values())


def judge_cores(cores: int, busy: tuple[int, ...]) -> Found:
    """An engine's core and workers wait for each other without sleeping, so each of them takes a processor.

    Where they have to share, vLLM 0.32 on Linux 6.18 kept all else on two of them from running for up to 7 s.
    """
    wanted = sum(busy)
    what = f"{counted(cores, 'processor')} for {wanted} processes that are busy while {counted(len(busy), 'engine')}"
    what += " answers" if len(busy) == 1 else " answer"
    if cores >= wanted:
        return ok(what)
    fix = "give the machine or container more, or have fewer models up at once (`idle`, `exclusive`)"
    if cores < max(busy):
        return warning(f"{what}: one alone may keep the proxy and its own server waiting for seconds", fix)
    return note(f"{what}: where all do, they wait for each other", fix)


def check_open_files(scene: Scene) -> Iterator[Found]:
    """Whether as many files may be open as there may be clients; of circusd's processes where a set runs."""
    limits = scene.plan.proxy.limits if scene.plan else Limits()
    yield judge_open_files(_hard_limit(scene.daemon), limits.max_connections)


def _hard_limit(pid: int | None) -> int:
    """Of that process, where it can be read, else our own; -1 is none."""
    with suppress(OSError):
        if pid:
            found = re.search(r"^Max open files\s+\S+\s+(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
            if found is not None:
                return int(found[1]) if found[1].isdecimal() else -1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return -1 if hard == resource.RLIM_INFINITY else hard


def judge_open_files(hard: int, connections: int) -> Found:
    """Each client may take two files: its own, and one to an engine."""
    if hard < 0 or hard >= 2 * connections + _OTHER_FILES:
        return ok(f"{'any number of' if hard < 0 else hard} files may be open, enough for {connections} connections")
    fix = "raise it (`ulimit -Hn`, LimitNOFILE= of a unit, limits.conf), or lower `proxy.limits.max_connections`"
    room = max(1, (hard - _OTHER_FILES) // 2)
    what = f"only {hard} files may be open, so a worker serves about {room} clients at a time"
    if hard < 1024:
        return warning(what, fix)
    return note(f"{what}, and not {connections}", fix)


@dataclass(frozen=True)
class Space:
    """A file system as it is, in bytes."""

    total: int
    free: int


def space(folder: Path) -> Space | None:
    """The file system of a folder, or of the nearest one above it that is there."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            about = os.statvfs(place)
            free = about.f_bfree if os.geteuid() == 0 else about.f_bavail
            return Space(about.f_blocks * about.f_frsize, free * about.f_frsize)
    return None


def check_shared_memory(scene: Scene) -> Iterator[Found]:
    """The shared memory over which the processes of one engine talk."""
    found = space(_SHARED_MEMORY) if _SHARED_MEMORY.exists() else None
    engines = [model for model in scene.engines if model.engine == "vllm"]
    several = any(len(model.gpus or ()) > 1 for model in engines)
    yield judge_shared_memory(found, needed=bool(engines), several=several)


def judge_shared_memory(found: Space | None, *, needed: bool, several: bool) -> Found:
    """`needed` by a vLLM engine; `several` is whether one has more than one GPU."""
    fix = "in a container: start it with `--ipc=host` or `--shm-size=8g`; else `mount -o remount,size=8g /dev/shm`"
    if found is None:
        return warning("there is no /dev/shm", fix) if needed else note("there is no /dev/shm", fix)
    what = f"{_SHARED_MEMORY} has {size(found.free)} of {size(found.total)} free"
    if found.free < FLOOR:
        return fault(what, f"remove what lies there, `ls /dev/shm`; {fix}") if needed else note(what, fix)
    if found.total < _ENOUGH_SHARED:
        return warning(f"{what}: little for an engine on several GPUs", fix) if several else note(what, fix)
    return ok(what)


def check_disks(scene: Scene) -> Iterator[Found]:
    """The folders of logs, of state, and of models that are fetched."""
    instance = scene.instance
    for called, folder in (("logs", instance.log_dir), ("state", instance.state_dir)):
        yield judge_room(called, folder, space(folder))
    if not scene.engines or any(model.engine == "vllm" for model in scene.engines):
        cache = hub_folder(scene.environ, Disk())
        yield judge_cache(cache, space(cache))


def judge_room(called: str, folder: Path, found: Space | None) -> Found:
    """Logs and states: a full disk costs lines, and at the next start the start."""
    if found is None:
        return note(f"nobody can tell how much room {folder} has", f"see `df -h {folder}`")
    what = f"{size(found.free)} free for {called} in {folder}"
    fix = f"make room there: `df -h {folder}`"
    if found.free < FLOOR:
        return fault(what, fix)
    return warning(what, fix) if found.free < _LOGS_ROOM else ok(what)


def judge_cache(folder: Path, found: Space | None) -> Found:
    """The cache of Hugging Face; only what is fetched takes room there."""
    if found is None:
        return note(f"nobody can tell how much room {folder} has", f"see `df -h {folder}`")
    what = f"{size(found.free)} free for models in {folder}"
    fix = f"`df -h {folder}`; HF_HOME puts them elsewhere, and `hf cache` shows what is there"
    return ok(what) if found.free >= _MODELS_ROOM else note(f"{what}: a large model does not fit", fix)


def check_memory(_scene: Scene) -> Iterator[Found]:
    """The machine's own memory, or the container's."""
    found = read_memory()
    if found is None:
        yield note("nobody can tell how much memory is free", "see `free -h`")
    elif found.free < _MEMORY:
        yield warning(f"{size(found.free)} of {size(found.total)} memory free", "`ps aux --sort=-rss` shows who has it")
    else:
        yield ok(f"{size(found.free)} of {size(found.total)} memory free")


def read_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Space | None:
    """What is free of the machine's memory, or of what the control group of a container may have where that is less."""
    try:
        fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
        whole = Space(int(fields["MemTotal"]) << 10, int(fields["MemAvailable"]) << 10)
    except (OSError, KeyError, ValueError):
        return None
    with suppress(OSError, ValueError):  # no limit is the word `max`
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text()) - _reclaimable(cgroup)
        return Space(min(limit, whole.total), min(max(0, limit - used), whole.free))
    return whole


def _reclaimable(cgroup: Path) -> int:
    """Bytes of files that are only cached: given back when somebody asks."""
    with suppress(OSError, ValueError):
        found = re.search(r"^inactive_file (\d+)$", (cgroup / "memory.stat").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0
