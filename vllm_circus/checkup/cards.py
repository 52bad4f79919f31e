"""The driver and the GPUs: faults, heat, and memory that something else holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.listeners import name_of, owner_of, started_by_us
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.scene import DRIVER_LIMIT, Scene
from vllm_circus.errors import CircusError
from vllm_circus.gpu import Gpu, Holder, list_holders
from vllm_circus.plan.memory import USUAL_SHARE
from vllm_circus.plan.types import ModelPlan
from vllm_circus.view.units import counted, size

#: Degrees Celsius from which cards of every kind are close to slowing themselves down.
HOT = 85
#: A process with less than this has a context, and no model.
_LITTLE = 1 << 30
#: The part of a card that may be missing: what NVML and CUDA call its size and its free memory differs a little.
_SLACK = 0.02


def check_driver(scene: Scene) -> Iterator[Found]:
    """Whether the driver works, and shows the cards that models are to have."""
    yield judge_driver(scene.gpus, needs_gpus(scene))


def needs_gpus(scene: Scene) -> bool:
    """Whether an enabled model is planned for a GPU."""
    return any(model.engine == "vllm" and model.enabled and model.gpus != () for model in scene.engines)


def judge_driver(gpus: Answer[tuple[Gpu, ...]], needed: bool) -> Found:
    """No driver is a fault only where a model needs it."""
    grave = fault if needed else note
    if gpus.late:
        return fault(
            f"the NVIDIA driver does not answer within {DRIVER_LIMIT:g} s",
            "see whether `nvidia-smi` answers, and look for 'Xid' in `dmesg`; a restart of the machine mends most",
        )
    if gpus.value is None:
        hint = gpus.error.hint if isinstance(gpus.error, CircusError) else ""
        return grave(str(gpus.error), hint or "see what `nvidia-smi` says")
    if not gpus.value:
        return grave("the driver works, but it shows no GPU", "in a container, start it with the GPUs (`--gpus all`)")
    names = sorted({gpu.name for gpu in gpus.value if gpu.name})
    return ok(f"the driver works: {counted(len(gpus.value), 'GPU')} ({', '.join(names)})")


def check_gpus(scene: Scene) -> Iterator[Found]:
    """Cards that are broken or hot."""
    gpus = scene.gpus.value or ()
    wanted = {index for model in scene.engines for index in model.gpus or ()}
    found = list(judge_gpus(gpus, wanted))
    yield from found
    if gpus and not found:
        hottest = max((gpu.temperature for gpu in gpus if gpu.temperature is not None), default=None)
        yield ok("no GPU is broken" + (f" or hot: at most {hottest} C" if hottest is not None else ""))


def judge_gpus(gpus: tuple[Gpu, ...], wanted: set[int]) -> Iterator[Found]:
    """`wanted` are the cards that models are to have: a fault there keeps them from starting."""
    for gpu in gpus:
        if gpu.fault:
            grave = fault if gpu.index in wanted or not wanted else warning
            yield grave(gpu.fault, "until it is back, give its models other `gpus` in the models file")
        elif gpu.temperature is not None and gpu.temperature >= HOT:
            yield warning(
                f"GPU {gpu.index} is at {gpu.temperature} C and may slow itself down",
                "see to its cooling; `nvidia-smi -q -d TEMPERATURE,PERFORMANCE` tells its limits",
            )


def check_free_memory(scene: Scene) -> Iterator[Found]:
    """Whether each model finds as much free memory as it takes; while a set runs, it may be the set that has it."""
    if scene.daemon is None:
        engines = [model for model in scene.engines if model.engine == "vllm" and model.enabled]
        yield from judge_free_memory(scene.gpus.value or (), engines)


def judge_free_memory(gpus: tuple[Gpu, ...], engines: Iterable[ModelPlan]) -> Iterator[Found]:
    """What vLLM itself would refuse to start with: each model is looked at alone."""
    known = {gpu.index: gpu for gpu in gpus}
    for model in engines:
        share = model.memory_share or USUAL_SHARE
        for gpu in (known[index] for index in model.gpus or () if index in known):
            if gpu.memory_total is None or gpu.memory_used is None:
                continue
            free = gpu.memory_total - gpu.memory_used
            if free < (share - _SLACK) * gpu.memory_total:
                needed = f"{model.name} takes {size(round(share * gpu.memory_total))}"
                yield fault(
                    f"GPU {gpu.index} has {size(free)} of {size(gpu.memory_total)} free, and {needed}",
                    f"end what holds it (`nvidia-smi`), or give {model.name} a smaller `gpu_memory` or other `gpus`",
                )


def check_holders(scene: Scene) -> Iterator[Found]:
    """Memory of GPUs that processes hold which are not ours."""
    gpus = scene.gpus.value or ()
    if not gpus:
        return
    runs = scene.instance.run_dir.parent
    sets = started_by_us(runs)
    holders = list_holders()
    ours = {each.pid for held in holders.values() for each in held if owner_of(each.pid, sets, runs)}
    found = list(judge_holders(gpus, holders, ours, {i for model in scene.engines for i in model.gpus or ()}))
    yield from found
    if not found:
        yield ok("no other process holds memory of a GPU")


def judge_holders(
    gpus: tuple[Gpu, ...], holders: Mapping[int, tuple[Holder, ...]], ours: set[int], wanted: set[int]
) -> Iterator[Found]:
    """`ours` are pids of our sets, `wanted` the cards that models are to have."""
    for gpu in gpus:
        for each in holders.get(gpu.index, ()):
            if each.pid not in ours and (each.memory is None or each.memory >= _LITTLE):
                yield _held(gpu, each, wanted=gpu.index in wanted)
        known = sum(each.memory or 0 for each in holders.get(gpu.index, ()))
        if gpu.memory_used is not None and gpu.memory_used - known >= _LITTLE << 2 and not holders.get(gpu.index):
            yield note(
                f"{size(gpu.memory_used)} of GPU {gpu.index} are in use, by nobody that can be seen from here",
                "outside of this container, `nvidia-smi` names who; what a killed process had comes back in seconds",
            )


def _held(gpu: Gpu, holder: Holder, *, wanted: bool) -> Found:
    name = name_of(holder.pid)
    who = f"process {holder.pid} ({name})" if name else f"process {holder.pid}, which cannot be seen from here,"
    amount = size(holder.memory) if holder.memory is not None else "some memory"
    what = f"{who} holds {amount} of GPU {gpu.index} and is not ours"
    fix = f"`ps -fp {holder.pid}` shows it; end it, or give the models other `gpus` or a smaller `gpu_memory`"
    return warning(what, fix) if wanted else note(what, fix)
