"""Requests that schemathesis makes out of an engine's own `openapi.json`, and what the proxy may answer to each.

Rules: the cases are the same in every run. They come from schemathesis' coverage of the schema (the limits of every
field, wrong types, missing members, methods and content types that the schema does not know) and from its random
generation. Every operation takes a header and a query parameter more than the schema says, so these are tried too. A
request is prepared once and the same bytes go both ways. It names a real model where it names any, and asks for little
work; else it stays as it was made.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.core.result import Ok

from tests.real_vllm.agree import LIMIT, OURS, Side

#: What schemathesis calls an operation and a case, whatever the kind of its schema.
Operation = APIOperation[Any, Any, Any, Any]
Made = Case[Any]
SEED = 20_260_101
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
#: Operations whose random generation costs seconds a case: the coverage has to do for them.
SLOW = ("/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens")
_METHODS = ("get", "post", "put", "delete", "patch")
_EXTRA = (
    {"name": "X-Fuzz", "in": "header", "required": False, "schema": {"type": "string"}},
    {"name": "fuzz", "in": "query", "required": False, "schema": {"type": ["string", "integer", "boolean"]}},
)
#: Members that decide how much work a request is, and how much of it is enough.
_WORK = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "n": 2, "best_of": 2}
_HEADER_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent. `target` begins with a slash."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What came back. `ours` is the word by which the proxy marks an answer of its own, or None."""

    status: int
    ours: str | None


def load(side: Side) -> BaseSchema:
    """The schema that an engine gives of itself, each operation with the further parameters."""
    document = copy.deepcopy(requests.get(f"{side.url}/openapi.json", timeout=LIMIT).json())
    for path in document["paths"].values():
        for method in path.keys() & set(_METHODS):
            path[method]["parameters"] = [*path[method].get("parameters", ()), *_EXTRA]
    return schemathesis.openapi.from_dict(document, config=schemathesis.Config(seed=SEED))


def operations(schema: BaseSchema) -> list[Operation]:
    """Every operation of a schema."""
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def cases(operation: Operation, covered: int, random: int) -> Iterator[Made]:
    """At most so many cases of the coverage, evenly chosen, and twice so many random ones."""
    config = operation.schema.config.generation_for(operation=operation)
    found = operation.schema.iter_coverage_cases(operation, generation_modes=list(MODES), generation_config=config)
    every = list(islice(found, 20 * covered))
    yield from every[:: max(1, len(every) // covered)]
    if operation.path not in SLOW:
        for mode in MODES:
            yield from _random_cases(operation, mode, random)


def _random_cases(operation: Operation, mode: GenerationMode, most: int) -> list[Made]:
    made: list[Made] = []

    @seed(SEED)
    @settings(
        max_examples=most,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(generation_mode=mode))
    def collect(case: Made) -> None:
        made.append(case)

    collect()
    return made


def prepare(case: Made, model: str, *, in_body: bool) -> Request | None:
    """A case as bytes, or None where no client could send it. `in_body` says where the model is named."""
    options = case.as_transport_kwargs(base_url="http://somewhere")
    if in_body and isinstance(options.get("json"), dict):
        options["json"] = _answerable(options["json"], model)
    elif not in_body:
        options["params"] = {**(options.get("params") or {}), "model": model}
    own = ("Connection", "X-Schemathesis-TestCaseId")  # the second is another one in every run
    options["headers"] = {name: value for name, value in options["headers"].items() if name not in own}
    try:
        prepared = requests.Request(**{key: options.get(key) for key in _KNOWN}).prepare()
        headers = tuple((str(name), str(value)) for name, value in prepared.headers.items())
        "".join(value for _, value in headers).encode("latin-1")
    except (requests.exceptions.InvalidHeader, UnicodeError):
        return None
    parts = urlsplit(str(prepared.url))
    body = prepared.body.encode() if isinstance(prepared.body, str) else bytes(prepared.body or b"")
    return Request(str(prepared.method), f"{parts.path}?{parts.query}", headers, body)


_KNOWN = ("method", "url", "headers", "params", "json", "data", "files", "cookies")


def _answerable(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The same body for a real model and little work; what is of a wrong type stays so."""
    named = body.get("model")
    changed = {**body, "model": model} if named is None or isinstance(named, str) else dict(body)
    for name, most in _WORK.items():
        value = changed.get(name)
        if (value is None and name.startswith("max")) or (type(value) is int and value > most):
            changed[name] = most
    if changed.get("background") is True:  # it would go on after its answer
        changed["background"] = False
    return changed


class Ways:
    """Connections to both sides, kept open."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False

    def send(self, side: Side, request: Request) -> Reply:
        """Send it and read the whole answer. Raises requests' errors where none comes, or not all of one."""
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = side.url + request.target
        prepared.headers = requests.structures.CaseInsensitiveDict(request.headers)
        prepared.headers["Authorization"] = f"Bearer {side.key}"
        prepared.body = request.body
        answer = self._session.send(prepared, timeout=LIMIT)
        return Reply(answer.status_code, answer.headers.get(OURS))


def refusal_of_body(body: bytes, names: Iterable[str]) -> str | None:
    """What the proxy says to a JSON body that names no model of these, or None where an engine has to answer."""
    try:
        document = json.loads(body.decode())
    except ValueError:
        return "bad_body"
    if not isinstance(document, dict):
        return "bad_body"
    model = document.get("model")
    if model is None or model == "":
        return "missing_model"
    if not isinstance(model, str):
        return "bad_model"
    return None if model in names else "model_not_found"


def fault(request: Request, through: Reply, direct: Reply, expected: str | None) -> str | None:
    """What is wrong with the proxy's answer, beside the engine's own to the same request; None is nothing.

    `expected` is the word for a body that names no model.
    """
    if through.ours is None:
        return None if through.status == direct.status else "the engine's status has changed"
    if through.status >= 500:
        return "a server error of the proxy's own"
    malformed = any(_HEADER_CONTROL.search(value) for _, value in request.headers)
    allowed = {
        "bad_request": malformed,
        "method_not_allowed": direct.status == 405,
        "unknown_path": direct.status in {400, 404, 422},  # the id of a response that cannot be one
    }.get(through.ours, through.ours == expected)
    return None if allowed else f"refused without a reason: {through.ours}"
