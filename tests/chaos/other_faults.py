"""Faults of everything around the engines: circusd, the plugins, the disk, the log files, the clock."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.census import Census, orphans_of
from tests.chaos.chatter import numbers
from tests.chaos.clients import states
from tests.chaos.ground import (
    Ground,
    Notes,
    NotTried,
    ask_on,
    awaited,
    ground,
    lives,
    seconds_until,
    session_of,
)
from tests.chaos.scene import free_ports
from tests.e2e.conftest import await_that
from vllm_circus.bus.messages import TOPIC_COUNTS, TOPIC_MODELS, CountsMessage, ModelsMessage
from vllm_circus.bus.subscribe import latest
from vllm_circus.logline import LogLine, decode
from vllm_circus.render.ini import LOG_MAX_BYTES
from vllm_circus.supervise.lock import lock_holder

#: Seconds until nothing of a set without circusd is left; until a plugin is back; until logs take lines again.
GONE, PLUGIN_BACK, LOG_BACK = 10.0, 5.0, 5.0
HOUR = 3600.0
#: Seconds by which a told age may be off: what is told once a second, and a command's own time on a busy machine.
_AGE_OFF = 10.0
_CLONE_NEWNS = 0x20000
_CLOCK = Path(__file__).with_name("clock.c")
_MODELS: list[dict[str, Any]] = [
    {"name": "calm", "args": {"sim-load-seconds": 0.3}},
    {"name": "other", "args": {"sim-load-seconds": 0.3, "sim-orphan-seconds": 60}},
]


def circusd_killed(notes: Notes) -> None:
    """kill -9 of circusd, and a start ten seconds later."""
    with ground(_MODELS) as place:
        ports = frozenset(str(model["port"]) for model in yaml.safe_load(place.file.read_text())["models"])
        place.up("calm", "other")
        leaders = [place.pid(name) for name in ("calm", "other")]
        circusd = awaited(lambda: lock_holder(place.instance))
        tree = frozenset({circusd, *place.processes()}).union(*map(session_of, leaders))
        with Census(ports) as census:
            os.kill(circusd, signal.SIGKILL)
            gone = seconds_until(lambda: not any(map(lives, tree)), GONE)
            left = sum(map(lives, tree))
            passed = "none left" if gone is None else f"none left after {gone:.1f} s"
            notes.say(f"{left} of {len(tree)} processes left after {GONE:g} s" if left else passed)
            place.up("calm", "other")
        survivors = sum(map(lives, tree))
        notes.say(f"{survivors} after the next start, {len(census.doubles)} double starts")
        notes.that(not survivors, "the next start leaves something of the earlier set")
        notes.that(not census.doubles, "two API servers at once")
        notes.that(not orphans_of(place.instance), "orphans")


def second_start(notes: Notes) -> None:
    """Every way to start what runs already."""
    with ground(_MODELS) as place:
        place.up("calm", "other")
        before = [place.pid("calm"), place.pid("other")]
        holder = str(lock_holder(place.instance))
        with place.traffic("calm") as traffic:
            said = [
                place(*arguments, str(place.file), code=1).stderr for arguments in (("up",), ("up", "-d"), ("run",))
            ]
        notes.say(f"3 refused with exit code 1: {said[0].splitlines()[0]}")
        notes.that(all("already" in text and holder in text for text in said), f"does not say who runs: {said}")
        notes.that([place.pid("calm"), place.pid("other")] == before, "something was restarted")
        notes.whole(traffic, "the running set")


def plugins_killed(notes: Notes, rounds: int = 2) -> None:
    """kill -9 of both plugins, one after the other."""
    with ground(_MODELS) as place:
        place.up("other")
        await_that(lambda: states(place.port).get("calm") == "ready")
        before, changes = [place.pid("calm"), place.pid("other")], _changes(place)
        with place.traffic("calm") as traffic:
            for name in ("health", "stats") * rounds:
                ask_on(traffic, 5)
                notes.time(f"{name} back", _kill_plugin(place, name), PLUGIN_BACK)
        right = seconds_until(lambda: _counted(place) == len(traffic.done), 10.0)
        notes.say(f"{_counted(place)} requests counted of {len(traffic.done)}")
        notes.that(right is not None, "requests were not counted, or twice")
        notes.that(_changes(place) == changes, f"states changed: {_changes(place)[len(changes) :]}")
        notes.that([place.pid("calm"), place.pid("other")] == before, "something was restarted")
        notes.whole(traffic, "a model")


def _kill_plugin(place: Ground, name: str) -> float | None:
    """Seconds until another one tells."""
    old = place.plugin(name)
    os.kill(old, signal.SIGKILL)
    return seconds_until(lambda: _teller(place, name) not in {None, old}, 20.0)


def _counted(place: Ground) -> int:
    message = latest(place.instance.stats_bus, TOPIC_COUNTS, CountsMessage, 5.0)
    return message.models["calm"].requests if message and "calm" in message.models else 0


def _teller(place: Ground, plugin: str) -> int | None:
    """The process that tells on a plugin's bus."""
    if plugin == "health":
        models = latest(place.instance.health_bus, TOPIC_MODELS, ModelsMessage, 0.5)
        return models.pid if models else None
    counts = latest(place.instance.stats_bus, TOPIC_COUNTS, CountsMessage, 0.5)
    return counts.pid if counts else None


