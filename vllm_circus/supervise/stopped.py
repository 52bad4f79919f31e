"""Processes that somebody stopped (SIGSTOP): they are killed, so that others can be started in their place.

circus takes a stopped process for a running one. A stopped worker holds its clients, and where it is the only one
nobody is served; a stopped health plugin leaves every model as it was: circusd's own process looks at these. A stopped
part of an engine holds its requests while the health page of the part that answers still looks well: the health plugin
looks at those. Whoever debugs one of ours is spared: a traced process has another state.
"""

from __future__ import annotations

from collections.abc import Iterable

from vllm_circus.supervise.proc import Process

#: Seconds between two looks at workers and plugins. Who is stopped at two, one after the other, has been forgotten.
LOOK_EVERY = 1.0


class StoppedWatch:
    """Remembers who was stopped at the last look."""

    def __init__(self) -> None:
        self._before: frozenset[tuple[int, int]] = frozenset()

    def look(self, processes: Iterable[Process]) -> tuple[Process, ...]:
        """Those of `processes` that are stopped now and were at the last look."""
        found = tuple(process for process in processes if process.halted)
        before, self._before = self._before, frozenset((process.pid, process.started) for process in found)
        return tuple(process for process in found if (process.pid, process.started) in before)
