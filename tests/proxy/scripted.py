"""Both ends of the relay, played by the test: literal bytes in and out, on real sockets."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

DEADLINE = 10.0


def until(condition: Callable[[], object], timeout: float = DEADLINE) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


class Peer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with the mark; fails at the end of the connection."""
        while mark not in self.rest:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"the connection ended after {self.rest!r}")
            self.rest += data
        end = self.rest.index(mark) + len(mark)
        found, self.rest = self.rest[:end], self.rest[end:]
        return found

    def read_exactly(self, size: int) -> bytes:
        while len(self.rest) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"the connection ended after {self.rest!r}")
            self.rest += data
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def read_all(self) -> bytes:
        """Everything up to the end of the connection. Raises ConnectionResetError where it is a reset."""
        while data := self.sock.recv(65536):
            self.rest += data
        found, self.rest = self.rest, b""
        return found

    def ended(self, timeout: float = DEADLINE) -> bool:
        """Whether the other side ends the connection in time."""
        self.sock.settimeout(timeout)
        try:
            while data := self.sock.recv(65536):
                self.rest += data
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(DEADLINE)
        return True

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        with suppress(OSError):  # a thread that reads here is woken by this alone
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@dataclass
class Message:
    """A request or response as it was on the wire."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    raw_body: bytes

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


def read_message(peer: Peer, *, head_only: bool = False) -> Message:
    head = peer.read_until(b"\r\n\r\n")[:-4]
    start, *lines = head.split(b"\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    message = Message(start, fields, b"", b"")
    status = re.match(rb"HTTP/1\.1 (\d+)", start)
    if head_only or (status and (status[1] in {b"204", b"304"} or status[1].startswith(b"1"))):
        return message
    if message.get(b"transfer-encoding") == b"chunked":
        while True:
            line = peer.read_until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            data = peer.read_exactly(size + 2)
            message.body += data[:-2]
            message.raw_body += line + data
        message.raw_body += line
        while (line := peer.read_until(b"\r\n")) != b"\r\n":
            message.raw_body += line
        message.raw_body += line
    elif (length := message.get(b"content-length")) is not None:
        message.body = message.raw_body = peer.read_exactly(int(length))
    elif status:
        message.body = message.raw_body = peer.read_all()
    return message


def code_of(response: Message) -> str:
    """The code of an error of the proxy's own, of which header and body agree."""
    code: str = json.loads(response.body)["error"]["code"]
    assert response.get(b"x-vllm-circus-error") == code.encode()
    return code


Script = Callable[["Backend", Peer], None]


class Backend:
    """An engine that does what the test says: `script` is run for each connection in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[Peer] = []
        self.requests: list[Message] = []
        self.script: Script = serve_always(ok(b'{"ok":true}'))
        self.serve_on(self.listener)

    def serve_on(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            peer = Peer(sock)
            self.connections.append(peer)
            threading.Thread(target=self._run, args=(peer,), daemon=True).start()

    def _run(self, peer: Peer) -> None:
        with suppress(OSError, EOFError):  # the proxy hung up, or the test did
            self.script(self, peer)

    def read_request(self, peer: Peer) -> Message:
        message = read_message(peer)
        self.requests.append(message)
        return message

    def answers(self, data: bytes) -> None:
        """Answer every request with these bytes."""
        self.script = serve_always(data)
        self.forget()

    def plays(self, script: Script) -> None:
        self.script = script
        self.forget()

    def forget(self) -> None:
        """Close what is open, so that the next request comes on a connection of its own."""
        for peer in self.connections:
            peer.close()
        self.connections.clear()
        self.requests.clear()

    def close(self) -> None:
        with suppress(OSError):  # wakes the thread that accepts
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.forget()


def serve_always(data: bytes) -> Script:
    def script(backend: Backend, peer: Peer) -> None:
        while True:
            backend.read_request(peer)
            peer.send(data)

    return script


def ok(body: bytes, *lines: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"content-type: application/json", *lines, b"content-length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def event(number: int) -> bytes:
    return chunk(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number)


DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"Host: proxy", b"Content-Type: application/json", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


def get(path: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), b"Host: localhost", *lines]) + b"\r\n\r\n"
