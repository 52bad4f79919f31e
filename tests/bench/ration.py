"""Workers with a fixed part of a core's time each: how many times one two of them are, where no two cores are free.

Rules: each worker has a control group of its own, so that none gets what another leaves. As root, where the kernel
has groups for processor time: the interface of version 1 or 2 (cgroups(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.bench.load import BenchError

#: Microseconds after which a worker has its part again, the kernel's own default. With shorter ones the workers of one
#: core interrupt each other, and each finds the cache full of what is the other's.
_PERIOD = 100_000


def find_groups() -> Path | None:
    """Where groups can be made that limit processor time; None where we may not, or there are none."""
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    with suppress(OSError):
        if "cpu" in (new / "cgroup.subtree_control").read_text().split():
            return new if os.access(new, os.W_OK) else None
    return old if (old / "cpu.cfs_quota_us").exists() and os.access(old, os.W_OK) and os.geteuid() == 0 else None


@contextmanager
def rationed(groups: Path, pids: Sequence[int], share: float) -> Iterator[None]:
    """Let each of the processes have `share` of one core's time (0 to 1) meanwhile.

    Raises BenchError where the kernel refuses.
    """
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_group_of(groups, pid, int(share * _PERIOD)))
        yield


@contextmanager
def _group_of(groups: Path, pid: int, quota: int) -> Iterator[None]:
    group = groups / f"vllm-circus-bench-{pid}"
    with _telling(pid):
        group.mkdir(exist_ok=True)
    try:
        with _telling(pid):
            _enter(group, pid, quota)
        yield
    finally:
        with _telling(pid):
            _leave(groups, group)


@contextmanager
def _telling(pid: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchError(f"the kernel does not limit the time of process {pid}: {error}") from None


def _enter(group: Path, pid: int, quota: int) -> None:
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota} {_PERIOD}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    (group / "cgroup.procs").write_text(str(pid))


def _leave(groups: Path, group: Path) -> None:
    """End a group, which goes only when nobody is in it."""
    for left in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (groups / "cgroup.procs").write_text(left)
    group.rmdir()
