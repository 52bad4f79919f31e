"""The daemon as its starter and stopper see it, from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.files import file_errors, make_directory, private_directory
from vllm_circus.logline import decode
from vllm_circus.paths import Instance
from vllm_circus.supervise.client import Client
from vllm_circus.supervise.lock import hold_lock, lock_holder
from vllm_circus.supervise.proc import Process, read_process, send_signal
from vllm_circus.supervise.sweep import KILL_GRACE, TERM_GRACE, end_leftovers, find_leftovers, remove_run_files

#: Seconds that a start may take: the sweep of an earlier set, and slow disks when everything is imported.
START_LIMIT = 60.0 + TERM_GRACE + KILL_GRACE
#: Seconds that circusd needs beside the grace times of its processes.
STOP_MARGIN = 15.0
#: Seconds between two words about what is waited for.
_PROGRESS = 5.0
_POLL = 0.05
_LAST_WORDS = 20
#: How a command begins the lines in which it says what is wrong, and what to do.
_ERROR, _HINT = "error: ", "hint: "


def running_pid(instance: Instance) -> int | None:
    """The pid of the circusd of this instance, or None: whoever holds its lock. 0 while it has just begun."""
    return lock_holder(instance)


def spawn_daemon(instance: Instance, config_path: Path, *, limit: float = START_LIMIT) -> int:
    """Start `vllm-circus run` detached, and return its pid as soon as it answers.

    It gets a session of its own, no terminal, and circusd.log for whatever it says outside its log. Raises CircusError
    with its last words when it ends before that, or does not answer within `limit` seconds (it is then stopped), or
    naming the other one where another one was faster. Interrupted, it leaves nothing behind.
    """
    log = instance.log("circusd")
    with file_errors():
        make_directory(log.parent, mode=0o750)
        before = log.stat().st_size if log.exists() else 0
        process = _spawn(instance, config_path.absolute(), log)
    try:
        if _wait_answering(instance, process, limit):
            return process.pid
    except BaseException:
        process.terminate()
        process.wait()  # at most the grace times of what it had started; interrupted again, it ends by itself
        raise
    if process.poll() is None:
        process.terminate()
        raise CircusError(f"circusd did not answer within {limit:g} s", hint=f"see {log}")
    if other := running_pid(instance):
        raise CircusError(
            f"instance {instance.name!r} runs already: process {other} was faster",
            hint="`vllm-circus down` stops it; `--instance NAME` runs another set beside it",
        )
    words, hint = _last_words(log, before)
    words = words or f"exit code {process.returncode}, and nothing in its log; is the disk full?"
    raise CircusError(f"circusd did not start: {words}", hint=f"{hint}see {log}")


def stop_daemon(
    instance: Instance, *, timeout: float | None = None, progress: Callable[[str], object] = lambda _: None
) -> None:
    """Stop the circusd of this instance and everything under it, and return when all is gone.

    `timeout` is how many seconds it may take before it is killed and its processes are swept; None allows what the
    grace times of its processes need. `progress` gets a sentence now and then. Raises NotRunning when nothing runs.
    """
    deadline = time.monotonic() + _POLL * 20
    while (pid := running_pid(instance)) == 0 and time.monotonic() < deadline:
        time.sleep(_POLL)  # it has the lock, and is about to write its pid
    process = read_process(pid) if pid else None
    if process is None:
        raise NotRunning(f"instance {instance.name!r} does not run")
    limit = _longest_end(instance) if timeout is None else timeout
    send_signal(process, signal.SIGTERM)
    send_signal(process, signal.SIGCONT)  # somebody may have stopped it, and it is to end in order all the same
    if _wait_gone(instance, process, limit, progress):
        left = end_leftovers(instance)
    else:
        progress(f"circusd (process {process.pid}) still runs after {limit:g} s: killing it")
        send_signal(process, signal.SIGKILL)
        _wait_gone(instance, process, KILL_GRACE, progress)
        left = _end_killed(instance)
    if left:
        progress(f"ended {len(left)} process{'es' if len(left) > 1 else ''} that circusd left behind")


def _end_killed(instance: Instance) -> tuple[Process, ...]:
    """End what a circusd that was killed on purpose left, its files too: nobody is to take it for one that died."""
    with hold_lock(instance):
        left = end_leftovers(instance)
        remove_run_files(instance)
    return left


def clear_leftovers(instance: Instance) -> int:
    """End what a killed set left behind, unless the instance runs; returns how many processes that were.

    To be called before a plan is made: leftovers hold the very ports and GPUs that the new set needs. Raises
    CircusError when one of them cannot be ended.
    """
    if running_pid(instance) is not None or not find_leftovers(instance):
        return 0
    with file_errors(), hold_lock(instance):
        return len(end_leftovers(instance))


def _spawn(instance: Instance, config_path: Path, log: Path) -> subprocess.Popen[bytes]:
    private_directory(instance.run_dir)
    command = (sys.executable, "-P", "-X", "utf8", "-m", "vllm_circus", "run", str(config_path))
    options = ("--background", "--instance", instance.name)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        return subprocess.Popen(
            (*command, *options), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True
        )
    finally:
        os.close(handle)


def _wait_answering(instance: Instance, process: subprocess.Popen[bytes], limit: float) -> bool:
    """Whether it came to answer before it ended, and before `limit` seconds were over."""
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        if running_pid(instance) == process.pid and _answers(instance):
            return True
        time.sleep(_POLL)
    return False


def _answers(instance: Instance) -> bool:
    try:
        with Client(instance.control, timeout=1.0) as client:
            client.status()
    except NotRunning:
        return False
    return True


def _longest_end(instance: Instance) -> float:
    """Seconds that the running set may take to end, by the grace times of its own plan."""
    from vllm_circus.plan.types import load_plan
    from vllm_circus.render.ini import PROXY_MARGIN
    from vllm_circus.supervise.ending import KILL_GRACE as LAST
    from vllm_circus.supervise.ending import PLUGIN_GRACE

    try:
        plan = load_plan(instance.plan.read_bytes())
    except (OSError, ValueError):  # of another version, perhaps: then allow plenty
        return 600.0
    models = max((model.stop_timeout for model in plan.models), default=0.0)
    return plan.proxy.drain_timeout + PROXY_MARGIN + models + PLUGIN_GRACE + LAST + STOP_MARGIN


def _wait_gone(instance: Instance, daemon: Process, limit: float, progress: Callable[[str], object]) -> bool:
    """Wait for the end of the process: it lets go of the lock some time before."""
    start = told = time.monotonic()
    while (left := read_process(daemon.pid)) and left.alive and left.started == daemon.started:
        now = time.monotonic()
        if now - start > limit:
            return False
        if now - told >= _PROGRESS:
            told = now
            progress(f"stopping since {now - start:.0f} s, at most {limit:.0f} s: {_still_there(instance)}")
        time.sleep(_POLL)
    return True


def _still_there(instance: Instance) -> str:
    """Which watchers have not stopped."""
    try:
        with Client(instance.control, timeout=1.0) as client:
            names = sorted(name for name, status in client.status().items() if status != "stopped")
    except CircusError:
        return "circusd clears up"
    return ", ".join(names) or "circusd clears up"


def _last_words(log: Path, offset: int) -> tuple[str, str]:
    """What was written to the log behind `offset`, less its stamps: what went wrong, and the hint for that.

    Where it told its error as every command does, that alone; else its last lines, and no hint.
    """
    try:
        with log.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "", ""
    lines = [line.text if (line := decode(raw)) else raw for raw in text.splitlines()]
    first = next((number for number, line in enumerate(lines) if line.startswith(_ERROR)), None)
    if first is None:
        return "\n".join(lines[-_LAST_WORDS:]).strip(), ""
    told = [line for line in lines[first:] if not line.startswith(_HINT)]
    hints = [line.removeprefix(_HINT) for line in lines[first:] if line.startswith(_HINT)]
    return "\n".join(told).removeprefix(_ERROR), "".join(f"{hint}; " for hint in hints)
