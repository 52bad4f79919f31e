"""schemathesis on an engine's own `openapi.json`, sent through the proxy: whose are the errors?

Every answer with a 5xx status has to be the engine's, with the status that it gives directly; no connection ends
without an answer; and the proxy refuses nothing itself but what breaks the rules of HTTP, of JSON or of model names.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from tests.real_vllm.agree import Pair
from tests.real_vllm.conftest import Report
from tests.real_vllm.fleet import Fleet
from tests.real_vllm.fuzz import Operation, Request, Ways, cases, fault, load, operations, prepare, refusal_of_body
from vllm_circus.proxy.allow import Where, find_page

pytestmark = pytest.mark.timeout(900)

COVERED, RANDOM = 120, 4


@dataclass
class Tally:
    """What came of the cases."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def line(self, what: str, operations: int, seconds: float) -> str:
        """For the report."""
        told = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"schemathesis, {what}: {operations} operations, {self.sent} cases in {seconds:.0f} s: {told}"


def of_engines(operation: Operation) -> bool:
    """Whether an operation is public and answered by an engine."""
    page = find_page(operation.path.replace("{response_id}", "resp_0").encode())
    return page is not None and page.where is not Where.CONTROL


def is_public(operation: Operation) -> bool:
    """Whether the path is one that clients may use."""
    return find_page(operation.path.replace("{response_id}", "resp_0").encode()) is not None


def put(pair: Pair, ways: Ways, operation: Operation, tally: Tally) -> None:
    """Send the cases of one operation both ways."""
    page = find_page(operation.path.encode())
    in_body = page is not None and page.in_body
    for case in cases(operation, COVERED, RANDOM):
        request = prepare(case, pair.model, in_body=in_body)
        if request is None or request.method == "OPTIONS":  # preflights are the proxy's
            continue
        through, direct = ways.send(pair.through, request), ways.send(pair.direct, request)
        tally.sent += 1
        tally.statuses[f"{through.status} {'ours' if through.ours else 'the engine'}"] += 1
        expected = refusal_of_body(request.body, [pair.model]) if in_body else None
        wrong = fault(request, through, direct, expected)
        if wrong is not None:
            tally.faults.append(f"{wrong}: {through} but directly {direct}: {request}"[:2000])


def test_a_text_engines_errors_are_its_own(pair: Pair, report: Report) -> None:
    run(pair, [operation for operation in operations(load(pair.direct)) if of_engines(operation)], report)


def test_a_pooling_engines_errors_are_its_own(pair: Pair, pooling_pair: Pair, report: Report) -> None:
    seen = {operation.path for operation in operations(load(pair.direct))}
    found = [operation for operation in operations(load(pooling_pair.direct)) if operation.path not in seen]
    run(pooling_pair, [operation for operation in found if of_engines(operation)], report)


def run(pair: Pair, chosen: list[Operation], report: Report) -> None:
    """Put all of these, and report."""
    tally, ways, begin = Tally(), Ways(), time.monotonic()
    for operation in chosen:
        put(pair, ways, operation, tally)
    report(tally.line(pair.model, len(chosen), time.monotonic() - begin))
    assert not tally.faults, "\n".join([f"{len(tally.faults)} faults", *tally.faults[:20]])
    assert tally.sent > 50 * len(chosen) ** 0.5


def test_what_is_not_public_never_reaches_an_engine(fleet: Fleet, pair: Pair, report: Report) -> None:
    hidden = [operation for operation in operations(load(pair.direct)) if not is_public(operation)]
    ways, mark, sent = Ways(), uuid4().hex, 0
    for operation in hidden:
        for case in cases(operation, COVERED, RANDOM):
            request = prepare(case, pair.model, in_body=False)
            if request is None or request.method == "OPTIONS":
                continue
            reply = ways.send(pair.through, marked(request, mark))
            assert (reply.status, reply.ours) == (404, "unknown_path"), request
            sent += 1
    ways.send(pair.through, marked(Request("GET", f"/version?model={pair.model}", (), b""), f"{mark}end"))
    log = fleet.command("logs", pair.model, "--grep", mark, "-n", "1000").stdout
    assert [line for line in log.splitlines() if mark in line and f"{mark}end" not in line] == []
    assert f"{mark}end" in log
    report(f"schemathesis, not public: {len(hidden)} operations, {sent} cases: {sent} x 404 ours, none at the engine")


def marked(request: Request, mark: str) -> Request:
    """The same request with a mark that an engine would log."""
    return Request(request.method, f"{request.target}&mark={mark}", request.headers, request.body)
