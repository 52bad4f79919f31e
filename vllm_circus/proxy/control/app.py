"""The control pages, and the private socket that they are served on.

Rules: to the relay this is one more upstream, so keys, CORS, limits and framing were seen to before a request comes
here. Pages only read. The socket lies in the run directory (0700) and goes with the worker.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application, HTTPError, RequestHandler

from vllm_circus.proxy.control.guard import is_foreign, own_names
from vllm_circus.proxy.control.metrics import CONTENT_TYPE, exposition
from vllm_circus.proxy.control.outlook import Outlook
from vllm_circus.proxy.errors import Refused, body_of, unknown_model, unknown_path


class ControlServer:
    """The application on its socket."""

    def __init__(self, outlook: Outlook, path: Path) -> None:
        self._path = path
        self._server = HTTPServer(make_application(outlook), no_keep_alive=False)

    def start(self) -> None:
        """Listen. A file that a killed worker of the same pid left is replaced."""
        self._path.unlink(missing_ok=True)
        self._server.add_socket(bind_unix_socket(str(self._path), mode=0o600))

    def close(self) -> None:
        """Listen no more."""
        self._server.stop()
        self._path.unlink(missing_ok=True)


def make_application(outlook: Outlook) -> Application:
    """Every control page."""
    given = {"outlook": outlook, "names": own_names(outlook.plan.proxy.host)}
    return Application(
        [
            (r"/v1/models", ModelsPage, given),
            (r"/v1/models/(.+)", ModelPage, given),
            (r"/health|/ping", HealthPage, given),
            (r"/metrics", MetricsPage, given),
            (r"/proxy/status", StatusPage, given),
            (r"/proxy/registry", RegistryPage, given),
        ],
        default_handler_class=UnknownPage,
        default_handler_args=given,
    )


class Page(RequestHandler):
    """What all pages share: JSON out, errors in the proxy's shape, nothing cached."""

    def initialize(self, outlook: Outlook, names: frozenset[str]) -> None:
        """See RequestHandler."""
        self.outlook = outlook
        self._names = names

    def set_default_headers(self) -> None:
        """See RequestHandler."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")

    def compute_etag(self) -> None:
        """See RequestHandler: nothing here is worth one."""

    def refuse_foreigners(self) -> None:
        """403 for pages of other sites."""
        keyed = self.outlook.keyed
        origin = self.request.headers.get("Origin")
        if is_foreign(self.request.host, origin, names=self._names, cors=self.outlook.cors, keyed=keyed):
            raise Refused(403, "foreign_origin", "This page is not for other sites: Host or Origin is not ours.")

    def send(self, document: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """See RequestHandler."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, Refused):
            error = Refused(status_code, "control_error", "This page cannot be shown.")
        self.set_status(error.http_status)
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Vllm-Circus-Error", error.code)
        self.finish(body_of(error, anthropic=False, request_id=""))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """See RequestHandler: what we refuse is no fault of ours."""
        if not isinstance(value, Refused | HTTPError):
            super().log_exception(typ, value, tb)

    def head(self, *args: str) -> None:
        """The header of what GET answers."""
        self.get(*args)


class ModelsPage(Page):
    """Every name that a client may ask for."""

    def get(self) -> None:
        """OpenAI's list."""
        self.send({"object": "list", "data": self.outlook.model_list()})


class ModelPage(Page):
    """One name."""

    def get(self, name: str) -> None:
        """OpenAI's model."""
        found = next((entry for entry in self.outlook.model_list() if entry["id"] == name), None)
        if found is None:
            raise unknown_model(name)
        self.send(found)


class HealthPage(Page):
    """Whether this worker serves: it does, if it answers; the models' states are told, and never change the status."""

    def get(self) -> None:
        """`ok`, or `degraded` while an enabled model, or one of its replicas, is not ready."""
        self.send(self.outlook.health())


class MetricsPage(Page):
    """Prometheus' exposition."""

    def get(self) -> None:
        """See METRICS."""
        if not self.outlook.plan.proxy.metrics:
            raise unknown_path()
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(exposition(self.outlook.models, self.outlook.counts))


class StatusPage(Page):
    """Everything that is known."""

    def get(self) -> None:
        """See Outlook.status."""
        self.refuse_foreigners()
        self.send(self.outlook.status())


class RegistryPage(Page):
    """What is configured."""

    def get(self) -> None:
        """See Outlook.registry."""
        self.refuse_foreigners()
        self.send(self.outlook.registry())


class UnknownPage(Page):
    """Everything else."""

    def prepare(self) -> None:
        """404."""
        raise unknown_path()
