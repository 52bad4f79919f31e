"""Typed clients of circusd's command socket, one for plain code and one for a running asyncio loop.

circus's protocol: a DEALER socket sends one JSON object, `{"id", "command", "properties"}`, and gets one back with the
same id. `status` is `ok` or `error`; `errno` 5 with "already running" means that another command holds circus's one
lock, which passes. circusd answers nobody while a hook or a spawn runs, so silence is given `timeout` seconds.

Rule: nothing is imported here but zmq, and that late: every command of the command line comes through this module.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

from vllm_circus.errors import CircusError, NotRunning

if TYPE_CHECKING:
    from types import TracebackType

    import zmq
    import zmq.asyncio

Answer = dict[str, Any]

_COMMAND_ERROR = 5  # circus.commands.errors
_BUSY = ("arbiter is already running", "arbiter is restarting")
_PAUSE = 0.05


class Client:
    """A blocking client. Not to be shared between threads; usable as a context manager.

    `timeout`, in seconds, is how long an answer may take, and for how long a lock conflict is tried again.
    """

    def __init__(self, endpoint: str, *, timeout: float = 5.0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None and self._context is not None:
            self._socket.close(linger=0)
            self._context.term()
        self._socket = self._context = None

    def status(self) -> dict[str, str]:
        """What each watcher is: `active`, `starting`, `stopping` or `stopped`. Raises NotRunning."""
        return _statuses(self.call("status"))

    def pids(self, watcher: str) -> list[int]:
        """The processes of a watcher. Raises NotRunning; CircusError for a watcher that there is not."""
        return _pids(self.call("list", name=watcher))

    def start(self, watcher: str) -> list[int]:
        """Start a watcher; returns the pids that are new, none if it ran already or could not be started."""
        return _started(self.call("start", name=watcher, match="simple", waiting=True))

    def stop(self, watcher: str) -> None:
        """Begin to stop a watcher: SIGTERM, after its grace time SIGKILL. Holds circus's lock until it has stopped."""
        self.call("stop", name=watcher, match="simple")

    def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
        """Signal the processes of a watcher, or one of them. Needs no lock."""
        self.call("signal", name=watcher, signum=int(signum), **({} if pid is None else {"pid": pid}))

    def quit(self) -> None:
        """Begin to stop everything, circusd included."""
        self.call("quit")

    def call(self, command: str, **properties: object) -> Answer:
        """Send any command of circus and return its answer. Raises NotRunning, or CircusError with circus's reason."""
        deadline = time.monotonic() + self._timeout
        while True:
            _knock(self._endpoint)
            answer = self._exchange(command, properties)
            if not _busy(answer) or time.monotonic() > deadline:
                return _accepted(command, answer)
            time.sleep(_PAUSE)

    def _exchange(self, command: str, properties: dict[str, object]) -> Answer:
        call_id, message = _message(command, properties)
        deadline = time.monotonic() + self._timeout
        channel = self._connect()
        channel.send(message)
        while (left := deadline - time.monotonic()) > 0 and channel.poll(int(left * 1000) + 1):
            answer = _read(channel.recv(), call_id)
            if answer is not None:
                return answer
        self.close()
        raise _silent(self._endpoint, self._timeout)

    def _connect(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            import zmq

            self._context = zmq.Context()
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.connect(self._endpoint)
        return self._socket


class AsyncClient:
    """The same for the asyncio loop that runs when it is first used. Calls queue up: one is under way at a time."""

    def __init__(self, endpoint: str, *, timeout: float = 5.0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None and self._context is not None:
            self._socket.close(linger=0)
            self._context.term()
        self._socket = self._context = None

    async def status(self) -> dict[str, str]:
        """What each watcher is: `active`, `starting`, `stopping` or `stopped`. Raises NotRunning."""
        return _statuses(await self.call("status"))

    async def pids(self, watcher: str) -> list[int]:
        """The processes of a watcher. Raises NotRunning; CircusError for a watcher that there is not."""
        return _pids(await self.call("list", name=watcher))

    async def start(self, watcher: str) -> list[int]:
        """Start a watcher; returns the pids that are new, none if it ran already or could not be started."""
        return _started(await self.call("start", name=watcher, match="simple", waiting=True))

    async def stop(self, watcher: str) -> None:
        """Begin to stop a watcher: SIGTERM, after its grace time SIGKILL. Holds circus's lock until it has stopped."""
        await self.call("stop", name=watcher, match="simple")

    async def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
        """Signal the processes of a watcher, or one of them. Needs no lock."""
        await self.call("signal", name=watcher, signum=int(signum), **({} if pid is None else {"pid": pid}))

    async def refit(self) -> None:
        """Have the watchers of models agree with circus.ini, as far as they are at rest."""
        await self.call("refit")

    async def quit(self) -> None:
        """Begin to stop everything, circusd included."""
        await self.call("quit")

    async def call(self, command: str, **properties: object) -> Answer:
        """Send any command of circus and return its answer. Raises NotRunning, or CircusError with circus's reason."""
        async with self._turn:
            deadline = time.monotonic() + self._timeout
            while True:
                _knock(self._endpoint)
                answer = await self._exchange(command, properties)
                if not _busy(answer) or time.monotonic() > deadline:
                    return _accepted(command, answer)
                await asyncio.sleep(_PAUSE)

    async def _exchange(self, command: str, properties: dict[str, object]) -> Answer:
        call_id, message = _message(command, properties)
        deadline = time.monotonic() + self._timeout
        channel = self._connect()
        await channel.send(message)
        while (left := deadline - time.monotonic()) > 0 and await channel.poll(int(left * 1000) + 1):
            answer = _read(await channel.recv(), call_id)
            if answer is not None:
                return answer
        self.close()
        raise _silent(self._endpoint, self._timeout)

    def _connect(self) -> zmq.asyncio.Socket:
        if self._socket is None:
            import zmq
            import zmq.asyncio

            self._context = zmq.asyncio.Context()
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.connect(self._endpoint)
        return self._socket


def _message(command: str, properties: dict[str, object]) -> tuple[str, bytes]:
    call_id = uuid.uuid4().hex
    return call_id, json.dumps({"id": call_id, "command": command, "properties": properties}).encode()


def _read(data: bytes, call_id: str) -> Answer | None:
    """The answer, or None if it belongs to an earlier call that was given up."""
    answer = json.loads(data)
    return cast("Answer", answer) if isinstance(answer, dict) and answer.get("id") == call_id else None


def _busy(answer: Answer) -> bool:
    return answer.get("errno") == _COMMAND_ERROR and str(answer.get("reason", "")).startswith(_BUSY)


def _accepted(command: str, answer: Answer) -> Answer:
    if answer.get("status") == "error":
        raise CircusError(f"circus refused `{command}`: {answer.get('reason')}")
    return answer


def _statuses(answer: Answer) -> dict[str, str]:
    return {str(name): str(status) for name, status in answer["statuses"].items()}


def _pids(answer: Answer) -> list[int]:
    return [int(pid) for pid in answer["pids"]]


def _started(answer: Answer) -> list[int]:
    return [int(pid) for pid in answer.get("info", answer).get("started", ())]


def _knock(endpoint: str) -> None:
    """Fail at once where nobody listens: ZeroMQ would wait for somebody to come. Raises NotRunning.

    Never waits: a listener that has no room for one more is there, and that is all that is asked.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except BlockingIOError:
            return
        except OSError as error:
            raise NotRunning(f"nobody answers at {endpoint}: {error.strerror}") from error


def _silent(endpoint: str, timeout: float) -> NotRunning:
    return NotRunning(f"circusd does not answer at {endpoint} within {timeout:g} s")
