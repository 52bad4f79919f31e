"""Processes of the benchmark: started on a core of their own, ended with us, and asked what they used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cores:
    """Where load (with the mock engine) and proxy run; the same core where only one is allowed to us."""

    load: int
    proxy: int


def find_cores() -> Cores:
    """The first and the last core that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


def start(
    argv: Sequence[str], core: int, *, log: Path, fds: tuple[int, ...] = (), piped: bool = False
) -> subprocess.Popen[str]:
    """A process on one core, which is told to end when we do. Its words go to `log`; `piped` leaves stdout to us."""
    with log.open("ab") as words:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bench.pinned", str(core), *argv],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else words,
            stderr=words,
            text=True,
            pass_fds=fds,
        )


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and SIGKILL for one that takes longer than five seconds."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def cpu_seconds(pids: Iterable[int]) -> float:
    """What the processes used so far, all threads, user and system.

    Read from the processes' CPU clocks (clock_getcpuclockid(3)): /proc/PID/stat counts in steps of 10 ms.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e9


def busy_seconds(core: int) -> float:
    """What the core has worked for anybody since the boot, time stolen by other machines counted in: proc(5)."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(line.split() for line in lines if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes now."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


class Noise:
    """How much of the cores other processes take from now on; `ours` are the processes that do not count."""

    def __init__(self, cores: Cores, ours: Sequence[int]) -> None:
        self._cores = {cores.load, cores.proxy}
        self._ours = ours
        self._began = time.monotonic()
        self._before = self._foreign()

    def share(self) -> float:
        """0 is a machine of our own, 1 one that had no time for us."""
        return max(0.0, self._foreign() - self._before) / (time.monotonic() - self._began) / len(self._cores)

    def _foreign(self) -> float:
        return sum(map(busy_seconds, self._cores)) - cpu_seconds(self._ours)
