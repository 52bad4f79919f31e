"""`python -m vllm_circus.catalogue.fetcher`: the process that fetches. `fetching` starts it; nobody else should.

It reads one JSON object from stdin, and writes one a line: how far it is, and last the folder or what went wrong.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from vllm_circus.catalogue.hub import load_hub
from vllm_circus.catalogue.huberrors import explained
from vllm_circus.errors import CircusError

_AT_A_TIME = 4  # files: each that is broken off begins anew


def main() -> None:
    """Fetch what stdin asks for."""
    order = json.load(sys.stdin)
    listener = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is written goes elsewhere

    def tell(told: Mapping[str, object]) -> None:
        try:
            listener.write(json.dumps(told) + "\n")
            listener.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more: the threads would go on for hours

    try:
        folder = _fetch(load_hub(os.environ), order, lambda size, files: tell({"size": size, "files": files}))
        tell({"folder": folder})
    except Exception as error:
        told = _sentence(error, order["repository"])
        tell({"message": str(told), "hint": told.hint})


def _fetch(hub: ModuleType, order: Mapping[str, Any], moved: Callable[[int, int], None]) -> str:
    return str(
        hub.snapshot_download(
            order["repository"],
            revision=order["revision"],
            cache_dir=order["cache"],
            endpoint=order["endpoint"],
            token=order["token"],
            allow_patterns=[glob.escape(name) for name in order["names"]],
            max_workers=_AT_A_TIME,
            tqdm_class=bar_class(moved),
        )
    )


def _sentence(error: Exception, repository: str) -> CircusError:
    try:
        return explained(error, repository)
    except Exception as unknown:
        return CircusError(f"{repository}: {type(unknown).__name__}: {unknown}")


def bar_class(moved: Callable[[int, int], None]) -> type:
    """A bar for the library that draws nothing and says how many bytes and files there are.

    It has bars for what comes over the network and for what is written to disk, in some releases one for both: the
    larger one counts. Files have a bar of their own.
    """
    from tqdm import tqdm

    sizes: dict[int, int] = {}
    files: list[int] = [0]
    lock = threading.RLock()

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        """As the library uses it."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            self.counts_bytes = options.get("unit") == "B"
            super().__init__(*arguments, **(options | {"disable": False, "file": _Nowhere()}))

        def update(self, n: float | None = 1) -> None:
            """So much more."""
            super().update(n)
            with lock:
                if self.counts_bytes:
                    sizes[id(self)] = int(self.n)
                else:
                    files[0] = int(self.n)
                moved(max(sizes.values(), default=0), files[0])

    Bar.monitor_interval = 0  # no thread of its own
    Bar.set_lock(threading.RLock())  # else one for processes is made, with a process that looks after it
    return Bar


class _Nowhere:
    """A file that takes everything and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return


if __name__ == "__main__":
    main()
