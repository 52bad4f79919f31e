"""The engine's own processes: an engine core, and under it one worker for each GPU.

They are forked before the server has an event loop, so each costs a few pages. Pairs of sockets tell each end when
the other one died, and carry orders: the core has the GPUs' memory, and its server has it give that back and take it.
What they do is what can be seen from outside: they have the real names, log the real lines, take the time to load, die
together, and outlive a server that is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import console
from .gpus import OutOfMemory
from .options import Options
from .proctitle import die_with_parent, set_title

ORDERS = frozenset({b"sleep", b"take"})
"""What a server has its core do with the memory of its cards."""

DONE = b"done"
CORE_FILES = ("vllm/v1/engine/core.py", "vllm/v1/executor/multiproc_executor.py")


class Refused(Exception):
    """Loading stopped, as `--sim-fail-phase` wants it. The message is the error's own line."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: whatever is running must let it through."""


@dataclass(frozen=True, slots=True)
class EngineCore:
    """The engine core as its server sees it: readable at the end of the process."""

    pid: int
    channel: socket.socket

    def wait_ready(self) -> bool:
        """Wait until it has loaded; False if it ended instead."""
        return self.channel.recv(16) == b"ready"

    def is_stopped(self) -> bool:
        """Whether somebody stopped it: state T of proc(5)."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False
        return stat.rpartition(b") ")[2].startswith(b"T")

    def kill(self) -> None:
        """End it the hard way."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self, patience: float) -> bool:
        """Ask it to end and wait for that; after `patience` seconds end it the hard way. Whether it obeyed."""
        with contextlib.suppress(OSError):
            self.channel.sendall(b"stop")
        self.channel.close()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
            time.sleep(0.005)
        self.kill()
        os.waitpid(self.pid, 0)
        return False


def do_phase(options: Options, phase: str, work: Callable[[float], None] = time.sleep) -> None:
    """Take the time that a phase takes, or hang, or raise Refused, as the options have it."""
    if options.sim.hang_phase == phase:
        while True:
            time.sleep(3600)
    work(options.sim.load[phase])
    if options.sim.fail_phase == phase:
        raise Refused(options.sim.fail_message)


