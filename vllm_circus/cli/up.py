"""`vllm-circus up`: start the set, and either stay and watch it or leave it running."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    Session,
    circusctl,
    config_file,
    find_fallen,
    instance_option,
    instance_words,
    need_outline,
    plan_for_start,
    running_pid,
    say,
    say_warnings,
    timeout_option,
    wants_colour,
    words,
)
from vllm_circus.cli.completing import config_argument
from vllm_circus.cli.streams import OutputLost, reader_gone, silence, whoever_listens
from vllm_circus.errors import CircusError
from vllm_circus.paths import goes_with_login

if TYPE_CHECKING:
    from types import FrameType

    from vllm_circus.paths import Instance
    from vllm_circus.plan.types import Plan
    from vllm_circus.view.logs import Entry
    from vllm_circus.view.tail import Mark

EVERY = 0.1  # seconds between two looks at the logs
STILL_RUNS = 1.0  # seconds between two looks at the daemon
STOPPING = "stopping; Ctrl-C again leaves it to end by itself"


@click.command(short_help="Start the set: every enabled model behind one port.")
@config_argument
@click.option("-d", "--detach", is_flag=True, help="Leave it running and return.")
@click.option("--wait", is_flag=True, help="With -d: return when every enabled model is ready.")
@timeout_option("With --wait: wait no longer than this.")
@instance_option
@click.pass_obj
def up(session: Session, config: str | None, detach: bool, wait: bool, timeout: float | None) -> None:
    """Start every enabled model of CONFIG, a models file or a saved configuration's name, behind one port.

    In the foreground it shows states and logs, and Ctrl-C stops the set in order. With -d --wait the exit code is 3
    where a model does not become ready; the set then goes on running. On a terminal that is a screen with a bar for
    each model; where one fails, `r` starts it again and `c` stops it and continues without it.
    """
    if wait and not detach:
        raise click.UsageError("--wait goes with -d", click.get_current_context())
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with -d --wait", click.get_current_context())
    instance = session.instance
    refuse_running(instance)  # whatever file is meant
    path = config_file(instance, config)
    if detach:
        start_set(instance, path)
        if goes_with_login(instance.run_dir, os.geteuid()):
            say("warning: it ends when you log out; `loginctl enable-linger` keeps it running")
        if wait:
            _wait(instance, timeout)
        _say_where(instance)
    else:
        _stay(instance, path)


def refuse_running(instance: Instance) -> None:
    """Raises CircusError where the set runs already."""
    pid = running_pid(instance)
    if pid is not None:
        raise CircusError(
            f"{instance_words(instance)} is running already (circusd is process {pid})",
            hint=f"`{words(instance, 'down')}` stops it; `--instance NAME` runs another set beside it",
        )


def start_set(instance: Instance, path: Path) -> Plan:
    """Check the file, start the daemon and return as soon as it answers.

    Raises CircusError where one runs already, or it does not start.
    """
    from vllm_circus.supervise.control import spawn_daemon

    refuse_running(instance)
    if fallen := find_fallen(instance):
        say(f"the last {fallen}")
    plan = plan_for_start(instance, path)
    say_warnings(plan.warnings)
    pid = spawn_daemon(instance, path)
    say(f"circusd runs as process {pid}")
    return plan


def _wait(instance: Instance, timeout: float | None) -> None:
    """As `wait_ready`, of a set that goes on where somebody does not want to wait."""
    try:
        wait_ready(instance, timeout)
    except KeyboardInterrupt:
        say(f"no longer waiting; the set goes on starting, and `{words(instance, 'down')}` stops it")
        raise


def wait_ready(instance: Instance, timeout: float | None) -> None:
    """Wait until every enabled model is ready and the proxy serves, and tell how it goes.

    Raises NotRunning where one of them does not get there.
    """
    from vllm_circus.cli.starting import wait_on_screen, wants_screen
    from vllm_circus.cli.waiting import ProxyWatch, check_failed, wait_for
    from vllm_circus.view.goals import judge_start

    names = [model.name for model in need_outline(instance).models if model.enabled]
    if wants_screen(instance):
        failed = wait_on_screen(instance, names, timeout)
    else:
        failed = wait_for(instance, names, judge_start, before={}, timeout=timeout, proxy=ProxyWatch(instance))
    check_failed(instance, failed)


def _say_where(instance: Instance) -> None:
    import shutil

    from vllm_circus.view.status import folded

    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    outline = need_outline(instance)
    where = f"{outline.url} and {outline.unix_socket}" if outline.unix_socket else outline.url
    say(f"proxy on {where}; next: `{words(instance, 'status')}`, `{words(instance, 'logs -f')}`")
    for line in folded(circusctl(instance), columns):
        say(line)


def _stay(instance: Instance, path: Path) -> None:
    """Start the set, show what happens until it ends or somebody ends us, then stop it in order."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    from vllm_circus.cli.down import stop_whoever_listens
    from vllm_circus.cli.logs import known_parts
    from vllm_circus.view.tail import mark_end

    marks = {part: mark_end(instance.log(part)) for part in known_parts(instance)}
    output = Output(instance, marks)
    try:
        output.leave_out(start_set(instance, path).warnings)
        _say_where(instance)
        _watch(instance, output)
    except (KeyboardInterrupt, OSError) as end:
        gone = isinstance(end, OSError) and reader_gone()
        if isinstance(end, OSError) and not silence(end):
            raise
        with whoever_listens():
            say(f"{_why(end, gone=gone)}{STOPPING}")
        stop_whoever_listens(instance, output.show)
        if gone:
            raise BrokenPipeError from end
        raise
    raise CircusError(f"{instance_words(instance)} ended by itself", hint=f"see `{words(instance, 'logs circusd')}`")


