"""The worker process: its socket, its loop, its signals, its end.

Rules: uvloop carries asyncio, Tornado's IOLoop sits on it. Accepting pauses above the connection cap, which stays
below the limit of open files. SIGTERM and SIGINT drain: no new connections, answers close theirs, streams go on until
`drain_timeout`, then they are cut; the counters are told a last time, and the exit code is 0. Nothing here waits for a
plugin: without any, the worker serves.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from contextlib import suppress

import uvloop
from tornado.ioloop import PeriodicCallback

from vllm_circus.bus.inbox import Pusher
from vllm_circus.bus.messages import HEARTBEAT, TOPIC_COUNTS, TOPIC_MODELS, CountsMessage, ModelsMessage
from vllm_circus.bus.subscribe import Subscriber
from vllm_circus.plan.types import Endpoint, Plan
from vllm_circus.proxy.control.app import ControlServer
from vllm_circus.proxy.control.outlook import Outlook
from vllm_circus.proxy.downstream import Downstream
from vllm_circus.proxy.exchange import Exchange
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.output import Handler, Output
from vllm_circus.proxy.relay import Relay, log_line
from vllm_circus.proxy.sockets import inherited_socket

log = logging.getLogger(__name__)

#: Descriptors that are not connections: sockets of the bus, files, libraries.
_RESERVED_FILES = 64
_BACKLOG = 1024
#: Seconds between the cut of what is left and the end.
_LAST_WORDS = 0.2


def serve(plan: Plan, keys: Keys, descriptor: int) -> int:
    """Run a worker until it is told to end; returns its exit code. Raises CircusError before it serves."""
    listener = inherited_socket(descriptor)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(plan, keys, listener))


async def _serve(plan: Plan, keys: Keys, listener: socket.socket) -> int:
    output = Output()
    logging.basicConfig(level=logging.INFO, handlers=[Handler(output)], force=True)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    worker = Worker(plan, keys, listener, output)
    try:
        await worker.start()
        await worker.ended.wait()
    finally:
        worker.close()
        output.flush()
    return 0


class Worker:
    """One proxy process. `ended` is set when it has drained."""

    def __init__(self, plan: Plan, keys: Keys, listener: socket.socket, output: Output) -> None:
        self.ended = asyncio.Event()
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._output = output
        path = plan.instance.run_dir / f"proxy-{os.getpid()}.sock"
        self.relay = Relay(plan, keys, loop=self._loop, control=Endpoint("localhost", 0, str(path)))
        self._outlook = Outlook(plan, self.relay)
        self._control = ControlServer(self._outlook, path)
        self._gate = Gate(self.relay, listener, _connection_cap(plan.proxy.limits.max_connections))
        self._pusher = Pusher(plan.instance.stats_inbox)
        self._subscribers: list[Subscriber] = []
        shortest = min(plan.proxy.limits.header_timeout, plan.proxy.limits.keep_alive, 2.0)
        self._timers = [
            PeriodicCallback(self._sweep, max(50.0, shortest * 250)),
            PeriodicCallback(self._push, HEARTBEAT * 1000),
        ]

    async def start(self) -> None:
        """Begin to serve."""
        if self._plan.proxy.request_logging:
            self.relay.on_finished = self._log_request
        self._control.start()
        instance = self._plan.instance
        self._subscribers = [
            Subscriber(instance.health_bus, [TOPIC_MODELS], self._take_models),
            Subscriber(instance.stats_bus, [TOPIC_COUNTS], self._take_counts),
        ]
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        for timer in self._timers:
            timer.start()
        await self._gate.open()
        self._push()
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again
        log.info("worker %d serves %d models", os.getpid(), len(self._plan.models))
        self._output.flush()

    def close(self) -> None:
        """Cut what is left, and tell the counters a last time."""
        for timer in self._timers:
            timer.stop()
        for subscriber in self._subscribers:
            subscriber.close()
        self._gate.close()
        self.relay.close()
        self._control.close()
        self._push(leaving=True)
        self._pusher.close()

    def _take_models(self, message: ModelsMessage) -> None:
        if self.relay.take_models(message):
            self._push()

    def _take_counts(self, message: CountsMessage) -> None:
        self._outlook.counts = message

    def _push(self, *, leaving: bool = False) -> None:
        relay = self.relay
        self._pusher.push(
            relay.counters.message(sequence=relay.table.sequence, connections=len(relay.connections), leaving=leaving)
        )

    def _sweep(self) -> None:
        self.relay.sweep()
        self._gate.check()
        self._output.flush()
        if self.relay.draining and not self.relay.connections:
            self.ended.set()

    def _log_request(self, exchange: Exchange, cut: bool) -> None:
        self._output.line(log_line(exchange, cut=cut, now=self.relay.clock()))

    def _stop(self) -> None:
        """Begin to drain; a second signal ends at once."""
        if self.relay.draining:
            self.ended.set()
            return
        log.info("worker %d drains %d connections", os.getpid(), len(self.relay.connections))
        self._gate.close()
        self.relay.drain()
        self._loop.call_later(self._plan.proxy.drain_timeout, self._end)
        self._sweep()

    def _end(self) -> None:
        """Cut what has not ended by itself, and leave the last words a moment to go out."""
        self.relay.end()
        self._loop.call_later(_LAST_WORDS, self.ended.set)


class Gate:
    """Accepts connections, but never more than the cap at a time.

    The listening socket is shared with the other workers and belongs to circusd: each pause closes a copy of it.
    """

    def __init__(self, relay: Relay, listener: socket.socket, cap: int) -> None:
        self._relay = relay
        self._listener = listener
        self._cap = cap
        self._server: asyncio.AbstractServer | None = None
        self._shut = False
        self._opening: asyncio.Task[None] | None = None
        relay.on_crowd = self._crowd

    async def open(self) -> None:
        """Accept. What goes wrong is told, and tried again when the time limits are looked at next."""
        try:
            copy = self._listener.dup()
            server = await self._relay.loop.create_server(lambda: Downstream(self._relay), sock=copy, backlog=_BACKLOG)
        except OSError as error:
            log.error("no connections can be accepted: %s", error)  # noqa: TRY400 - its text says it all
            return
        finally:
            self._opening = None
        if self._shut or len(self._relay.connections) >= self._cap:
            server.close()
        else:
            self._server = server

    def check(self) -> None:
        """Accept again if that is due."""
        self._crowd(len(self._relay.connections))

    def close(self) -> None:
        """Accept no more."""
        self._shut = True
        self._pause()
        self._listener.close()

    def _pause(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _crowd(self, connections: int) -> None:
        if connections >= self._cap:
            if self._server is not None:
                log.warning("%d connections are open, the most allowed: accepting pauses", connections)
            self._pause()
        elif self._server is None and not self._shut and self._opening is None and connections <= self._cap * 0.95:
            self._opening = self._relay.loop.create_task(self.open())


def _connection_cap(wanted: int) -> int:
    """How many clients this process may have: each may need a connection to an engine as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    cap = max(1, (soft - _RESERVED_FILES) // 2)
    log.warning("only %d files may be open: connections are limited to %d instead of %d", soft, cap, wanted)
    return cap