def terminate(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    """Signal handler: leave what the process is doing."""
    raise Terminated


def start_engine(options: Options, to_close: socket.socket) -> EngineCore:
    """Fork the engine core. `to_close` is the listening socket: a core that outlives its server must not hold it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        to_close.close()
        _run(lambda: _core(options, theirs))
    theirs.close()
    return EngineCore(pid, ours)


def _run(body: Callable[[], int]) -> NoReturn:
    """Run a forked process to its end, which is never that of the code that forked it."""
    code = 1
    try:
        code = body()
    except Terminated:
        code = 0
    finally:
        os._exit(code)


def _obey_signals(options: Options) -> None:
    ignored = options.sim.ignore_sigterm != "never"
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _core(options: Options, server: socket.socket) -> int:
    """The engine core: load, then wait for the end of the server, of a worker, or for a signal."""
    _obey_signals(options)
    set_title("VLLM::EngineCore")
    log = console.Console("EngineCore")
    started = time.monotonic()
    workers: dict[int, socket.socket] = {}
    try:
        _load(options, log, server, workers)
        return _ready(options, log, server, workers, time.monotonic() - started)
    except Refused as error:
        log.complain("core.py:1387", "EngineCore failed to start.")
        _report(log, CORE_FILES[0], str(error))
        return 1
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _ready(
    options: Options, log: console.Console, server: socket.socket, workers: dict[int, socket.socket], seconds: float
) -> int:
    """Tell the server, then live until something ends."""
    log.say("core.py:402", f"init engine (profile, create kv cache, warmup model) took {seconds:.2f} s")
    if options.sim.ignore_sigterm != "always":
        signal.signal(signal.SIGTERM, terminate)
    server.sendall(b"ready")
    return _watch(options, log, server, list(workers.values()))


def _report(log: console.Console, file: str, error: str) -> None:
    """An error as the engine logs it: as a log line, and as a traceback on stderr."""
    frames = (f'"{file}", line 1750, in run_engine_core', f'"{file}", line 133, in __init__')
    log.complain("core.py:1750", "Traceback (most recent call last):\n" + "\n".join(f"  File {one}" for one in frames))
    log.complain("core.py:1750", error)
    log.traceback(frames, error)


def _load(options: Options, log: console.Console, server: socket.socket, workers: dict[int, socket.socket]) -> None:
    """Start the workers and lead them through the phases; raises Refused, also for a worker that died."""
    tensor = options.workers
    log.say(
        "core.py:133",
        f"Initializing a V1 LLM engine (v0.32.0) with config: model={options.model!r}, "
        f"max_seq_len={options.max_model_len}, tensor_parallel_size={tensor}, "
        f"enforce_eager={options.enforce_eager}, served_model_name={options.names[0]}",
    )
    for rank in range(tensor):
        pid, channel = _start_worker(options, rank, [server, *workers.values()])
        workers[pid] = channel
    do_phase(options, "engine")
    with _memory():
        if options.cards is not None:
            options.cards.check()
    _each_worker(list(workers.values()), b"weights")
    with _memory():
        if options.cards is not None:
            options.cards.take()
    do_phase(options, "memory")
    gib = options.sim.kv_tokens / 131072
    log.say("gpu_worker.py:412", f"Available KV cache memory: {gib:.2f} GiB")
    tokens, length = options.sim.kv_tokens, options.max_model_len
    most = tokens / length
    text = f"GPU KV cache size: {tokens:,} tokens, Maximum concurrency for {length:,} tokens per request: {most:.2f}x"
    log.say("kv_cache_utils.py:2327", text)
    if not options.enforce_eager:
        _each_worker(list(workers.values()), b"graph")
    do_phase(options, "warmup")


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    try:
        yield
    except OutOfMemory as error:
        raise Refused(str(error)) from None


def _each_worker(workers: list[socket.socket], order: bytes) -> None:
    """Let every worker do one thing, and wait for all of them."""
    for worker in workers:
        worker.sendall(order)
    for worker in workers:
        if worker.recv(16) != b"done":
            raise Refused(
                "RuntimeError: Worker failed with error, please check the stack trace above for the root cause"
            )


def _watch(options: Options, log: console.Console, server: socket.socket, workers: list[socket.socket]) -> int:
    """Live until something ends; the exit code."""
    drain_until: float | None = None
    while True:
        try:
            patience = None if drain_until is None else max(0.0, drain_until - time.monotonic())
            ready = select.select([server, *workers], [], [], patience)[0]
        except Terminated:
            log.say("core.py:1454", "[shutdown] EngineCore: trigger received signal=SIGTERM")
            if options.shutdown_timeout <= 0:
                return 0
            drain_until = time.monotonic() + options.shutdown_timeout
            continue
        if set(ready) & set(workers):
            log.complain(
                "multiproc_executor.py:289", "Worker proc VllmWorker-0 died unexpectedly, shutting down executor."
            )
            _report(log, CORE_FILES[1], "RuntimeError: Executor failed.")
            return 1
        if not ready:
            return 0
        order = server.recv(16)
        if order in ORDERS:
            server.sendall(_obey(options, order))
            continue
        if order != b"stop":  # killed: live on, as the real core does
            select.select(workers, [], [], options.sim.orphan)
        return 0


def _obey(options: Options, order: bytes) -> bytes:
    """Change the memory that this process has; the answer is DONE, or why that failed."""
    try:
        if options.cards is not None:
            (options.cards.sleep if order == b"sleep" else options.cards.take)()
    except OutOfMemory as error:
        return str(error).encode()
    return DONE


def _start_worker(options: Options, rank: int, to_close: list[socket.socket]) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        for other in to_close:
            other.close()
        _run(lambda: _worker(options, rank, theirs))
    theirs.close()
    return pid, ours


def _worker(options: Options, rank: int, core: socket.socket) -> int:
    """A worker: do what the core says, until it ends."""
    _obey_signals(options)
    die_with_parent()
    set_title("VLLM::Worker" if options.workers == 1 else f"VLLM::Worker_TP{rank}")
    log = console.Console("Worker" if options.workers == 1 else f"Worker_TP{rank}")
    try:
        while order := core.recv(16):
            if order == b"weights":
                _load_weights(options, log, first=rank == 0)
            else:
                _capture_graphs(options, log)
            core.sendall(b"done")
    except Refused as error:
        _report(log, CORE_FILES[1], str(error))
        return 1
    except OSError:
        return 1
    return 0


def _load_weights(options: Options, log: console.Console, *, first: bool) -> None:
    started = time.monotonic()
    log.say("gpu_model_runner.py:5012", f"Starting to load model {options.model}...")
    do_phase(options, "weights", _show_progress if first else time.sleep)
    took = time.monotonic() - started
    if first:
        log.say("default_loader.py:501", f"Loading weights took {took:.2f} seconds")
    log.say("gpu_model_runner.py:5094", f"Model loading took 0.00 GiB memory and {took:.6f} seconds")


def _show_progress(seconds: float) -> None:
    """Load four shards that are not there."""
    for done in range(5):
        console.progress(done, 4, seconds * done / 4)
        if done < 4:
            time.sleep(seconds / 4)


def _capture_graphs(options: Options, log: console.Console) -> None:
    started = time.monotonic()
    do_phase(options, "graph")
    log.say(
        "gpu_model_runner.py:6113", f"Graph capturing finished in {time.monotonic() - started:.0f} secs, took 0.00 GiB"
    )