def _changes(place: Ground) -> list[str]:
    return [line.text for line in place.log("health") if " -> " in line.text]


def clock_set(notes: Notes) -> None:
    """The wall clock jumps forth and back for every process of the set; the steady one goes on."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NotTried("there is no C compiler")
    with ground(_MODELS) as place:
        clock, library = place.home / "clock", place.home / "clock.so"
        subprocess.run(
            [compiler, "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _CLOCK], check=True
        )
        _set(clock, 0)
        place.extra = {"LD_PRELOAD": str(library), "VLLM_CIRCUS_TEST_CLOCK": str(clock)}
        place.up("calm", "other")
        before, changes, began = [place.pid("calm"), place.pid("other")], _changes(place), time.monotonic()
        with place.traffic("calm") as traffic:
            ask_on(traffic, 10)
            for jump in (HOUR, -HOUR):
                _set(clock, jump)
                ask_on(traffic, 15)
                ages = _ages(place, jump)
                truth = time.monotonic() - began
                off = max(abs(age - truth) for age in ages)
                notes.say(f"at {jump / HOUR:+g} h ages are off by {off:.0f} s at most")
                notes.that(off < _AGE_OFF, f"ages at {jump / HOUR:+g} h: {ages}, and not {truth:.0f} s")
        notes.say(f"{len(_changes(place)) - len(changes)} changes of state")
        notes.that(_changes(place) == changes, f"states changed: {_changes(place)[len(changes) :]}")
        notes.that([place.pid("calm"), place.pid("other")] == before, "something was restarted")
        notes.whole(traffic, "a model")
        os.kill(before[1], signal.SIGKILL)
        notes.time("then a killed engine back", seconds_until(lambda: place.is_back("other", before[1]), 30.0), 10.0)


def _set(clock: Path, seconds: float) -> None:
    fresh = clock.with_name("clock.new")
    fresh.write_text(f"{seconds:+.0f}\n")
    fresh.replace(clock)


def _ages(place: Ground, jump: float) -> list[float]:
    """For how long everything is said to run and to be as it is. Raises AssertionError where the clock is not set."""
    status = place.status()
    assert abs(status["now_at"] - time.time() - jump) < HOUR / 2, "the clock cannot be set"
    return [age for model in status["models"] for age in (model["uptime"], status["now_at"] - model["since_at"])]


def log_gone(notes: Notes) -> None:
    """A log that is deleted, renamed away and rotated while 400 lines a second go into it."""
    with ground([{"name": "calm", "args": {"sim-load-seconds": 0.3}}, _chatter("chatter", 400)]) as place:
        place.up("calm")
        log = place.instance.log("chatter")
        await_that(lambda: _talks(log))
        with place.traffic("calm") as traffic, log.open("rb") as deleted:
            log.unlink()
            notes.time("deleted: a new file", seconds_until(lambda: _talks(log), 20.0), LOG_BACK)
            moved = log.rename(log.with_name("moved"))
            notes.time("renamed: a new file", seconds_until(lambda: _talks(log), 20.0), LOG_BACK)
            os.truncate(log, LOG_MAX_BYTES - (64 << 10))  # a hole, as if it had grown so far
            old = log.with_name("chatter.log.1")
            await_that(old.exists)
            notes.time("full: a new file", seconds_until(lambda: _talks(log), 20.0), LOG_BACK)
            place("stop", "chatter")
            texts = [deleted.read().decode(), *(file.read_text() for file in (moved, old, log))]
        seen = sorted(numbers(text.rstrip() for part in texts for text in part.splitlines()))
        missing = sorted(set(range(seen[-1] + 1)) - set(seen))
        notes.say(f"{len(missing)} of {seen[-1] + 1} lines missing, {len(seen) - len(set(seen))} doubled")
        notes.that(not missing and len(seen) == len(set(seen)), f"missing: {missing[:5]}")
        notes.whole(traffic, "a model")


def _chatter(name: str, rate: int) -> dict[str, Any]:
    (port,) = free_ports(1)
    root = str(Path(__file__).parents[2])
    argv = ["env", f"PYTHONPATH={root}", "python3", "-m", "tests.chaos.chatter", "{port}", str(rate)]
    return {"name": name, "model": "m", "port": port, "engine": {"command": argv}}


def _talks(log: Path) -> bool:
    return any(numbers(line.text for line in _lines(log)))


def _lines(log: Path) -> list[LogLine]:
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in map(decode, text.splitlines()) if line]


def disk_full(notes: Notes, seconds: float = 8.0) -> None:
    """The disk of the logs and the states is full for so many seconds, in which an engine dies, too."""
    _in_own_mounts(lambda: _disk_full(notes, seconds))


def _in_own_mounts(work: Callable[[], None]) -> None:
    """Run `work` in a thread that sees mounts of its own, as does what it starts: they go with the last of these.

    Raises NotTried where that is not allowed.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            _leave_mounts()
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _leave_mounts() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise NotTried(f"mounts of one's own: {os.strerror(ctypes.get_errno())} (needs root)")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _disk_full(notes: Notes, seconds: float) -> None:
    with ground([*_MODELS, _chatter("chatter", 200)]) as place:
        disks = (place.home / "log", place.home / "state")
        for disk in disks:
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(disk)], check=True)
        try:
            _fill_and_free(notes, place, disks, seconds)
        finally:
            place.put_away()
            for disk in disks:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill_and_free(notes: Notes, place: Ground, disks: Iterable[Path], seconds: float) -> None:
    log = place.instance.log("chatter")
    place.up("calm", "other")
    await_that(lambda: _talks(log) and _states(place))
    with place.traffic("calm") as traffic:
        for disk in disks:
            _fill(disk / "ballast")
        size = awaited(lambda: _stands_still(log))
        old = place.pid("other")
        os.kill(old, signal.SIGKILL)  # a change of state that cannot be written down
        notes.time("full: a killed engine back", seconds_until(lambda: place.is_back("other", old), 30.0), 10.0)
        time.sleep(seconds)  # nothing is to happen: there is no event for that
        notes.that(log.stat().st_size == size, "the disk was not full")
        notes.that(_states(place), "a state file is not whole")
        for disk in disks:
            (disk / "ballast").unlink()
        notes.time("logging back", seconds_until(lambda: log.stat().st_size > size, 30.0), LOG_BACK)
        notes.that(seconds_until(lambda: _knows(place, "other"), 30.0) is not None, "states are not written any more")
        place("stop", "chatter")
    _judge_loss(notes, log)
    notes.whole(traffic, "a model")


def _judge_loss(notes: Notes, log: Path) -> None:
    """What is missing in the log is what it says."""
    texts = [line.text for line in _lines(log)]
    seen = numbers(texts)
    said = [int(text.split()[1]) for text in texts if "lines were lost here: No space left on device" in text]
    missing = max(seen) + 1 - len(set(seen))
    notes.say(f"{missing} lines missing, {sum(said)} said to be lost")
    notes.that(missing and missing == sum(said), "the loss is not what the log says")


def _fill(ballast: Path) -> None:
    """Until not a byte more goes in."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def _stands_still(log: Path) -> int:
    """The size of a log that grows no more; 0 while it grows."""
    size = log.stat().st_size
    time.sleep(1.0)
    return size if log.stat().st_size == size else 0


def _states(place: Ground) -> bool:
    """Whether the written states are whole documents."""
    folder = place.instance.state_dir
    try:
        return all(json.loads((folder / name).read_bytes()) for name in ("health.json", "stats.json"))
    except (OSError, ValueError):
        return False


def _knows(place: Ground, model: str) -> bool:
    """Whether the present process of a model is written down."""
    written = json.loads((place.instance.state_dir / "health.json").read_bytes())["lives"]
    return bool(written[model]["pid"] == place.pid(model))
