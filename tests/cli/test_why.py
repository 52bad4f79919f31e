from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.life import Crash, Diagnosis
from vllm_circus.lifecycle.states import State
from vllm_circus.view.outline import Outline, OutlineModel
from vllm_circus.view.table import paint
from vllm_circus.view.why import why_document, why_lines

NOW = 1_700_000_000.0
WHY = Diagnosis("exit code 1: it is full", "free some space", "disk-full", 1, ("line one", "line \x1b[31mtwo"))
FAILED = ModelState(
    "chat",
    State.FAILED,
    reason=WHY.cause,
    fix=WHY.fix,
    since_at=NOW - 90,
    tries=8,
    crash=Crash(NOW - 90, WHY, 7, 41.0),
)
MODEL = OutlineModel("chat", "m", ("chat",), (0,), 8001, True, "model-chat", "chat")
OUTLINE = Outline("default", "m.yaml", "127.0.0.1", 8000, 1, (MODEL,))


def told(state: ModelState) -> list[str]:
    return [paint(line, colour=False).rstrip() for line in why_lines(state, OUTLINE, NOW)]


def test_a_failed_model_is_told_with_cause_fix_time_and_log() -> None:
    lines = told(FAILED)
    assert lines[0] == "chat: failed for 1m30s, failed 8 times in a row"
    assert lines[1:3] == ["  cause      exit code 1: it is full", "  fix        free some space"]
    assert lines[3].endswith("(1m30s ago), 41s after its start, process 7")
    assert lines[4] == "  log        line one"
    assert "\x1b" not in lines[5]
    assert lines[-1] == "  next       correct it, then `vllm-circus start chat`; the whole log: `vllm-circus logs chat`"


def test_a_model_that_is_well_again_still_tells_its_last_crash() -> None:
    lines = told(replace(FAILED, state=State.READY, reason="", fix="", tries=0))
    assert lines[0] == "chat: ready for 1m30s"
    assert lines[1] == "  last crash exit code 1: it is full"


def test_a_model_that_never_crashed_tells_its_reason() -> None:
    lines = told(ModelState("chat", State.STOPPED, reason="not enabled in the models file", since_at=NOW))
    assert lines == [
        "chat: stopped for 0s",
        "  reason     not enabled in the models file",
        "  next       `vllm-circus start chat` starts it",
    ]


def test_no_time_is_told_of_a_model_that_never_ran() -> None:
    never = ModelState("chat", State.STOPPED)
    assert told(never)[0] == "chat: stopped"
    assert why_document(never)["since_at"] is None


def test_a_model_on_call_says_that_a_request_brings_it_up() -> None:
    assert "the next request" in told(ModelState("chat", State.SLEEPING, since_at=NOW, on_call=True))[-1]


def test_the_document_is_json_and_holds_the_crash() -> None:
    document = json.loads(json.dumps(why_document(FAILED)))
    assert document["crash"]["why"]["signature"] == "disk-full"
    assert document["crash"]["ran"] == 41.0


@pytest.mark.usefixtures("quiet")
def test_where_nothing_runs_it_says_so(command: Callable[..., object]) -> None:
    outcome = command("why", "chat")
    assert getattr(outcome, "code", None) == 3
