"""Fetching a shipment: a process of its own does it, and tells how far it is.

A process can be ended at once, whatever the library waits for; its threads could not. Rules: the token goes to it
through a pipe; it ends when we do (nobody reads what it tells then); files that are whole stay when it is ended, and
what it had begun and nobody can go on with is taken away.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, cast

import psutil

from vllm_circus.catalogue.hub import Access, load_hub
from vllm_circus.catalogue.huberrors import HubError
from vllm_circus.catalogue.pull import Shipment
from vllm_circus.logline import clean

#: Half a file under a name that is used once; older releases go on with those that they find.
_LOST = re.compile(r".+\.[0-9a-f]{8}\.incomplete")
_LAST_WORDS = 2000  # characters


class Watcher(Protocol):
    """Whoever shows how far it is."""

    def moved(self, size: int, files: int) -> None:
        """So many bytes of those missing have come, and so many files are here of all."""
        ...


def fetch(shipment: Shipment, access: Access, environ: Mapping[str, str], watcher: Watcher) -> Path:
    """Fetch what is missing, and return the folder. Raises HubError; KeyboardInterrupt ends it at once."""
    load_hub(environ)  # says what is missing before a process is started
    order = {
        "repository": shipment.order.repository,
        "revision": shipment.order.revision,
        "cache": str(shipment.cache),
        "names": [file.name for file in shipment.files],
        "endpoint": access.endpoint,
        "token": access.token,
    }
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody empties would stop it
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "vllm_circus.catalogue.fetcher"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environ),
            start_new_session=True,  # the terminal's Ctrl-C is for us, and we end it
        )
        try:
            end = _converse(process, json.dumps(order).encode(), watcher)
        except BaseException:
            _end(process)
            raise
        errors.seek(0)
        return _outcome(shipment, end, process.returncode, errors.read().decode("utf-8", "replace"))


def _converse(process: subprocess.Popen[bytes], order: bytes, watcher: Watcher) -> dict[str, str]:
    """Give it the order, and listen until it is gone; returns its last words."""
    with cast("IO[bytes]", process.stdout) as told, cast("IO[bytes]", process.stdin) as asked:
        with suppress(BrokenPipeError):  # it is gone already, and has said why
            asked.write(order)
            asked.close()
        end = _follow(told, watcher)
    process.wait()
    return end


def _follow(stream: IO[bytes], watcher: Watcher) -> dict[str, str]:
    """Pass on what it tells, line by line; returns its last line, empty where it ended without."""
    for line in stream:
        told = json.loads(line)
        if "size" not in told:
            return dict(told)
        watcher.moved(told["size"], told["files"])
    return {}


def _outcome(shipment: Shipment, end: Mapping[str, str], code: int, last: str) -> Path:
    if "folder" in end:
        return Path(end["folder"])
    if "message" in end:
        raise HubError(end["message"], hint=end["hint"])
    lines = last[-_LAST_WORDS:].strip().splitlines() or [f"exit code {code}"]
    again = f"`vllm-circus models pull {shipment.order.repository}` again goes on with what is missing"
    raise HubError(f"fetching {shipment.order.repository} ended: {clean(lines[-1])}", hint=again)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and take away what it had begun and nobody could go on with."""
    lost = _half_files(process.pid)
    process.kill()
    process.wait()
    for path in lost:
        path.unlink(missing_ok=True)


def _half_files(pid: int) -> tuple[Path, ...]:
    try:
        opened = psutil.Process(pid).open_files()
    except psutil.Error:
        return ()
    return tuple(Path(file.path) for file in opened if _LOST.fullmatch(Path(file.path).name))
