"""circusd, in our own process: what `vllm-circus run` is once the plan is made.

The order of a start: signals, lock, log, limits, sweep of what an earlier set left, files and keys, arbiter. The order
of an end: the arbiter's processes (see `ending`), proof that nothing is left, then the files that only make sense while
the set runs. The rendered circus.ini and plan.json stay: they say what ran, and hold no secret.

A set whose run directory was removed (a logout takes /run/user/UID away) can be reached by nobody any more, and not
be stopped: it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.files import file_errors, write_atomic
from vllm_circus.hostport import join_host_port
from vllm_circus.paths import MARK, Instance
from vllm_circus.plan.types import Plan
from vllm_circus.render import File, render_files, write_files
from vllm_circus.render.ini import LOG_BACKUPS, LOG_MAX_BYTES, declared_names
from vllm_circus.stores.lastread import note_read
from vllm_circus.supervise.address import clear_address
from vllm_circus.supervise.cures import CuredArbiter, is_model, load_arbiter
from vllm_circus.supervise.launch import PARENT
from vllm_circus.supervise.lock import find_fallen, hold_lock, lock_holder
from vllm_circus.supervise.logs import logging_to
from vllm_circus.supervise.proc import read_process, send_signal
from vllm_circus.supervise.secrets import write_secrets
from vllm_circus.supervise.signals import Signals
from vllm_circus.supervise.stopped import LOOK_EVERY, StoppedWatch
from vllm_circus.supervise.sweep import end_leftovers, end_lost, remove_run_files

_LOG = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_UMASK = 0o027
_OPEN_FILES = 1 << 20
_LISTEN_HINTS = {
    errno.EADDRINUSE: "`ss -ltnp` shows who listens there",
    errno.EACCES: "ports below 1024 are for root: choose another `proxy.port`",
}
#: Seconds between two looks for processes that circus lost sight of.
_TENDING = 5.0


def run(plan: Plan, *, background: bool, files: Iterable[File] | None = None) -> int:
    """Run the set of `plan` until a signal or `circusctl quit` ends it; returns the exit code, 0.

    `background` leaves standard error alone: everything is in circusd.log. `files` are written instead of those that
    `plan` renders. Raises CircusError when it cannot start: another one runs, a port is taken, a program is missing.
    """
    instance = plan.instance
    os.umask(_UMASK)
    with (
        file_errors(),
        Signals() as signals,
        hold_lock(instance),
        logging_to(instance.log("circusd"), background=background, max_bytes=LOG_MAX_BYTES, backups=LOG_BACKUPS),
    ):
        for warning in plan.warnings:
            _LOG.warning("%s", warning)
        _prepare_process(instance)
        _end_earlier_set(instance, signals)
        try:
            if not signals.end_asked:
                if plan.proxy.unix_socket is not None:
                    clear_address(Path(plan.proxy.unix_socket))
                rendered = tuple(render_files(plan) if files is None else files)
                write_files(rendered, instance.run_dir)
                note_read(plan)
                write_secrets(plan)
                write_atomic(instance.pidfile, f"{os.getpid()}\n")
                asyncio.run(_serve(plan, declared_names(_ini_of(rendered)), signals))
        finally:
            _clean_up(instance)
    return 0


async def _serve(plan: Plan, expected: frozenset[str], signals: Signals) -> None:
    """The life of the arbiter. Raises CircusError when it cannot start."""
    from tornado.ioloop import IOLoop

    with _start_errors(plan):
        socket.getaddrinfo(plan.proxy.host, plan.proxy.port)  # circus would merely leave the socket out
    arbiter = load_arbiter(str(plan.instance.ini), IOLoop.current(), expected)
    tending = [asyncio.ensure_future(each) for each in (_tend(plan.instance, arbiter), _watch_stopped(arbiter))]
    try:
        with _start_errors(plan):
            started = arbiter.start()
            signals.hand_over(arbiter.stop)
            await started
        _LOG.info("instance %s runs: circusctl --endpoint %s", plan.instance.name, plan.instance.control)
        await arbiter.wait_ended()
        if _is_lost(plan.instance):
            raise CircusError(f"{plan.instance.run_dir} was removed while the set ran, so it has ended")
    finally:
        for task in tending:
            task.cancel()
        signals.release()
        arbiter.stop_controller_and_close_sockets()


def _is_lost(instance: Instance) -> bool:
    """Whether the lock that others see is not ours any more."""
    return lock_holder(instance) != os.getpid()


async def _tend(instance: Instance, arbiter: CuredArbiter) -> None:
    """Look now and then for processes that circus lost sight of, and whether others can still find this set."""
    while True:
        await asyncio.sleep(_TENDING)
        if _is_lost(instance):
            _LOG.error("the run directory %s was removed: nobody can reach this set any more", instance.run_dir)
            arbiter.stop()
            return
        owned = {pid for watcher in arbiter.watchers for pid in watcher.processes}
        try:
            killed = end_lost(instance, owned)
        except OSError as error:
            _LOG.warning("looking for lost processes: %s", error)
        else:
            if killed:
                _LOG.warning("killed %d processes whose leaders had gone", killed)


async def _watch_stopped(arbiter: CuredArbiter) -> None:
    """Kill proxy workers and plugins that somebody stopped: circus starts others."""
    watch = StoppedWatch()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        ours = {pid: watcher for watcher in arbiter.watchers if not is_model(watcher.name) for pid in watcher.processes}
        for process in watch.look(filter(None, map(read_process, ours))):
            _LOG.warning("%s: process %d was stopped (SIGSTOP): killing it", ours[process.pid].name, process.pid)
            send_signal(process, signal.SIGKILL)


@contextlib.contextmanager
def _start_errors(plan: Plan) -> Iterator[None]:
    import zmq

    try:
        yield
    except OSError as error:
        place = join_host_port(plan.proxy.host, plan.proxy.port)
        hint = _LISTEN_HINTS.get(error.errno or 0, "`proxy.host` is to be one of this machine's: see `ip address`")
        raise CircusError(f"cannot listen on {place}: {error.strerror or error}", hint=hint) from error
    except zmq.ZMQError as error:
        raise CircusError(f"cannot listen on {plan.instance.control}: {error}") from error


def _prepare_process(instance: Instance) -> None:
    """What children inherit: mark, limits, a working directory that stays; and orphans come back to this process."""
    instance.state_dir.mkdir(parents=True, exist_ok=True)
    os.chdir(instance.state_dir)
    os.environ.update({MARK: str(instance.run_dir), PARENT: str(os.getpid()), "PWD": str(instance.state_dir)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _LOG.warning("orphans cannot be adopted: %s", os.strerror(ctypes.get_errno()))


def _end_earlier_set(instance: Instance, signals: Signals) -> None:
    if fallen := find_fallen(instance):
        _LOG.warning("the last %s", fallen)
    ended = end_leftovers(instance, give_up=lambda: signals.end_asked)
    if ended:
        _LOG.warning("an earlier set left %d processes behind; they are gone now", len(ended))
    remove_run_files(instance)


def _clean_up(instance: Instance) -> None:
    """Prove that nothing is left, and take away what only makes sense while the set runs."""
    ended = end_leftovers(instance, grace=0.0)
    if ended:
        _LOG.warning("killed %d processes that were left at the end", len(ended))
    _reap_everything()
    if lock_holder(instance) in {None, os.getpid()}:  # otherwise another set runs in a new run directory
        remove_run_files(instance)
    _LOG.info("instance %s has ended", instance.name)


def _reap_everything() -> None:
    """Collect every child that has ended; those that were adopted too."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _ini_of(files: Iterable[File]) -> str:
    return "".join(file.content.decode() for file in files if file.name == "circus.ini")
