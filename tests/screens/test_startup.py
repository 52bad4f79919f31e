"""A start: when it is over, what keys decide, and what it looks like."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.screens.drawn import check_fits, entries, keys, logged, models, starting, text
from tests.view.pictures import COUNTS, NOW
from vllm_circus.bus.messages import CommandMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.screens.events import Event, Gone, Key, Said, Tick
from vllm_circus.screens.starting import Startup, after, taken
from vllm_circus.screens.startview import render, slowest_of, tell


def told(name: str, state: State, **rest: object) -> ModelState:
    return ModelState(name, state, **{"since_at": NOW - 20, **rest})  # type: ignore[arg-type]


QWEN = told("qwen", State.READY)
LOADING = told("coder", State.LOADING, phase="loading weights 50 %", expected=40.0, pid=7)
OOM = told("coder", State.FAILED, reason="CUDA out of memory", fix="give it another GPU", tries=2)
FAILING = models(QWEN, OOM)


def on(state: Startup, *events: Event) -> Startup:
    for event in events:
        state = after(state, event)
    return state


def screen(state: Startup, width: int = 80, height: int = 24) -> list[str]:
    lines = render(state, width, height)
    check_fits(lines, width, height)
    return text(lines)


def test_it_is_over_when_all_are_ready_and_the_proxy_serves() -> None:
    waiting = starting(models(QWEN, LOADING), COUNTS)
    assert waiting.outcome is None
    done = on(waiting, models(QWEN, replace(LOADING, state=State.READY)))
    assert done.outcome is not None
    assert done.outcome.kind == "ready"
    assert starting(models(QWEN, told("coder", State.READY))).outcome is None  # no word of the proxy


def test_a_model_on_call_need_not_be_up() -> None:
    coder = told("coder", State.STOPPED, on_call=True, reason="the first request starts it")
    state = starting(models(QWEN, coder), COUNTS)
    assert state.outcome is not None
    assert state.outcome.at_rest == {"coder": coder}
    shown = screen(state)
    assert shown[0].startswith("1 of 1 model ready, 1 at rest  the proxy serves")
    assert shown[2] == "  coder  stopped  the first request starts it"


def test_a_failure_waits_for_a_decision_and_then_ends_by_itself() -> None:
    state = starting(FAILING, COUNTS)
    assert state.outcome is None
    assert on(state, Tick(NOW + 59)).outcome is None
    ended = on(state, Tick(NOW + 60)).outcome
    assert ended is not None
    assert (ended.kind, list(ended.failed)) == ("failed", ["coder"])
    assert ended.failed["coder"].reason == "CUDA out of memory"


def test_a_key_begins_the_patience_anew() -> None:
    state = on(starting(FAILING, COUNTS), Tick(NOW + 50), Key("x"), Tick(NOW + 100))
    assert state.outcome is None
    assert on(state, Tick(NOW + 110)).outcome is not None


def test_where_nothing_is_offered_a_failure_ends_it_at_once() -> None:
    state = starting(FAILING, COUNTS, choices="")
    assert state.outcome is not None
    assert state.outcome.kind == "failed"


def test_a_failure_holds_nobody_up_who_still_comes() -> None:
    state = starting(models(told("qwen", State.LOADING), OOM), COUNTS, Tick(NOW + 500))
    assert state.outcome is None
    assert state.waiting == ("qwen",)


def test_retry_starts_it_again_and_counts_from_there() -> None:
    state, orders = taken(on(starting(FAILING, COUNTS), Key("r")))
    assert orders == (CommandMessage("start", ("coder",)),)
    assert taken(state)[1] == ()
    assert on(state, FAILING).failed == ()  # nothing has changed yet: an old failure says nothing
    again = on(state, models(QWEN, replace(OOM, since_at=NOW + 9)))
    assert again.failed == ("coder",)
    ready = on(state, models(QWEN, told("coder", State.READY)))
    assert ready.outcome is not None
    assert ready.outcome.kind == "ready"


def test_without_it_the_rest_is_enough() -> None:
    state, orders = taken(on(starting(FAILING, COUNTS), Key("c")))
    assert orders == (CommandMessage("stop", ("coder",)),)
    assert state.outcome is not None
    assert (state.outcome.kind, state.outcome.left_out) == ("ready", ("coder",))


def test_edit_tells_which_one() -> None:
    state = on(starting(FAILING, COUNTS, choices="erc"), Key("e"))
    assert state.outcome is not None
    assert (state.outcome.kind, state.outcome.model) == ("edit", "coder")
    assert on(starting(FAILING, COUNTS), Key("e")).outcome is None  # it was not offered


def test_one_that_tries_again_by_itself_can_be_decided_on_as_well() -> None:
    waits = models(told("qwen", State.LOADING), told("coder", State.BACKOFF, reason="it died", tries=1))
    state = starting(waits, COUNTS)
    assert state.failed == ()
    assert state.subject == "coder"
    assert on(state, Key("c")).names == ("qwen",)


def test_several_that_failed_are_chosen_among() -> None:
    both = models(told("qwen", State.FAILED, reason="one"), OOM)
    state = starting(both, COUNTS)
    assert [on(state, *keys(*["down"] * count)).subject for count in range(3)] == ["qwen", "coder", "qwen"]
    assert on(state, Key("up")).subject == "coder"
    rest = on(state, *keys("down", "c"))
    assert rest.names == ("qwen",)
    assert "● qwen" in "\n".join(screen(on(state, Key("tab"), Key("tab"))))


def test_leaving_says_who_was_still_coming() -> None:
    state = on(starting(models(QWEN, LOADING)), Key("q"))
    assert state.outcome is not None
    assert (state.outcome.kind, state.outcome.waiting) == ("left", ("coder",))


def test_a_set_that_ends_is_told_and_left() -> None:
    state = on(starting(models(QWEN, LOADING)), Gone())
    assert "the set does not run any more" in screen(state)
    assert state.outcome is None
    ended = on(state, Key("q")).outcome
    assert ended is not None
    assert ended.kind == "gone"


def test_keys_without_a_failure_decide_nothing() -> None:
    state = starting(models(QWEN, LOADING))
    assert taken(on(state, *keys("r", "c", "e", "tab", "x")))[1] == ()
    assert on(state, *keys("r", "c")).names == ("qwen", "coder")


def test_the_picture_of_a_start() -> None:
    shown = screen(starting(models(QWEN, LOADING), COUNTS, logged(*entries("coder", "shard 2 of 4"))))
    assert shown[:5] == [
        "1 of 2 models ready  the proxy serves                                         0s",
        "  qwen   ready    ████████████████████",
        "  coder  loading  ██████████░░░░░░░░░░  loading weights 50 %, 20s of about 40s",
        "── log of coder ────────────────────────────────────────────────────────────────",
        "shard 2 of 4",
    ]
    assert shown[-1] == "q leave  ? keys"


def test_the_picture_of_a_failure() -> None:
    shown = screen(on(starting(FAILING, COUNTS), Tick(NOW + 13)))
    assert shown[2:5] == [
        "  coder  failed   failed 2 times in a row",
        "      why  CUDA out of memory",
        "      fix  give it another GPU",
    ]
    assert shown[-1] == "coder: r retry  c continue without it  q leave  ? keys     ends by itself in 47s"


def test_the_keys_of_a_start_are_explained() -> None:
    state = on(starting(FAILING), Key("?"))
    assert "  c              continue without it" in screen(state)
    assert on(state, Key("q")).outcome is None  # it only leaves the explanation


def test_before_any_load_was_seen_the_phases_tell_how_far_it_is() -> None:
    shown = screen(starting(models(QWEN, replace(LOADING, expected=None))))
    assert shown[2] == "  coder  loading  ███████░░░░░░░░░░░░░  loading weights 50 %, 20s"


def test_the_log_is_that_of_the_slowest() -> None:
    slow = models(replace(LOADING, name="qwen", expected=90.0), LOADING)
    assert slowest_of(starting(slow)) == "qwen"
    assert slowest_of(starting(models(QWEN, OOM))) == "coder"


def test_many_models_leave_room_for_what_matters() -> None:
    names = [f"m{at}" for at in range(40)]
    some = [told(name, State.READY) for name in names[:-1]]
    shown = screen(starting(models(*some, replace(OOM, name="m39")), names=" ".join(names)))
    assert shown[1].startswith("ready: m0, m1, m2")
    assert "      why  CUDA out of memory" in shown


def test_what_the_health_plugin_refused_is_shown() -> None:
    assert "it is just starting" in screen(on(starting(FAILING), Said("it is just starting")))


def test_the_start_line_by_line() -> None:
    state = starting(choices="")
    lines = text(tell(state, on(state, models(QWEN, LOADING), COUNTS)))
    assert lines == ["qwen: ready", "coder: loading (loading weights 50 %)", "the proxy serves"]
    assert text(tell(state, on(state, models(OOM)))) == ["coder: failed (CUDA out of memory); give it another GPU"]


EVENTS: list[Event] = [FAILING, models(QWEN, LOADING), models(), COUNTS, Gone(), Said("x\x1b"), Tick(NOW + 3)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(EVENTS) | st.sampled_from(["r", "c", "e", "q", "tab", "up", "other", "é"]).map(Key)),
    st.integers(1, 130),
    st.integers(1, 40),
)
def test_no_event_and_no_size_break_it(events: list[Event], width: int, height: int) -> None:
    state = starting(choices="erc")
    for event in events:
        state, _ = taken(after(state, event))
        check_fits(render(state, width, height), width, height)