def _why(end: BaseException, *, gone: bool) -> str:
    """What ends the set, as the beginning of a sentence; nothing where somebody wished it."""
    if gone:
        return "whoever read this has gone; "
    return f"the output cannot be written: {end.strerror}; " if isinstance(end, OutputLost) else ""


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    if signum == signal.SIGHUP:  # the kernel tells that the terminal is gone, and then the shell does
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(instance: Instance, output: Output) -> None:
    """Changes of state to stderr and log lines to stdout, until the daemon is gone."""
    from vllm_circus.bus.messages import ModelsMessage
    from vllm_circus.bus.subscribe import follow
    from vllm_circus.cli.waiting import Reporter

    report, look = Reporter(terminal=False), 0.0
    for message in follow(instance, EVERY):
        if isinstance(message, ModelsMessage):
            report.show({state.name: state for state in message.models}, time.time())
        output.show()
        if time.monotonic() >= look:
            if running_pid(instance) is None:
                return
            if reader_gone():  # noticed even where there is nothing to write
                raise BrokenPipeError
            look = time.monotonic() + STILL_RUNS


class Output:
    """The log lines of every part from a moment on, to stdout."""

    def __init__(self, instance: Instance, marks: dict[str, Mark | None]) -> None:
        from vllm_circus.view.logs import Wanted
        from vllm_circus.view.tail import Followers

        self._instance = instance
        self._parts: tuple[str, ...] = ()
        self._followers = Followers({part: instance.log(part) for part in marks}, marks)
        self._wanted = Wanted(brief=True)
        self._told: frozenset[str] = frozenset()

    def leave_out(self, warnings: tuple[str, ...]) -> None:
        """These have been told: circusd says them again as it starts."""
        self._told = frozenset(f"WARNING {warning}" for warning in warnings)

    def show(self) -> None:
        """Print what is new."""
        from vllm_circus.cli.logs import print_entries, set_parts
        from vllm_circus.view.logs import Form

        if not self._parts:  # the first time that there is something to show, the set's own plan is known
            self._parts = set_parts(self._instance)
            self._followers.add({part: self._instance.log(part) for part in self._parts})
        form = Form(self._parts, colour=wants_colour(sys.stdout))
        while entries := self._followers.poll():
            print_entries(filter(self._is_news, entries), form)

    def _is_news(self, entry: Entry) -> bool:
        told = entry.part == "circusd" and entry.text in self._told
        return self._wanted.matches(entry) and not told
