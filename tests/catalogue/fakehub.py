"""A small hub on 127.0.0.1: what huggingface_hub asks for when it looks up, searches and downloads a model."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "c" * 40
REPOSITORY = "org/tiny"
_REFUSED = {
    "missing": (404, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "revision": (404, "RevisionNotFound"),
    "broken": (500, ""),
    "busy": (418, ""),
}


@dataclass(frozen=True)
class Asked:
    """One request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeHub:
    """What it has, how it misbehaves, and what was asked of it.

    Attributes:
        refuse: how every question is refused; one of `_REFUSED`.
        gate: the same for files alone.
        stall: names of files of which only half comes, until `go_on` is set.
        cut: names of files whose connection is cut once after half of them.
        stalled: set when half of such a file is on its way.
    """

    files: dict[str, bytes]
    refuse: str = ""
    gate: str = ""
    stall: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    go_on: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """The files that were asked for."""
        got = (asked.path for asked in self.asked if asked.method == "GET" and "/resolve/" in asked.path)
        return sorted(path.rpartition(f"/{COMMIT}/")[2] for path in got)

    def tokens(self) -> set[str]:
        """What was presented as a key where the model was asked for; the library also asks for other things."""
        return {asked.headers.get("authorization", "") for asked in self.asked if REPOSITORY in asked.path}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub on a free port, for as long as the block lasts."""
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked is gone."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append(Asked(self.command, parts.path, headers))
        is_file = "/resolve/" in parts.path
        if refused := self.hub.refuse or (self.hub.gate if is_file else ""):
            status, code = _REFUSED[refused]
            self.reply(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "no"} if code else {})
        elif is_file:
            self.file(parts.path.partition(f"/resolve/{COMMIT}/")[2], body=body)
        else:
            self.reply(200, json.dumps(self.told(parts.path, parse_qs(parts.query))).encode(), {})

    def told(self, path: str, query: dict[str, list[str]]) -> object:
        if path == "/api/models":
            found = [REPOSITORY, "org/other"]
            wanted = query.get("search", [""])[0]
            return [_model(name) for name in found if wanted in name]
        if "/tree/" in path:
            return [_entry(name, data) for name, data in self.hub.files.items()]
        siblings = [{"rfilename": name, "size": len(data)} for name, data in self.hub.files.items()]
        return {**_model(REPOSITORY), "sha": COMMIT, "siblings": siblings}

    def file(self, name: str, *, body: bool) -> None:
        data = self.hub.files.get(name)
        if data is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        begin = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        about = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if begin:
            about["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if begin else 200)
        for key, value in {**about, "Content-Length": str(len(data) - begin)}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.send(name, data[begin:])

    def send(self, name: str, data: bytes) -> None:
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        if name in self.hub.cut:
            self.hub.cut.discard(name)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if name in self.hub.stall:
            self.hub.stalled.set()
            self.hub.go_on.wait(60)
        try:
            self.wfile.write(data[half:])
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        return


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _model(name: str) -> dict[str, object]:
    return {
        "id": name,
        "modelId": name,
        "downloads": 1234,
        "likes": 5,
        "pipeline_tag": "text-generation",
        "gated": False,
    }


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
