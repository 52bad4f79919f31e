"""The worker process: its sockets, its loop, its signals, its end.

Rules: uvloop carries asyncio, Tornado's IOLoop sits on it. SIGTERM and SIGINT drain: no new connections, answers close
theirs, streams go on until `drain_timeout`, then they are cut; the counters are told a last time, and the exit code is
0. What was accepted before has its answer; what waits in the kernel's queue is left to the other workers, or the next.
Nothing here waits for a plugin: without any, the worker serves.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from tornado.ioloop import PeriodicCallback

from vllm_circus.bus.inbox import Pusher
from vllm_circus.bus.messages import HEARTBEAT, TOPIC_COUNTS, TOPIC_MODELS, CountsMessage, ModelsMessage
from vllm_circus.bus.subscribe import Subscriber
from vllm_circus.config.models import Limits
from vllm_circus.plan.types import Endpoint, Plan
from vllm_circus.proxy.control.app import ControlServer
from vllm_circus.proxy.control.outlook import Outlook
from vllm_circus.proxy.descriptors import allowed_files
from vllm_circus.proxy.gate import Gate, Listener
from vllm_circus.proxy.glance import IS_COMPILED
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.output import Handler, Output
from vllm_circus.proxy.planfile import PlanFile
from vllm_circus.proxy.relay import Relay, log_line
from vllm_circus.proxy.sockets import inherited_socket
from vllm_circus.proxy.tls import LOOK_SECONDS, Certificates
from vllm_circus.proxy.wishes import WISH_SECONDS, Wishes

if TYPE_CHECKING:
    from vllm_circus.proxy.exchange import Exchange

log = logging.getLogger(__name__)

#: Seconds between the cut of what is left and the end.
_LAST_WORDS = 0.2


def serve(plan: Plan, keys: Keys, descriptor: int, unix_descriptor: int | None = None, *, digest: str) -> int:
    """Run a worker until it is told to end; returns its exit code.

    `descriptor` is the public port's listening socket, which speaks TLS where the plan has it so; `unix_descriptor` is
    that of a unix socket, which never does. `digest` names the file that the plan was read from. Raises CircusError
    before it serves.
    """
    proxy = plan.proxy
    certificates = None
    if proxy.tls_certificate is not None and proxy.tls_key is not None:
        certificates = Certificates(Path(proxy.tls_certificate), Path(proxy.tls_key))
    listeners = [Listener(inherited_socket(descriptor), certificates)]
    if unix_descriptor is not None:
        listeners.append(Listener(inherited_socket(unix_descriptor)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(plan, keys, listeners, digest))


async def _serve(plan: Plan, keys: Keys, listeners: list[Listener], digest: str) -> int:
    output = Output()
    logging.basicConfig(level=logging.INFO, handlers=[Handler(output)], force=True)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    worker = Worker(plan, keys, listeners, output, PlanFile(plan, digest))
    try:
        worker.start()
        await worker.ended.wait()
    finally:
        worker.close()
        output.flush()
    return 0


def execution() -> str:
    """How the relay of this installation runs: `compiled` or `interpreted`."""
    return "compiled" if IS_COMPILED else "interpreted"


class Worker:
    """One proxy process. `ended` is set when it has drained."""

    def __init__(self, plan: Plan, keys: Keys, listeners: list[Listener], output: Output, plan_file: PlanFile) -> None:
        self.ended = asyncio.Event()
        self._plan = plan
        self._plan_file = plan_file
        self._loop = asyncio.get_running_loop()
        self._output = output
        path = plan.instance.run_dir / f"proxy-{os.getpid()}.sock"
        clients = plan.proxy.limits.max_connections
        control = Endpoint("localhost", 0, str(path))
        self.relay = Relay(plan, keys, loop=self._loop, control=control, files=allowed_files(clients))
        self._outlook = Outlook(plan, self.relay)
        self._control = ControlServer(self._outlook, path)
        self._gate = Gate(self.relay, listeners, clients)
        self._pusher = Pusher(plan.instance.stats_inbox)
        self._wishes = Wishes(plan.instance.commands, self.relay.clock)
        self._subscribers: list[Subscriber] = []
        self._sweeper = PeriodicCallback(self._sweep, _sweep_interval(plan.proxy.limits))
        self._timers = [
            self._sweeper,
            PeriodicCallback(self._push, HEARTBEAT * 1000),
            PeriodicCallback(self._wish, WISH_SECONDS * 1000),
            *(PeriodicCallback(it.certificates.look, LOOK_SECONDS * 1000) for it in listeners if it.certificates),
        ]

    def start(self) -> None:
        """Begin to serve."""
        self._follow(self._plan)
        self.relay.on_wish = self._wishes.say
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
        self._gate.open()
        self._push()
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again
        log.info("worker %d serves %d models, %s", os.getpid(), len(self._plan.models), execution())
        self._output.flush()

    def close(self) -> None:
        """Cut what is left, and tell the counters a last time."""
        for timer in self._timers:
            timer.stop()
        for subscriber in self._subscribers:
            subscriber.close()
        self._gate.close()
        self._gate.cut()
        self.relay.close()
        self._control.close()
        self._push(leaving=True)
        self._pusher.close()
        self._wishes.close()

    def _take_models(self, message: ModelsMessage) -> None:
        new = self._plan_file.read_again(message.plan)
        if new is not None:
            self._take_plan(*new, message)
        if self.relay.take_models(message):
            self._push()

    def _take_plan(self, plan: Plan, keys: Keys, message: ModelsMessage) -> None:
        """Go by it from now on, without anybody noticing."""
        self._plan = plan
        self.relay.take_plan(plan, keys, message)
        self._outlook.take_plan(plan)
        clients = plan.proxy.limits.max_connections
        self.relay.descriptors.take_limit(allowed_files(clients))
        self._gate.take_cap(clients)
        self._sweeper.callback_time = _sweep_interval(plan.proxy.limits)
        self._follow(plan)
        log.info("worker %d goes by a new plan with %d models", os.getpid(), len(plan.models))

    def _follow(self, plan: Plan) -> None:
        self.relay.on_finished = self._log_request if plan.proxy.request_logging else None

    def _take_counts(self, message: CountsMessage) -> None:
        self._outlook.counts = message

    def _push(self, *, leaving: bool = False) -> None:
        relay = self.relay
        self._pusher.push(
            relay.counters.message(sequence=relay.table.sequence, connections=len(relay.connections), leaving=leaving)
        )

    def _wish(self) -> None:
        self._wishes.repeat(self.relay.fleet.wishes())

    def _sweep(self) -> None:
        self.relay.sweep()
        self._output.flush()
        if self.relay.draining and not self.relay.connections and not self._gate.arriving:
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


def _sweep_interval(limits: Limits) -> float:
    """Milliseconds between two looks at time limits."""
    return max(50.0, min(limits.header_timeout, limits.keep_alive, 2.0) * 250)
