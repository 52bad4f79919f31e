"""Who of a set is alive: found by its mark and its journal, looked at again and again while a cell runs."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from vllm_circus.paths import Instance
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.supervise.proc import Process, every_process
from vllm_circus.supervise.sweep import find_leftovers

_EVERY = 0.1
_SERVER = b"vllm_circus.simulator\0serve\0sim/"


def words_of(pid: int) -> bytes:
    """The command line of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ProcessLookupError):
        return b""


def model_of(process: Process) -> str:
    """The model that a process is the API server of, or nothing. Their forked children have other sessions' leaders."""
    if process.pid != process.session or _SERVER not in (words := words_of(process.pid)):
        return ""
    return words.partition(_SERVER)[2].partition(b"\0")[0].decode()


def orphans_of(instance: Instance) -> tuple[Process, ...]:
    """Processes of `instance` outside of its running set: circusd is not above them, or their leader is gone."""
    marked = find_leftovers(instance)
    table = {process.pid: process for process in every_process() if process.alive}
    circusd = lock_holder(instance)

    def is_looked_after(process: Process) -> bool:
        above: Process | None = process
        while above is not None and above.pid != circusd:
            above = table.get(above.parent)
        return above is not None and (process.pid == circusd or process.session in table)

    return tuple(process for process in marked if not is_looked_after(process))


class Census:
    """From `with` to its end: which models were seen with two living API servers at once."""

    def __init__(self, ports: frozenset[str]) -> None:
        """Only servers with one of these ports in their command lines count: other sets run simulators, too."""
        self._ports = ports
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.doubles: set[str] = set()

    def __enter__(self) -> Census:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            seen: set[str] = set()
            for process in every_process():
                if not process.alive or not (name := model_of(process)):
                    continue
                words = frozenset(words_of(process.pid).decode(errors="replace").split("\0"))
                if words & self._ports:
                    self.doubles |= seen & {name}
                    seen.add(name)
