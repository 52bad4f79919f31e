"""From the command line to a server that listens: the start of the server process.

Nothing here needs an event loop, and asyncio is not even imported before the engine's processes have been forked:
they stay small. The order of what is done and said is that of the real server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn

from .console import Console
from .options import Options
from .processes import EngineCore, Refused, Terminated, do_phase, start_engine, terminate

API_FILE = "vllm/entrypoints/openai/api_server.py"


def serve(options: Options) -> int:
    """Be the server until it ends; its exit code."""
    if options.sim.exit_now is not None:
        return options.sim.exit_now
    if options.sim.ignore_sigterm != "never":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log = Console("APIServer")
    log.say("api_utils.py:347", f"vLLM (simulated), version 0.32.0, model {options.model}")
    log.say("api_utils.py:286", f"non-default args: {options.echo}")
    try:
        do_phase(options, "start")
        listener = _bind(options)
        do_phase(options, "config")
    except (Refused, OSError) as error:
        text = str(error) if isinstance(error, Refused) else f"OSError: {error}"
        log.traceback((f'"{API_FILE}", line 700, in run_server',), text)
        return options.sim.exit_code
    log.say("model.py:733", "Resolved architecture: SimulatedForCausalLM")
    log.say("model.py:2152", f"Using max model len {options.max_model_len}")
    return _with_engine(options, log, listener)


def _with_engine(options: Options, log: Console, listener: socket.socket) -> int:
    """Load the engine, then serve. SIGTERM on the way ends both."""
    if options.sim.ignore_sigterm == "never":
        signal.signal(signal.SIGTERM, terminate)
    engine = start_engine(options, listener)
    try:
        from . import server

        if not engine.wait_ready():
            return _engine_failed(options, log, engine)
        if options.sim.ignore_sigterm == "loading":
            signal.signal(signal.SIGTERM, terminate)
        return server.run(options, log, listener, engine)
    except (Terminated, KeyboardInterrupt):
        engine.stop(patience=0.0)
        _end_by(signal.SIGTERM)


def _engine_failed(options: Options, log: Console, engine: EngineCore) -> int:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(engine.pid, 0)
    text = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    )
    log.traceback((f'"{API_FILE}", line 700, in run_server',), text)
    return options.sim.exit_code


def _bind(options: Options) -> socket.socket:
    """The socket, bound but not listening: clients are refused until the engine is ready. Raises OSError."""
    if options.uds:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.uds)
        return listener
    host = options.host or ""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, options.port))
    return listener


def _end_by(number: signal.Signals) -> NoReturn:
    """End as a process does that the signal ended."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
