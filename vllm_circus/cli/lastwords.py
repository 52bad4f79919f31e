"""The last words of the running set's proxy workers: why none, or not all, of them live."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_circus.paths import Instance

#: Lines that are looked through: a traceback is longer than what it comes to.
_LINES = 100


def proxy_words(instance: Instance) -> str:
    """What a worker of this set last complained of, one line; empty where none did."""
    from vllm_circus.view.logs import Wanted, last_complaint
    from vllm_circus.view.tail import last_entries, mark_end

    try:
        began = instance.pidfile.stat().st_mtime_ns // 1_000_000  # log lines tell no less than a millisecond
        since = datetime.fromtimestamp(began / 1000, UTC)  # an earlier set's words say nothing
        log = instance.log("proxy")
        return last_complaint(last_entries("proxy", log, _LINES, Wanted(since), mark_end(log)))
    except FileNotFoundError:
        return ""
