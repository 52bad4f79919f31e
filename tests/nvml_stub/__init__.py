"""Stand-ins for the NVIDIA driver's libraries, compiled from C, so that tests go through the real bindings.

`build(directory)` compiles NVML's, and `build_cuda(directory)` that of CUDA's driver API, as far as memory goes; a
process started with `environment(…)` sees the cards that the state describes. The state's keys are explained at the top
of `nvml.c`; a change of the file counts at once, also for running processes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "libnvidia-ml.so.1"  # the name that pynvml asks the dynamic loader for
CUDA_LIBRARY = "libcuda.so.1"


def build(directory: Path) -> Path:
    """Compile NVML's stub into `directory`; returns the library's path. Raises CalledProcessError with cc's words."""
    return _compile(HERE / "nvml.c", directory / LIBRARY)


def build_cuda(directory: Path) -> Path:
    """The same with CUDA's."""
    return _compile(HERE / "cuda.c", directory / CUDA_LIBRARY)


def _compile(source: Path, library: Path) -> Path:
    compiler = [os.environ.get("CC", "cc"), "-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def write_state(path: Path, state: Mapping[str, object]) -> Path:
    """Say what the cards are like: `{"count": 2, "memory_used.0": 1 << 30, "temperature.1": "error 3"}`.

    The file is replaced in one step, so that a process that reads it meanwhile sees the old or the new.
    """
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("".join(f"{key}={value}\n" for key, value in state.items()))
    temporary.replace(path)
    return path


def environment(library: Path, state: Path) -> dict[str, str]:
    """The environment of a process that is to see the stub: ours, with what makes `pynvml` find it."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "NVML_STUB_STATE": str(state)}
