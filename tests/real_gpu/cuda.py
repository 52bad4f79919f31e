"""Memory of GPUs for this process, through CUDA's driver API and nothing else: libcuda.so.1.

The names of the functions are those that the library exports; cuda.h makes the plain ones of them.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

GIB = 1 << 30
#: What is taken in one piece.
PIECE = 4 * GIB
_OUT_OF_MEMORY = 2


class Failed(Exception):
    """A call of the driver failed; the text is the call and CUDA's name for the error."""


class OutOfMemory(Failed):
    """The card has not enough."""


@dataclass
class Device:
    """One GPU, of which this process has a context and some pieces of memory (address and size)."""

    library: ctypes.CDLL
    context: ctypes.c_void_p
    pieces: list[tuple[int, int]] = field(default_factory=list)

    @property
    def taken(self) -> int:
        """Bytes that this process has, beside its context."""
        return sum(size for _, size in self.pieces)

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and that there are in all."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def take(self, wanted: int) -> None:
        """Have `wanted` bytes; what is there already counts. Raises OutOfMemory, and has what it had, then."""
        before = len(self.pieces)
        try:
            while (size := min(PIECE, wanted - self.taken)) > 0:
                address = ctypes.c_uint64()
                self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
                self.pieces.append((address.value, size))
        except Failed:
            self.give_back(keep=before)
            raise

    def give_back(self, keep: int = 0) -> None:
        """Give memory back, all but the first pieces; the context stays."""
        while len(self.pieces) > keep:
            self._call("cuMemFree_v2", ctypes.c_uint64(self.pieces.pop()[0]))

    def _call(self, name: str, *arguments: object) -> None:
        call(self.library, "cuCtxSetCurrent", self.context)
        call(self.library, name, *arguments)


def open_devices() -> list[Device]:
    """Every GPU that CUDA_VISIBLE_DEVICES lets this process see, each with a context of ours. Raises Failed."""
    for name, value in os.environ.items():
        os.putenv(name, value)  # an engine's title lies where C code looks for its environment
    library = ctypes.CDLL("libcuda.so.1")
    call(library, "cuInit", 0)
    count = ctypes.c_int()
    call(library, "cuDeviceGetCount", ctypes.byref(count))
    return [_open(library, ordinal) for ordinal in range(count.value)]


def _open(library: ctypes.CDLL, ordinal: int) -> Device:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call(library, "cuDeviceGet", ctypes.byref(device), ordinal)
    call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return Device(library, context)


def call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    """Call the driver. Raises Failed, or OutOfMemory."""
    code: int = getattr(library, name)(*arguments)
    if code:
        words = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(words))
        kind = OutOfMemory if code == _OUT_OF_MEMORY else Failed
        raise kind(f"{name}: {(words.value or b'').decode()} ({code})")
