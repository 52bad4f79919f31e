"""The card under test: a real one, or one made of two stand-ins; who looks at it all the time; and who holds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import nvml_stub

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
#: What a process has of a card beside what it asks for, at most.
CONTEXT = GIB
PATIENCE = 60.0


@dataclass(frozen=True)
class Sample:
    """One look at the card: when it began (steady clock), bytes in use, and by whom as far as the driver tells."""

    at: float
    used: int
    total: int
    held: Mapping[int, int | None]


@dataclass
class Watch:
    """Looks at the card all the time; `samples` has every look since its start."""

    process: subprocess.Popen[str]
    samples: list[Sample] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False

    def follow(self) -> None:
        """Take the looks in as they come, to their end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            seen = json.loads(line)
            held = {int(pid): memory for pid, memory in seen["held"].items()}
            with self.news:
                self.samples.append(Sample(seen["at"], seen["used"], seen["total"], held))
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait(self, is_it: Callable[[Sample], object], within: float = PATIENCE, since: float | None = None) -> Sample:
        """The first look for which that is true, of those that began after `since`: a steady time, by default now.

        A look that comes in later may have begun earlier, and then it does not know what happened meanwhile.
        """
        begin = time.monotonic() if since is None else since
        place = 0
        with self.news:

            def find() -> Sample | None:
                nonlocal place
                for sample in self.samples[place:]:
                    if sample.at > begin and is_it(sample):
                        return sample
                place = len(self.samples)
                return None

            found = self.news.wait_for(lambda: find() or self.ended, within)
        assert isinstance(found, Sample), (
            f"not within {within:g} s, or nobody looks; the last look: {self.samples[-1:]}"
        )
        return found

    def now(self) -> Sample:
        """The next look that begins."""
        return self.wait(lambda _: True)


@dataclass
class Card:
    """GPU 0.

    Attributes:
        environ: what a process needs in addition to see it.
        idle: bytes that were in use before anything began.
        state: the file of the stand-ins, None where the card is real.
    """

    environ: Mapping[str, str]
    watch: Watch
    idle: int
    state: Path | None
    cards: Path | None = None

    @property
    def whole(self) -> dict[str, str]:
        """The whole environment of a process that sees it."""
        return {**os.environ, **self.environ}

    @property
    def total(self) -> int:
        """Bytes."""
        return self.watch.samples[0].total

    def python(self, *words: str) -> str:
        """What a Python program prints that sees the card."""
        run = subprocess.run(
            [sys.executable, *words], env=self.whole, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return run.stdout

    def truth(self) -> dict[str, Any]:
        """Index, name, UUID and bytes as nvidia-smi tells them, or as the stand-ins were told."""
        if self.state is not None:
            uuid = "GPU-00000000-0000-0000-0000-000000000000"
            return {"index": 0, "name": "NVIDIA H100 80GB HBM3", "uuid": uuid, "total": 80 * GIB, "used": self.idle}
        assert shutil.which("nvidia-smi"), "there is no nvidia-smi"
        fields = "--query-gpu=index,name,uuid,memory.total,memory.used"
        command = ["nvidia-smi", fields, "--format=csv,noheader,nounits", "--id=0"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        index, name, uuid, total, used = (word.strip() for word in told.split(","))
        return {
            "index": int(index),
            "name": name,
            "uuid": uuid,
            "total": int(total) << 20,
            "used": int(used) << 20,
        }

    @contextmanager
    def lingering(self, milliseconds: int) -> Iterator[None]:
        """The memory of who ends meanwhile takes that long to come back. A real card takes what it takes."""
        self._describe(linger_ms=milliseconds)
        try:
            yield
        finally:
            self._describe()

    @contextmanager
    def held(self, *words: str) -> Iterator[tuple[int, int]]:
        """Somebody else has memory of it: the pid, and how many bytes. The words are those of `holder`."""
        command = [sys.executable, "-m", "tests.real_gpu.holder", *words]
        with subprocess.Popen(
            command, env=self.whole, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdin
            assert holder.stdout
            try:
                yield holder.pid, int(holder.stdout.readline())
            finally:
                holder.stdin.close()

    def _describe(self, **more: object) -> None:
        if self.state is not None:
            nvml_stub.write_state(self.state, {"count": 1, "holders": self.cards, "memory_used": self.idle, **more})


def make_card(folder: Path, environ: Mapping[str, str], state: Path | None) -> Card:
    """Begin to look at it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.real_gpu.look"],
        env={**os.environ, **environ},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process)
    threading.Thread(target=watch.follow, daemon=True).start()
    return Card(environ, watch, watch.now().used, state, folder / "cards" if state else None)


def stand_in(folder: Path) -> tuple[dict[str, str], Path]:
    """A card made of the two stand-ins: what a process needs to see it, and its state."""
    (folder / "cards").mkdir()
    state = nvml_stub.write_state(folder / "state", {"count": 1, "holders": folder / "cards", "memory_used": GIB // 2})
    whole = nvml_stub.environment(nvml_stub.build(folder), state)
    nvml_stub.build_cuda(folder)
    return {name: whole[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB_STATE")}, state
