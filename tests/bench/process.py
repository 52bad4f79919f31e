"""Processes of the benchmark: started on a core of their own, ended with us, and asked what they used."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Cores from which on there are some for helpers.
_MANY = 8


@dataclass(frozen=True)
class Cores:
    """Where load generator, mock engine and proxies run: each on its own where there are four, else some together.

    `proxies` is never empty; the first is where one worker alone runs. `helpers`: for further loads and engines.
    """

    load: int
    engine: int
    proxies: tuple[int, ...]
    helpers: tuple[tuple[int, int], ...] = ()

    @property
    def proxy(self) -> int:
        return self.proxies[0]

    @property
    def used(self) -> frozenset[int]:
        return frozenset((self.load, self.engine, *self.proxies))


def find_cores(allowed: Iterable[int], threads: Callable[[int], frozenset[int]] | None = None) -> Cores:
    """How the cores are shared out: one for load and engine and one for the proxy, before any gets more.

    `threads` tells which are one core in truth: where there are enough without them, only the first of these is used.
    """
    cores = sorted(allowed)
    whole = [core for core in cores if threads is None or core == min(threads(core) & {*cores})]
    if len(whole) >= _MANY:
        workers = 4 if len(whole) >= 2 * _MANY else 2
        free = whole[2:-workers]
        helpers = tuple(zip(free[::2], free[1::2], strict=False))
        return Cores(whole[0], whole[1], tuple(whole[: -workers - 1 : -1]), helpers)
    if len(cores) == 1:
        return Cores(cores[0], cores[0], (cores[0],))
    if len(cores) == 2:
        return Cores(cores[0], cores[0], (cores[1], cores[0]))
    if len(cores) == 3:
        return Cores(cores[0], cores[1], (cores[2], cores[1]))
    return Cores(cores[0], cores[1], (cores[-1], cores[-2]))


def threads_of(core: int) -> frozenset[int]:
    """The processors that are threads of the same core; only itself where the kernel does not tell."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        spans = [span.partition("-") for span in path.read_text().strip().split(",")]
    except OSError:
        return frozenset({core})
    return frozenset(one for low, _, high in spans for one in range(int(low), int(high or low) + 1))


def raise_files(wanted: int) -> int:
    """Let us, and what we start, have so many files open, or as many as we may. Returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):  # the first needs to be root
        with suppress(OSError, ValueError):
            if soft < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                return limits[0]
    return soft


def start(
    argv: Sequence[str],
    core: int,
    *,
    log: Path,
    fds: tuple[int, ...] = (),
    piped: bool = False,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A process on one core, which is told to end when we do. Its words go to `log`; `piped` leaves stdin and stdout.

    `env` is added to our own environment.
    """
    with log.open("ab") as words:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bench.pinned", str(core), *argv],
            cwd=ROOT,
            env=os.environ | (env or {}),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
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
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


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
    """How much of the cores other processes take, while it is watched."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores.used
        self._foreign = self._seconds = 0.0

    @contextmanager
    def watch(self, ours: Sequence[int]) -> Iterator[None]:
        """Count from here to there; `ours` are the processes that do not count."""
        began, before = time.monotonic(), self._others(ours)
        yield
        self._seconds += time.monotonic() - began
        self._foreign += max(0.0, self._others(ours) - before)

    def share(self) -> float:
        """0 is a machine of our own, 1 one that had no time for us."""
        return self._foreign / max(self._seconds, 0.001) / len(self._cores)

    def _others(self, ours: Sequence[int]) -> float:
        return sum(map(busy_seconds, self._cores)) - cpu_seconds(ours)
