"""The server from ready to its end: what it listens to, and how it stops.

It ends by SIGTERM (at once, or when its requests are finished), by the death of its engine (exit code 0, as the
real one), or by a fault that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import uvloop

from . import console
from .app import App
from .console import Console
from .engine import Engine, EngineDead
from .faults import ActiveFaults
from .http import Connection, Settings
from .metrics import Metrics
from .options import Options
from .processes import DONE, EngineCore
from .serving import State
from .text import Answer

ANY = "0.0.0.0"  # noqa: S104 - what the log says when no host was given
BACKLOG = 2048
STATISTICS_SECONDS = 10.0
_FOLLOW_SECONDS = 0.2


def run(options: Options, log: Console, listener: socket.socket, core: EngineCore) -> int:
    """Serve until the end; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Server(options, log, core).run(listener))


class _Server:
    def __init__(self, options: Options, log: Console, core: EngineCore) -> None:
        self._options = options
        self._console = log
        self._core = core
        self._ended = asyncio.Event()
        self._signalled = False
        self._ordering = asyncio.Lock()
        self._answer: asyncio.Future[bytes] | None = None

    async def run(self, listener: socket.socket) -> int:
        """Listen, serve, stop."""
        loop = asyncio.get_running_loop()
        state = self._state()
        app = App(state)
        settings = Settings(app.handle, self._options.keep_alive, self._options.access_log)
        if self._options.sim.ignore_sigterm != "always":
            loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        loop.add_signal_handler(signal.SIGINT, self._on_signal)
        loop.add_reader(self._core.channel, self._on_core, state)
        # Not create_unix_server, whose server removes the file of its socket at the end: the real one leaves it behind.
        server = await loop.create_server(lambda: Connection(settings), sock=listener, backlog=BACKLOG)
        self._announce(app)
        for fault in self._options.sim.faults:
            state.set_fault(fault)
        statistics = loop.create_task(self._statistics(state))
        following = loop.create_task(self._follow_core(state))
        await self._ended.wait()
        loop.remove_reader(self._core.channel)
        await (self._stop(state) if self._signalled else asyncio.sleep(self._options.sim.death))
        statistics.cancel()
        following.cancel()
        server.close()
        await self._close(settings)
        return 0

    def _state(self) -> State:
        sim = self._options.sim
        metrics = Metrics(self._options.names[0])
        engine = Engine(
            metrics,
            first_token=sim.first_token,
            per_token=sim.per_token,
            at_once=self._options.max_num_seqs,
            kv_tokens=sim.kv_tokens,
        )
        return State(
            options=self._options,
            engine=engine,
            metrics=metrics,
            faults=ActiveFaults(),
            console=self._console,
            kill_engine=self._core.kill,
            order=self._order,
            answer=Answer(self._options.names[0]),
            loras={lora.name: lora for lora in self._options.loras},
        )

    def _on_signal(self) -> None:
        if not self._signalled:
            self._console.say("launcher.py:254", "[shutdown] API server: shutdown triggered")
        self._signalled = True
        self._ended.set()

    async def _order(self, order: bytes) -> str:
        """Have the engine core change the memory that it has; why it failed, or nothing. Raises EngineDead."""
        async with self._ordering:
            self._answer = asyncio.get_running_loop().create_future()
            try:
                self._core.channel.sendall(order)
                answer = await self._answer
            except OSError:
                raise EngineDead from None
            return "" if answer == DONE else answer.decode()

    def _on_core(self, state: State) -> None:
        """The engine core has answered an order. Or it has gone: /health says 503 from now on, and the server ends."""
        answer = b""
        with contextlib.suppress(OSError):  # it was killed before it read an order
            answer = self._core.channel.recv(4096)
        waiting = None if self._answer is None or self._answer.done() else self._answer
        if answer:
            if waiting is not None:
                waiting.set_result(answer)
            return
        if waiting is not None:
            waiting.set_exception(EngineDead())
        asyncio.get_running_loop().remove_reader(self._core.channel)
        text = "Engine core proc EngineCore died unexpectedly, shutting down client."
        self._console.complain("core_client.py:700", text)
        state.engine.die()
        self._ended.set()

    def _announce(self, app: App) -> None:
        options = self._options
        for lora in options.loras:
            self._console.say("serving.py:226", f"Loaded new LoRA adapter: name '{lora.name}', path '{lora.path}'")
        where = f"unix:{options.uds}" if options.uds else f"http://{options.host or ANY}:{options.port}"
        self._console.say("entry.py:140", f"Starting vLLM server on {where}")
        self._console.say("launcher.py:186", "Available routes are:")
        for path, methods in app.table.items():
            self._console.say("launcher.py:195", f"Route: {path}, Methods: {', '.join(methods)}")
        console.uvicorn(f"Started server process [{os.getpid()}]")
        console.uvicorn("Waiting for application startup.")
        console.uvicorn("Application startup complete.")

    async def _follow_core(self, state: State) -> None:
        """A core that was stopped (SIGSTOP) makes no step, though its server answers: so does the real one."""
        was = False
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            if (stopped := self._core.is_stopped()) != was:
                (state.engine.freeze if stopped else state.engine.thaw)("stopped")
                was = stopped

    async def _statistics(self, state: State) -> None:
        """Log the throughput while there is some, and once after."""
        before = (0, 0)
        busy = False
        while True:
            await asyncio.sleep(STATISTICS_SECONDS)
            state.engine.observe()
            counters, gauges = state.metrics.counters, state.metrics.gauges
            now = (counters["prompt_tokens_total"], counters["generation_tokens_total"])
            if busy or now != before or state.engine.load:
                prompt, made = ((new - old) / STATISTICS_SECONDS for new, old in zip(now, before, strict=True))
                self._console.say(
                    "loggers.py:335",
                    f"Engine 000: Avg prompt throughput: {prompt:.1f} tokens/s, "
                    f"Avg generation throughput: {made:.1f} tokens/s, "
                    f"Running: {gauges['num_requests_running']:.0f} reqs, "
                    f"Waiting: {gauges['num_requests_waiting']:.0f} reqs, "
                    f"GPU KV cache usage: {100 * gauges['kv_cache_usage_perc']:.1f}%, Prefix cache hit rate: 0.0%",
                )
            busy = now != before
            before = now

    async def _stop(self, state: State) -> None:
        """End the engine: at once, or when the requests that it has are finished."""
        loop = asyncio.get_running_loop()
        timeout, sim = self._options.shutdown_timeout, self._options.sim
        mode = "drain" if timeout > 0 else "abort"
        text = f"[shutdown] API server: stopping engine client mode={mode} timeout={timeout:g}s"
        self._console.say("launcher.py:270", text)
        began = loop.time()
        shortest = sim.exit
        if timeout > 0:
            state.draining = True
            shortest = sim.exit if state.engine.load else sim.idle_exit
            loop.add_reader(self._core.channel, self._on_core, state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await state.engine.empty()
            loop.remove_reader(self._core.channel)
        state.engine.die()
        await asyncio.sleep(max(sim.exit, began + shortest - loop.time()) if timeout > 0 else shortest)
        self._console.say("launcher.py:279", "[shutdown] API server: engine client stopped")

    async def _close(self, settings: Settings) -> None:
        """Close what is open, give answers a moment to be sent, and let no child outlive us."""
        self._core.stop(patience=1.0)
        self._console.say("launcher.py:304", "[shutdown] API server: shutting down FastAPI HTTP server")
        console.uvicorn("Shutting down")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await settings.close()
        console.uvicorn("Waiting for application shutdown.")
        console.uvicorn("Application shutdown complete.")
