"""circusd, its plugins and its watchers: what runs agrees with what was rendered, and who is silent is dead.

Rule: a plugin's health is the age of its last word, never what circus says of its process.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.scene import CIRCUSD_LIMIT, Scene
from vllm_circus.paths import Instance
from vllm_circus.plan.difference import Difference, compare
from vllm_circus.plan.held import on_held_port
from vllm_circus.plan.types import Plan
from vllm_circus.render.ini import declared_names
from vllm_circus.supervise.lock import find_fallen, lock_holder
from vllm_circus.supervise.proc import is_halted
from vllm_circus.supervise.sweep import find_leftovers
from vllm_circus.view.status import Heartbeat, judge
from vllm_circus.view.units import counted, duration

_SYSTEM = Path("/run/vllm-circus")  # root's, or the service's


def check_circusd(scene: Scene) -> Iterator[Found]:
    """Whether it runs and answers; where it does not, how the last one ended."""
    if scene.lock_error:
        yield fault(f"nobody can tell whether a set runs: {scene.lock_error}", "run this as the user who started it")
    elif scene.daemon is None:
        fallen = find_fallen(scene.instance)
        if fallen is not None:
            yield warning(f"nothing runs: the last {fallen}", f"{scene.words('logs')} shows the last lines")
        else:
            yield _none_runs(scene)
    elif scene.watchers.value is None:
        yield _silent(scene, scene.daemon)
    else:
        yield ok(f"process {scene.daemon} runs the set, and answers at {scene.instance.control}")


def _none_runs(scene: Scene) -> Found:
    others = ", ".join(f"`--instance {name}`" for name in running_beside(scene.instance))
    beside = f"; what runs is {others}" if others else ""
    fix = f"{scene.start} starts the set"
    if os.geteuid() and _SYSTEM.is_dir() and not scene.instance.run_dir.is_relative_to(_SYSTEM):
        fix += "; for that of the machine itself, `sudo vllm-circus doctor`"
    return note(f"nothing runs{beside}", fix)


def running_beside(instance: Instance) -> Iterator[str]:
    """The names of our other instances that run."""
    for path in sorted(instance.run_dir.parent.glob("*/lock")):
        other = replace(instance, name=path.parent.name, run_dir=path.parent)
        with suppress(OSError):  # another user's, or gone at this moment
            if other.run_dir != instance.run_dir and lock_holder(other) is not None:
                yield other.name


def _silent(scene: Scene, pid: int) -> Found:
    what = f"circusd (process {pid}) does not answer within {CIRCUSD_LIMIT:g} s"
    if pid and is_halted(pid):
        return fault(f"{what}: somebody stopped it (SIGSTOP)", f"`kill -CONT {pid}` lets it go on")
    what += f": {scene.watchers.error}" if scene.watchers.error and not scene.watchers.late else ""
    return fault(what, f"{scene.words('logs circusd')} may say why; {scene.words('down')} ends it")


def check_plugins(scene: Scene) -> Iterator[Found]:
    """The heartbeat of each plugin."""
    if scene.daemon is None:
        return
    now = scene.heard_at
    beats = (
        (judge("health", scene.models.sent_at if scene.models else None, now), scene.models and scene.models.pid),
        (judge("stats", scene.counts.sent_at if scene.counts else None, now), scene.counts and scene.counts.pid),
    )
    for beat, _ in beats:
        if not beat.alive:
            yield _dead(scene, beat)
    if all(beat.alive for beat, _ in beats):
        yield ok("the plugins health and stats live: " + ", ".join(f"process {pid}" for _, pid in beats))


def _dead(scene: Scene, beat: Heartbeat) -> Found:
    said = "says nothing" if beat.age is None else f"said its last word {duration(beat.age)} ago"
    means = "models are not looked after" if beat.name == "health" else "nothing is counted"
    return fault(
        f"the plugin {beat.name} {said}, so {means}",
        f"circusd starts another one where it died; else see {scene.words(f'logs {beat.name}')}, "
        f"and {scene.words('down')}, {scene.start}",
    )


def check_watchers(scene: Scene) -> Iterator[Found]:
    """Whether circusd has every watcher that was rendered, and the proxy all of its workers."""
    told = scene.watchers.value
    if scene.daemon is None or told is None:
        return
    try:
        rendered = declared_names(scene.instance.ini.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rendered = frozenset()
    found = [*judge_watchers(scene, rendered, told), *_workers(scene)]
    yield from found
    if not found:
        yield ok(f"circusd has all of its {counted(len(told), 'watcher')}, as they were rendered")


def judge_watchers(scene: Scene, rendered: frozenset[str], told: dict[str, str]) -> Iterator[Found]:
    """What is missing or too many; sockets are no watchers."""
    if not rendered:
        yield warning(f"{scene.instance.ini} cannot be read", f"{scene.words('reload')} writes it anew")
        return
    wanted = {name for name in rendered if not name.startswith("socket:")}
    program = Path(sys.executable).with_name("circusctl")
    again = f"{scene.words('down')}, then {scene.start}"
    for name in sorted(wanted - set(told)):
        yield fault(f"circusd has no watcher {name}, which was rendered", again)
    for name in sorted(set(told) - wanted):
        yield warning(
            f"circusd has a watcher {name} that was not rendered", f"somebody added it; {again} takes it away"
        )
    for name in sorted(wanted & set(told)):
        if told[name] == "stopped" and not name.startswith("model-"):
            start = f"`{program} --endpoint {scene.instance.control} start {name}`"
            yield fault(f"the watcher {name} is stopped: somebody used circusctl", f"{start} starts it")


def _workers(scene: Scene) -> Iterator[Found]:
    if scene.running is None or scene.counts is None:
        return
    living, planned = len(scene.counts.workers), scene.running.proxy.workers
    if living < planned:
        grave = warning if living else fault
        yield grave(f"{living} of {counted(planned, 'proxy worker')} alive", f"see {scene.words('logs proxy')}")


def check_leftovers(scene: Scene) -> Iterator[Found]:
    """Processes and files of a set that was killed, and reports of our own crashes."""
    found = [*_leftovers(scene), *judge_crashes(scene, tuple(scene.instance.state_dir.glob("crash-*.txt")))]
    yield from found
    if not found:
        yield ok("nothing is left of an earlier set, and no command has crashed")


def _leftovers(scene: Scene) -> Iterator[Found]:
    if scene.daemon is not None or scene.lock_error:
        return
    left = find_leftovers(scene.instance)
    if left:
        pids = ", ".join(str(process.pid) for process in left[:5]) + (" …" if len(left) > 5 else "")
        yield warning(
            f"{counted(len(left), 'process')} of an earlier set still live: {pids}",
            f"{scene.words('down')} ends them; so does the next start",
        )
    run_dir = scene.instance.run_dir
    stale = [path.name for path in sorted(run_dir.glob("*.sock")) if path.is_socket()]
    stale += [path.name for path in (scene.instance.pidfile, scene.instance.sessions) if path.exists()]
    if stale:
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        yield note(f"{run_dir} holds what a killed set left: {names}", f"the next {scene.words('up')} clears it up")


def judge_crashes(scene: Scene, reports: tuple[Path, ...]) -> Iterator[Found]:
    """What a bug of ours left."""
    if reports:
        latest = max(reports, key=lambda path: path.name)
        yield note(
            f"{counted(len(reports), 'report')} of crashes of this program, the last {latest}",
            f"report it as a bug; `rm {scene.instance.state_dir}/crash-*.txt` removes them",
        )


def check_plan(scene: Scene) -> Iterator[Found]:
    """Whether the running set goes by the models file as it is now."""
    if scene.daemon is None:
        return
    if scene.running is None:
        yield fault(
            f"the plan of the running set cannot be read: {scene.instance.plan}",
            f"of another version, perhaps: {scene.words('down')}, then {scene.start}",
        )
        return
    source = Path(scene.running.source)
    if not source.exists():
        yield warning(f"{source}, which the set was started with, is gone; it goes on", "put the file back")
    elif scene.planned.value is not None:
        yield judge_difference(scene, scene.running, scene.planned.value)


def judge_difference(scene: Scene, running: Plan, planned: Plan) -> Found:
    """What a reload would do, and what only a new start does."""
    difference = compare(running, planned)
    if difference.empty:
        return ok("the running set goes by the models file as it is now")
    what = f"the models file and the running set differ: {', '.join(_changes(difference))}"
    file = "" if planned.source == running.source else f" {shlex.quote(planned.source)}"
    anew = f"{scene.words('down')}, then {scene.start}"
    reload = f"{scene.words(f'reload{file} --dry-run')} shows it, {scene.words(f'reload{file}')} applies it"
    if taken := on_held_port(running, planned):
        return note(f"{what}; {taken} is to have the port of the running proxy", anew)
    if difference.fixed:
        held = f"only {anew} apply {', '.join(difference.fixed)}"
        reload = f"{reload}; {held}" if difference.applies else held
    return note(what, reload)


def _changes(difference: Difference) -> Iterator[str]:
    for names, verb in ((difference.added, "new"), (difference.removed, "gone")):
        yield from (f"{name} is {verb}" for name in names)
    yield from (f"{change.name} has changed" for change in (*difference.restarted, *difference.changed))
    if difference.proxy or difference.fixed:
        yield f"the proxy's {', '.join((*difference.proxy, *difference.fixed))} changed"
