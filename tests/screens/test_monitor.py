"""What the monitors show, and what keys change, from literal states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.screens.drawn import check_fits, entries, feed, keys, logged, models, numbered, shown, typed, watching
from tests.view.pictures import COUNTS, GIB, MODELS, NOW, OUTLINE, histogram
from vllm_circus.bus.messages import FIRST_TOKEN_BUCKETS, ModelCounts, ModelState
from vllm_circus.gpu import Gpu
from vllm_circus.lifecycle.life import Crash, Diagnosis
from vllm_circus.lifecycle.states import State
from vllm_circus.screens import monitor
from vllm_circus.screens.events import Event, Gone, Key, Planned, Said, Size, Tick
from vllm_circus.screens.help import MONITOR_KEYS
from vllm_circus.screens.monitor import engines_of, place_of
from vllm_circus.screens.state import OVERVIEW, Monitor
from vllm_circus.view.outline import OutlineModel

CRASH = Crash(NOW - 70, Diagnosis("CUDA out of memory", "give it another GPU", "oom", 1), 77, 30.0)
RECENT = replace(COUNTS, first_token={"qwen": histogram(FIRST_TOKEN_BUCKETS, 0.06, 0.07, 0.3)})


def test_the_proxy_at_eighty_by_twenty_four() -> None:
    screen = shown(watching("proxy", RECENT, logged(*numbered(30))))
    assert screen[:14] == [
        "proxy http://127.0.0.1:8000/v1  2 workers  12 connections               up 1h06m",
        "1204 requests, 4.2/s  3 in flight  2 errors  312 tokens/s  2 ever to no model",
        "NAME   STATE    GPU  PORT  IN-FLIGHT  WAIT   REQ  REQ/s  ERR  TOK/s   P50    P95",
        "qwen   ready    0,1  8001          3     0  1204    4.2    2    312  61ms  307ms",
        "coder  loading  2    8002          0     0     0      0    0      0     -      -",
        "embed  failed   cpu  8003          0     0     0      0    0      0     -      -",
        "old    stopped  -    8004          0     0     0      0    0      0     -      -",
        "coder: loading weights; 12s so far; ready in about 40s",
        "embed: CUDA out of memory; failed 8 times in a row; see `vllm-circus why embed`,",
        "       then `vllm-circus start embed`",
        "GPU 0 H100  ███████████████████░░░░░░░░░░░░░░░░░░░  50 %  61.0G of 80.0G  60 °C",
        "GPU 1 H100  ███████████████████░░░░░░░░░░░░░░░░░░░  50 %  60.0G of 80.0G  60 °C",
        "GPU 2 H100  ███████████████████░░░░░░░░░░░░░░░░░░░  50 %   2.0G of 80.0G  60 °C",
        "── log of proxy ───────────────────────────────────────────────────── follows ──",
    ]
    assert screen[-2:] == [
        "line 29",
        "q leave  Tab next view  ←→ model  / search  f follow  p pause  ? keys        1/6",
    ]


def test_the_sums_are_those_of_the_rows_without_models_of_an_earlier_set() -> None:
    gone = ModelCounts(statuses={200: 7, 502: 3}, in_flight=2, waiting=1)
    rates = {"qwen": 4.2, "gone": 9.0}
    counts = replace(COUNTS, models={**COUNTS.models, "gone": gone}, request_rate=rates, token_rate=rates, unrouted={})
    head = shown(watching("proxy", counts))[1]
    assert head == "1204 requests, 4.2/s  3 in flight  2 errors  4.2 tokens/s"


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80])
@pytest.mark.parametrize("place", ["proxy", OVERVIEW, "qwen"])
def test_a_paused_screen_says_so_however_narrow_it_is(place: str, width: int) -> None:
    lines = numbered(3000, "qwen" if place == "qwen" else "proxy")
    state = watching(place, logged(*lines), *keys("/"), *typed("a long search"), *keys("enter"), size=(width, 24))
    assert not any("paused" in line for line in shown(state))
    held = feed(state, *keys("p"))
    assert any("paused" in line for line in shown(held))
    assert any("paused" in line for line in shown(feed(held, *keys("l"))))
    assert not any("paused" in line for line in shown(feed(held, *keys("p"))))


def test_a_narrow_screen_tells_the_most_important_of_its_log() -> None:
    state = watching("proxy", logged(*numbered(30)), *keys("/"), *typed("line"), *keys("enter"), size=(36, 24))
    (title,) = (line for line in shown(state) if "log of proxy" in line)
    assert title == "── log of proxy ─── line 30 of 30 ──"


def test_a_wide_terminal_shows_addresses_and_uptimes() -> None:
    outline = replace(OUTLINE, models=(replace(OUTLINE.models[0], address="127.0.0.1:8001"),))
    head = shown(watching("proxy", Planned(outline, 100, NOW), size=(200, 50)))[2:4]
    assert "ADDRESS" in head[0]
    assert "UPTIME" in head[0]
    assert " 127.0.0.1:8001 " in head[1]
    assert head[1].endswith("1h03m")


def test_long_reasons_go_on_below_where_there_is_room() -> None:
    reason = "exit code 1: " + "CUDA out of memory, " * 5 + "see its log"
    told = models(replace(MODELS.models[2], reason=reason))
    high = shown(watching("proxy", told, size=(80, 40)))
    assert any(line.startswith("       ") and "see its log" in line for line in high)
    low = [line for line in shown(watching("proxy", told, size=(80, 20))) if line.startswith("embed: ")]
    assert low == [] or low[0].endswith("…")


def test_more_models_than_there_is_room_for_are_counted() -> None:
    many = tuple(OutlineModel(f"m{at}", "x", (f"m{at}",), (), at, True, f"w{at}", f"m{at}") for at in range(40))
    state = watching("proxy", Planned(replace(OUTLINE, models=many), 100, NOW))
    assert any(line.endswith("more: l hides the log, Tab shows each") for line in shown(state))
    assert sum(line.startswith("m") for line in shown(feed(state, *keys("l")))) > 12
    assert any("more: " in line for line in shown(feed(state, *keys("tab"))))


def test_many_gpus_share_lines_and_hot_ones_are_told() -> None:
    gpus = tuple(Gpu(at, f"GPU-{at}", "H100", 80 * GIB, at * GIB, at, 90 if at == 3 else 40) for at in range(8))
    screen = "\n".join(shown(watching("proxy", replace(COUNTS, gpus=gpus))))
    assert "0 ░░░░░░   0 %     0B" in screen
    assert "90 °C" in screen
    assert "40 °C" not in screen
    crowd = tuple(replace(gpus[0], index=at) for at in range(64))
    assert "GPUs more: l hides the log" in "\n".join(shown(watching("proxy", replace(COUNTS, gpus=crowd))))


def test_gpus_that_tell_nothing_or_are_lost() -> None:
    gpus = (Gpu(0, "", "MIG", None, None, None, None), Gpu(1, "", "", None, None, None, None, fault="GPU 1 fell off"))
    screen = "\n".join(shown(watching("proxy", replace(COUNTS, gpus=gpus))))
    assert "GPU 0 MIG" in screen
    assert "GPU 1 fell off" in screen


def test_silent_plugins_are_told() -> None:
    late = watching("proxy", Tick(NOW + 60))
    assert any(line.startswith("health silent for 1m00s") for line in shown(late))
    nothing = feed(Monitor("ipc://x"), Size(80, 24), Tick(NOW), Planned(OUTLINE, 100, None))
    assert shown(nothing)[1:3] == ["no word of the stats plugin yet", "no word of the health plugin yet"]
    assert "unknown" in shown(feed(nothing, *keys("tab")))[2]


def test_all_models_have_a_line_and_their_logs_are_mixed() -> None:
    some = (*entries("qwen", "from qwen"), *entries("coder", "from coder"), *entries("proxy", "not here"))
    screen = shown(watching(OVERVIEW, logged(*some)))
    assert screen[0] == "models 1 stopped, 1 loading, 1 ready, 1 failed"
    assert screen[3] == "coder  loading    12s  no answer yet          0      0  loading weights, 12s"
    assert "qwen  | from qwen" in screen
    assert "coder | from coder" in screen
    assert not any("not here" in line for line in screen)


def test_one_model_with_its_health_and_load() -> None:
    qwen = replace(MODELS.models[0], probed_at=NOW - 2, restarts=1)
    screen = shown(watching("qwen", models(qwen), RECENT, logged(*entries("qwen", "hello"), *numbered(3))))
    assert screen[:5] == [
        "qwen ready for 1h01m                                               Qwen/Qwen3-8B",
        "where    port 8001  GPU 0,1  process 201  as qwen, chat",
        "health   ok 2s ago  restarted 1 time, up 1h03m",
        "traffic  3 in flight  0 waiting  312 tokens/s  1204 requests  2 errors  first t…",
        "── log of qwen ────────────────────────────────────────────────────── follows ──",
    ]
    assert "hello" in screen
    assert "line 1" not in screen


def test_a_load_has_a_bar_and_its_usual_time() -> None:
    coder = replace(MODELS.models[1], expected=24.0, phase="loading weights 50 %")
    screen = shown(watching("coder", models(coder)))
    assert screen[2] == "load     ██████████░░░░░░░░░░ loading weights 50 %, 12s of about 24s"
    late = shown(watching("coder", models(replace(coder, expected=6.0))))
    assert "12s, usually 6s" in late[2]


def test_failed_probes_are_counted() -> None:
    ill = replace(MODELS.models[0], state=State.UNHEALTHY, reason="no answer", failures=3, probed_at=NOW - 9)
    screen = "\n".join(shown(watching("qwen", models(ill))))
    assert "health   3 probes failed, last good probe 9s ago" in screen
    assert "reason   no answer" in screen


def test_a_crash_is_explained() -> None:
    embed = replace(MODELS.models[2], reason="CUDA out of memory", fix="give it another GPU", crash=CRASH)
    screen = shown(watching("embed", models(embed)))
    assert screen[4:7] == [
        "crash    1m10s ago: CUDA out of memory",
        "fix      give it another GPU",
        "more     vllm-circus why embed",
    ]


def test_tab_goes_round_and_arrows_go_from_model_to_model() -> None:
    state = watching()
    round_trip = [feed(state, *keys(*["tab"] * count)).place for count in range(7)]
    assert round_trip == ["proxy", "all", "qwen", "coder", "embed", "old", "proxy"]
    assert feed(state, *keys("backtab")).place == "old"
    assert feed(state, *keys("right")).place == "all"
    assert feed(state, *keys("right", "right", "left")).place == "all"
    assert feed(state, *keys("left")).place == "old"


def test_the_log_of_each_view_has_a_place_of_its_own() -> None:
    state = watching("proxy", logged(*numbered(50), *numbered(50, "qwen")))
    scrolled = feed(state, *keys("home", "tab", "tab"))
    assert scrolled.pane.follows
    assert not feed(scrolled, *keys("backtab", "backtab")).pane.follows


def test_a_paused_screen_stands_still_and_goes_on_with_what_came() -> None:
    paused = feed(watching("proxy", logged(*numbered(30))), *keys("p"))
    busier = replace(COUNTS, token_rate={"qwen": 999.0})
    later = feed(paused, busier, Tick(NOW + 1), logged(*entries("proxy", "came meanwhile")))
    assert shown(later) == [line.replace("line 30 of 30", "line 30 of 31") for line in shown(paused)]
    assert any("paused" in line for line in shown(later))
    resumed = "\n".join(shown(feed(later, *keys("p"))))
    assert "999" in resumed
    assert "came meanwhile" in resumed


def test_a_pause_holds_every_view_and_each_goes_on_as_it_was() -> None:
    state = watching("proxy", logged(*numbered(30), *numbered(30, "qwen")))
    paused = feed(
        state, *keys("tab", "home", "backtab", "p"), logged(*entries("qwen", "late"), *entries("proxy", "late"))
    )
    for place in ("proxy", OVERVIEW, "qwen"):
        assert "late" not in "\n".join(shown(replace(paused, place=place)))
    on = feed(paused, *keys("p"))
    assert [replace(on, place=place).pane.follows for place in ("proxy", OVERVIEW, "qwen")] == [True, False, True]


def test_keys_are_explained_and_any_key_goes_back() -> None:
    state = feed(watching(), *keys("?"))
    assert "  q, Escape                   leave" in shown(state)
    assert not feed(state, *keys("q")).left
    assert shown(feed(state, *keys("q"))) == shown(watching())


@pytest.mark.parametrize("key", ["q", "Q", "escape"])
def test_leaving(key: str) -> None:
    assert feed(watching(), *keys(key)).left


def test_a_search_takes_letters_that_are_keys() -> None:
    state = feed(watching("proxy", logged(*entries("proxy", "a quick fox"))), *keys("/"), *typed("quick"))
    assert not state.left
    assert shown(state)[-1] == "search: quick"
    assert feed(state, *keys("enter", "q")).left


def test_a_set_that_ends_is_told_and_one_that_comes_is_shown() -> None:
    gone = feed(watching(), Gone())
    assert shown(gone)[0] == "the set does not run any more: this is how it was"
    assert "qwen   ready" in "\n".join(shown(gone))
    back = feed(gone, Planned(OUTLINE, 200, NOW))
    assert "any more" not in shown(back)[0]
    assert "unknown" in "\n".join(shown(back))  # what the former set told says nothing of it


def test_a_reload_keeps_what_was_told_and_leaves_a_view_that_is_gone() -> None:
    state = watching("old")
    reloaded = feed(state, Planned(replace(OUTLINE, models=OUTLINE.models[:2]), 100, NOW))
    assert reloaded.place == OVERVIEW
    assert "ready" in shown(reloaded)[2]


def test_names_stand_for_engines_and_their_replicas() -> None:
    twins = tuple(replace(OUTLINE.models[0], name=f"qwen-{at}", group="qwen") for at in (1, 2))
    outline = replace(OUTLINE, models=(*twins, OUTLINE.models[1]))
    assert engines_of(outline, ("qwen",)) == ("qwen-1", "qwen-2")
    assert engines_of(outline, ("qwen-2", "qwen-2")) == ("qwen-2",)
    assert place_of(("qwen-1",)) == "qwen-1"
    assert place_of(("qwen-1", "qwen-2")) == place_of(()) == OVERVIEW


def test_only_the_chosen_models_are_in_the_overview() -> None:
    state = feed(
        replace(watching(OVERVIEW), only=("qwen", "coder")), logged(*entries("embed", "x"), *entries("qwen", "y"))
    )
    assert state.places == ("proxy", OVERVIEW, "qwen", "coder")
    assert [entry.text for entry in state.pane.entries] == ["y"]


def test_nothing_from_outside_moves_the_cursor() -> None:
    evil = "\x1b[2J\x9b31mred\r\x07\u202e"
    told = ModelState("qwen", State.FAILED, evil, fix=evil, phase=evil, crash=replace(CRASH, why=Diagnosis(evil, evil)))
    for place in ("proxy", OVERVIEW, "qwen"):
        shown(watching(place, models(told), logged(*entries("proxy", evil), *entries("qwen", evil))))


PRESSED = {
    "q": ["q"],
    "Escape": ["escape"],
    "Tab": ["tab"],
    "Shift-Tab": ["backtab"],
    "Left": ["left"],
    "Right": ["right"],
    "Up": ["up"],
    "Down": ["home", "down"],
    "k": ["k"],
    "j": ["home", "j"],
    "PgUp": ["pgup"],
    "PgDn": ["home", "pgdn"],
    "Ctrl-B": ["pgup"],
    "Ctrl-F": ["home", "pgdn"],
    "Home": ["home"],
    "End": ["home", "end"],
    "n": [*"/1", "enter", "n"],
    "N": [*"/1", "enter", "n", "N"],
}
OF_THE_TERMINAL = {"Ctrl-L", "Ctrl-C"}


@pytest.mark.parametrize("name", [name for row in MONITOR_KEYS for name in row.keys.split(", ")])
def test_every_key_that_is_explained_does_something(name: str) -> None:
    if name in OF_THE_TERMINAL:  # see test_terminal and the runner
        return
    *before, last = PRESSED.get(name, [name])
    state = feed(watching("proxy", logged(*numbered(60))), *keys(*before))
    assert feed(state, Key(last)) != state


EVENTS: list[Event] = [
    MODELS,
    COUNTS,
    RECENT,
    Gone(),
    Said("no"),
    Planned(OUTLINE, 100, NOW),
    Planned(replace(OUTLINE, models=()), 7, None),
    Tick(NOW + 5),
    logged(*numbered(3), *numbered(2, "qwen")),
    models(),
]
NAMES = [
    "q",
    "?",
    "/",
    "n",
    "N",
    "p",
    "l",
    "f",
    "w",
    "t",
    "tab",
    "backtab",
    "left",
    "right",
    "up",
    "pgup",
    "home",
    "other",
]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(EVENTS) | st.sampled_from(NAMES).map(Key) | st.text(min_size=1, max_size=1).map(Key)),
    st.integers(1, 130),
    st.integers(1, 60),
)
def test_no_event_and_no_size_break_a_picture(events: list[Event], width: int, height: int) -> None:
    state = feed(Monitor("ipc://x"), Size(width, height))
    for event in events:
        state = monitor.update(state, event)
    check_fits(monitor.render(state, width, height), width, height)
