"""What the operator's files held when the running set last read them, to tell later whether they hold something else.

Written beside plan.json and not into it: what names a plan to the workers is to change with what they go by alone.

Rules: a file is another one where its content is, not where its times are; it is read only where size and time leave
a doubt. Whoever reads this has 300 ms for all that `status` does: nothing here needs the schema.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.files import Content, content_of, version_of, write_as_owner
from vllm_circus.paths import Instance

if TYPE_CHECKING:
    from vllm_circus.plan.types import Plan


@dataclass(frozen=True)
class Known:
    """What a file held; `changed_at` is its inode's time of change while it did, in ns, 0 where nobody can say."""

    content: Content
    changed_at: int = 0


@dataclass(frozen=True)
class LastRead:
    """What is known of the last reading.

    Attributes:
        at: when it was written down, in ns since 1970.
        files: by path; empty for a set that an earlier release started.
        held: options of the proxy that stay as they run though the models file says otherwise.
    """

    at: int
    files: Mapping[str, Known] = field(default_factory=dict)
    held: tuple[str, ...] = ()

    def differs(self, path: Path) -> bool:
        """Whether a file holds something else by now. Raises OSError where it cannot be read, or is not there."""
        about = path.stat()
        known = self.files.get(str(path.absolute()))
        if known is None:
            return about.st_ctime_ns > self.at
        if about.st_size != known.content.size or not stat.S_ISREG(about.st_mode):
            return True
        return about.st_ctime_ns != known.changed_at and content_of(path.read_bytes()) != known.content


def note_read(plan: Plan, held: tuple[str, ...] = ()) -> None:
    """Write down what the plan was made from. Raises OSError."""
    files = [
        {"path": path, "size": content.size, "digest": content.digest, "changed_at": _changed_at(Path(path), content)}
        for path, content in plan.read
    ]
    document = {"files": files, "held": held}
    write_as_owner(plan.instance.last_read, json.dumps(document, indent=2).encode() + b"\n", mode=0o600)


def last_read(instance: Instance) -> LastRead | None:
    """What was written down; where nothing was, when the plan was. None where there is neither."""
    path = instance.last_read
    try:
        document = json.loads(path.read_bytes())
        known = {
            each["path"]: Known(Content(each["size"], each["digest"]), each["changed_at"]) for each in document["files"]
        }
        return LastRead(path.stat().st_mtime_ns, known, tuple(document["held"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        return LastRead(instance.plan.stat().st_mtime_ns)
    except OSError:
        return None


def changed_secret(planned: Iterable[tuple[Path, str]]) -> Path | None:
    """The first of these files whose version (see `files.version_of`) is another by now; one that is gone is none."""
    for path, version in planned:
        with suppress(OSError):
            if version_of(path) != version:
                return path
    return None


def _changed_at(path: Path, content: Content) -> int:
    """The time is looked at before the content: what is written in between counts as another file."""
    try:
        time = path.stat().st_ctime_ns
        return time if content_of(path.read_bytes()) == content else 0
    except OSError:
        return 0
