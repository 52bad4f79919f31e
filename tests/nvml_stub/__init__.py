"""A stand-in for the NVIDIA driver's library, compiled from C, so that tests go through the real `pynvml` binding.

`build(directory)` compiles it; a process started with `environment(…)` sees the cards that the state describes. The
state's keys are explained at the top of `nvml.c`; a change of the file counts at once, also for running processes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"  # the name that pynvml asks the dynamic loader for


def build(directory: Path) -> Path:
    """Compile the stub into `directory`; returns the library's path. Raises CalledProcessError with cc's words."""
    library = directory / LIBRARY
    compiler = [os.environ.get("CC", "cc"), "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
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
