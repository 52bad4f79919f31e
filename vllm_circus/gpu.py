"""The GPUs of this machine, through NVML (the library behind nvidia-smi).

Rules: NVML is loaded only when somebody asks, and let go again each time, so that this program never holds a driver
back; what one card cannot tell is None, never a guess; one broken card never hides the others. A call blocks as long
as the driver takes (seconds, while it wakes up a sleeping card): callers on an event loop keep it away from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vllm_circus.errors import CircusError


class NoDriver(CircusError):
    """NVML cannot be used: no driver, or a driver and library that do not fit together."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML shows it. Memory in bytes, utilisation in percent, temperature in degrees Celsius.

    None where the card does not tell: a card split by MIG has no utilisation, one that shares the host's memory has
    no memory of its own to tell of, some have no temperature.

    Attributes:
        index: as nvidia-smi numbers them, in the order of the PCI bus.
        uuid, name: empty where the card is lost.
        fault: why the card cannot be used, one sentence; empty while it can.
    """

    index: int
    uuid: str
    name: str
    memory_total: int | None
    memory_used: int | None
    utilisation: int | None
    temperature: int | None
    fault: str = ""


@dataclass(frozen=True)
class Holder:
    """A process that has memory of a GPU.

    Attributes:
        pid: as the driver knows it, which inside a container may be that of the host.
        memory: bytes; None where the card does not tell.
    """

    pid: int
    memory: int | None


def list_holders() -> dict[int, tuple[Holder, ...]]:
    """The processes that compute on each GPU, by its index; cards that do not tell are left out.

    Raises:
        NoDriver: NVML cannot be used; the hint says what to do about it.
    """
    import pynvml

    found: dict[int, tuple[Holder, ...]] = {}
    with _session(pynvml):
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise _no_driver(pynvml, error) from error
        for index in range(count):
            with suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
                found[index] = tuple(Holder(each.pid, each.usedGpuMemory) for each in running)
    return found


def list_gpus() -> tuple[Gpu, ...]:
    """Every GPU, in the order of nvidia-smi; a lost card is listed, with its `fault`.

    Raises:
        NoDriver: NVML cannot be used; the hint says what to do about it.
    """
    import pynvml

    with _session(pynvml):
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise _no_driver(pynvml, error) from error
        return tuple(_read(pynvml, index) for index in range(count))


@contextmanager
def _session(nvml: ModuleType) -> Iterator[None]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise _no_driver(nvml, error) from error
    try:
        yield
    finally:
        with suppress(nvml.NVMLError):  # nothing is left that could be lost
            nvml.nvmlShutdown()


def _read(nvml: ModuleType, index: int) -> Gpu:
    """One card; what it told before it was lost is kept."""
    answers: dict[str, Any] = {}
    fault = ""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        for name, ask in _questions(nvml).items():
            answers[name] = _answer(nvml, ask, handle)
    except nvml.NVMLError as error:
        fault = _fault(nvml, index, error)
    memory, use = answers.get("memory"), answers.get("use")
    return Gpu(
        index=index,
        uuid=answers.get("uuid") or "",
        name=answers.get("name") or "",
        memory_total=memory.total if memory else None,
        memory_used=memory.used if memory else None,
        utilisation=use.gpu if use else None,
        temperature=answers.get("temperature"),
        fault=fault,
    )


def _questions(nvml: ModuleType) -> dict[str, Callable[[Any], Any]]:
    return {
        "uuid": nvml.nvmlDeviceGetUUID,
        "name": nvml.nvmlDeviceGetName,
        "memory": nvml.nvmlDeviceGetMemoryInfo,
        "use": nvml.nvmlDeviceGetUtilizationRates,
        "temperature": lambda handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }


def _answer(nvml: ModuleType, ask: Callable[[Any], Any], handle: object) -> object:
    """What the card says, or None where it does not tell. Raises NVMLError when the card as a whole is gone."""
    try:
        return ask(handle)
    except nvml.NVMLError as error:
        if error.value in {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}:
            raise
        return None


def _fault(nvml: ModuleType, index: int, error: Any) -> str:
    known = {
        nvml.NVML_ERROR_GPU_IS_LOST: "fell off the bus: reboot the machine, and look for 'Xid' in dmesg",
        nvml.NVML_ERROR_RESET_REQUIRED: "must be reset before it can be used: nvidia-smi --gpu-reset, or reboot",
        nvml.NVML_ERROR_NO_PERMISSION: "may not be used by this user: look at the modes of /dev/nvidia*",
        nvml.NVML_ERROR_INSUFFICIENT_POWER: "has its power cables not connected properly",
    }
    return f"GPU {index} " + known.get(error.value, f"does not answer the driver: {error}")


def _no_driver(nvml: ModuleType, error: Any) -> NoDriver:
    known = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            "no NVIDIA driver: its library libnvidia-ml.so.1 is not installed",
            "install the driver; in a container, start it with the GPUs (--gpus all)",
        ),
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
            "the NVIDIA driver is too old: its library lacks functions that this program needs",
            "install a newer driver",
        ),
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            "the NVIDIA driver is installed, but not loaded",
            "load it with `modprobe nvidia`; if that fails, dmesg says why (Secure Boot, or another kernel)",
        ),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the NVIDIA driver's library and its kernel module are of different versions",
            "the driver was updated while it ran: reboot, or unload and load the nvidia modules",
        ),
        nvml.NVML_ERROR_NO_PERMISSION: (
            "this user may not use the NVIDIA driver",
            "look at the modes of /dev/nvidia*, and at the groups video and render",
        ),
    }
    message, hint = known.get(
        error.value, (f"the NVIDIA driver does not answer: {error}", "see what `nvidia-smi` and dmesg say")
    )
    return NoDriver(message, hint=hint)
