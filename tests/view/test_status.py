"""What `status` prints, from literal pictures."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from tests.view.pictures import CONTROL, COUNTS, GIB, MODELS, NOW, OUTLINE, PICTURE
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.view.live import screen
from vllm_circus.view.status import Picture, judge, memory_used, ready_words, status_lines, why
from vllm_circus.view.table import paint, paint_row


def text(picture: Picture, width: int | None = None) -> str:
    lines = status_lines(picture, width)
    return "\n".join((paint_row if is_row else paint)(line, colour=False) for line, is_row in lines)


def test_the_whole_status_of_a_running_set() -> None:
    assert text(PICTURE) == (
        "NAME   STATE    GPU  PORT     MEM  IN-FLIGHT   REQ  TOK/s  TTFT  ERR  UPTIME\n"
        "qwen   ready    0,1  8001  121.0G          3  1204    312  75ms    2   1h03m\n"
        "coder  loading  2    8002    2.0G          0     0      0     -    0     12s\n"
        "embed  failed   cpu  8003       -          0     0      0     -    0       -\n"
        "old    stopped  -    8004       -          0     0      0     -    0       -\n"
        "\n"
        "coder: loading weights; 12s so far; ready in about 40s\n"
        "embed: CUDA out of memory; failed 8 times in a row;"
        " see `vllm-circus why embed`, then `vllm-circus start embed`\n"
        "old: `vllm-circus start old` starts it\n"
        "\n"
        "proxy    http://127.0.0.1:8000/v1  2 workers  12 connections\n"
        "plugins  health ok  stats ok\n"
        "circusd  pid 100\n"
        "circusctl --endpoint ipc:///run/vllm-circus/default/control.sock"
    )


def test_who_waits_is_shown_while_somebody_does() -> None:
    counts = replace(COUNTS, models={"qwen": replace(COUNTS.models["qwen"], waiting=12)})
    table = text(replace(PICTURE, counts=counts)).splitlines()[:3]
    assert table == [
        "NAME   STATE    GPU  PORT     MEM  IN-FLIGHT  WAIT   REQ  TOK/s  TTFT  ERR  UPTIME",
        "qwen   ready    0,1  8001  121.0G          3    12  1204    312  75ms    2   1h03m",
        "coder  loading  2    8002    2.0G          0     0     0      0     -    0     12s",
    ]


def test_the_circusctl_command_can_be_pasted_from_a_narrow_terminal() -> None:
    program = "/opt/vllm-circus/bin/circusctl"
    picture = replace(PICTURE, circusctl=f"{program} --endpoint {CONTROL}")
    assert text(picture).splitlines()[-1] == f"{program} --endpoint {CONTROL}"
    lines = text(picture, 80).splitlines()[-2:]
    assert lines == [f"{program} \\", f" --endpoint {CONTROL}"]
    pasted = subprocess.run(["sh"], input="echo " + "\n".join(lines), capture_output=True, text=True, check=True)
    assert pasted.stdout == f"{program} --endpoint {CONTROL}\n"


def test_the_live_screen_leaves_out_a_command_that_it_would_break() -> None:
    assert CONTROL in screen(PICTURE, 80).plain
    assert "control.sock" not in screen(PICTURE, 50).plain


def test_a_circusd_that_somebody_stopped_is_named_with_what_lets_it_go_on() -> None:
    said = text(replace(PICTURE, halted=True))
    assert "somebody stopped circusd (SIGSTOP)" in said
    assert "`kill -CONT 100` lets it go on" in said
    assert "kill" not in text(PICTURE)


def test_news_about_the_set_stand_last() -> None:
    assert text(replace(PICTURE, news="models.yaml has changed")).endswith(".sock\nmodels.yaml has changed")


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    table = text(PICTURE, 50).splitlines()[:5]
    assert table[0] == "NAME   STATE    IN-FLIGHT   REQ  ERR  UPTIME"
    assert max(map(len, table)) <= 50


def test_eighty_columns_hold_the_table() -> None:
    assert max(map(len, text(PICTURE, 80).splitlines()[:5])) <= 80


def test_a_silent_health_plugin_makes_states_unknown() -> None:
    shown = text(replace(PICTURE, models=None))
    assert "qwen   unknown" in shown
    assert "qwen: nobody tells: the health plugin is silent" in shown
    assert "health silent  stats ok" in shown


def test_a_silent_stats_plugin_makes_numbers_unknown() -> None:
    shown = text(replace(PICTURE, counts=None))
    assert "qwen   ready    0,1  8001    -          -    -      -     -    -   1h03m" in shown
    assert "workers unknown" in shown


def test_an_old_word_is_shown_with_its_age() -> None:
    shown = text(replace(PICTURE, models=replace(MODELS, sent_at=NOW - 90)))
    assert "health silent for 1m30s" in shown
    assert "qwen   ready" in shown


def test_missing_workers_are_counted() -> None:
    assert "1 of 2 workers" in text(replace(PICTURE, counts=replace(COUNTS, workers=COUNTS.workers[:1])))


def test_missing_workers_are_explained_by_their_last_words() -> None:
    nobody = replace(PICTURE, counts=replace(COUNTS, workers=()), proxy_words="error: no keys\x1b[2J; chmod 600 keys")
    words = "\nproxy: 0 of 2 workers alive; error: no keys; chmod 600 keys; see `vllm-circus logs proxy`\n"
    assert words in text(nobody)
    assert "\nproxy: 0 of 2 workers alive; see `vllm-circus logs proxy`\n" in text(replace(nobody, proxy_words=""))
    for well in (replace(nobody, counts=COUNTS), replace(nobody, counts=None)):
        assert "no keys" not in text(well)


@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (3.0, True), (3.1, False), (-3600.0, True)])
def test_a_plugin_lives_by_the_age_of_its_last_word(age: float, alive: bool) -> None:
    assert judge("health", NOW - age, NOW).alive is alive


def test_memory_is_the_sum_over_the_models_own_gpus() -> None:
    assert memory_used(PICTURE, OUTLINE.models[0]) == 121 * GIB
    assert memory_used(PICTURE, OUTLINE.models[2]) is None


def test_memory_that_one_card_does_not_tell_is_unknown() -> None:
    gpus = (COUNTS.gpus[0], replace(COUNTS.gpus[1], memory_used=None))
    assert memory_used(replace(PICTURE, counts=replace(COUNTS, gpus=gpus)), OUTLINE.models[0]) is None


@pytest.mark.parametrize("state", list(State))
def test_whatever_is_not_ready_has_a_reason(state: State) -> None:
    told = ModelsMessage(NOW, 1, 1, (ModelState("qwen", state, since_at=NOW),))
    line = why(replace(PICTURE, models=told), OUTLINE.models[0])
    assert (line is None) == (state is State.READY)
    assert line is None or len(paint(line, colour=False)) > len("qwen: ")


def test_a_reason_that_is_a_sentence_is_joined_to_the_next_without_its_full_stop() -> None:
    told = ModelsMessage(NOW, 1, 1, (ModelState("qwen", State.FAILED, "Out of memory.", fix="take less"),))
    assert "qwen: Out of memory; take less; " in text(replace(PICTURE, models=told))


def test_a_reason_cannot_move_the_cursor() -> None:
    told = ModelsMessage(NOW, 1, 1, (ModelState("qwen", State.FAILED, "\x1b[2Jbad\r\x07"),))
    assert "\x1b" not in text(replace(PICTURE, models=told))


def test_ready_means_every_enabled_model() -> None:
    assert not PICTURE.ready
    ready = tuple(replace(state, state=State.READY) for state in MODELS.models[:3])
    assert replace(PICTURE, models=replace(MODELS, models=(*ready, MODELS.models[3]))).ready


READY, LOADING = ModelState("a", State.READY), ModelState("a", State.LOADING)
RESTING = ModelState("a", State.STOPPED, on_call=True)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((READY,), "1 of 1 model ready"),
        ((READY, None, LOADING, ModelState("a", State.STOPPED)), "1 of 4 models ready"),
        ((READY, READY, RESTING, ModelState("a", State.SLEEPING, on_call=True)), "2 of 2 models ready, 2 at rest"),
        ((READY, replace(RESTING, awaited=True)), "1 of 2 models ready"),
        ((READY, replace(LOADING, on_call=True)), "1 of 2 models ready"),
        ((RESTING,), "1 model at rest"),
        ((), "0 of 0 models ready"),
    ],
)
def test_models_at_rest_are_no_models_that_lack(states: tuple[ModelState | None, ...], words: str) -> None:
    assert ready_words(states) == words


def test_the_live_screen_shows_the_same_text() -> None:
    assert screen(PICTURE, 200).plain == text(PICTURE, 200)


@pytest.mark.parametrize(("tries", "words"), [(1, "failed once"), (2, "failed 2 times in a row")])
def test_a_model_that_had_been_ready_did_not_fail_to_start(tries: int, words: str) -> None:
    loading = ModelState("qwen", State.LOADING, "ended by SIGKILL", since_at=NOW - 3, tries=tries)
    assert f"qwen: ended by SIGKILL; 3s so far; {words}\n" in text(
        replace(PICTURE, models=replace(MODELS, models=(loading,)))
    )


@pytest.mark.parametrize(("expected", "end"), [(None, "failed 2 times in a row\n"), (4.0, "; ready in about 7s\n")])
def test_when_it_will_be_ready_is_told_only_of_a_model_that_has_been(expected: float | None, end: str) -> None:
    failing = ModelState("qwen", State.BACKOFF, "exit code 1", tries=2, retry_after=7.0, expected=expected)
    shown = text(replace(PICTURE, models=replace(MODELS, models=(failing,))))
    assert "qwen: exit code 1; failed 2 times in a row" in shown
    assert end in shown


def test_whoever_is_queued_waits_for_its_turn_and_is_never_ready_in_no_time() -> None:
    queued = ModelState("qwen", State.QUEUED, since_at=NOW - 3, retry_after=0.2)
    shown = text(replace(PICTURE, models=replace(MODELS, models=(queued,))))
    assert "qwen: waits for its turn; 3s so far; ready in about 1s\n" in shown


def test_workers_are_not_missed_while_the_set_starts() -> None:
    starting = replace(PICTURE, counts=replace(COUNTS, workers=COUNTS.workers[:1]), began=NOW - 1)
    shown = text(starting)
    assert "\nproxy    http://127.0.0.1:8000/v1  1 of 2 workers so far  10 connections\n" in shown
    assert "proxy: " not in shown
    for late in (replace(starting, began=NOW - 6), replace(starting, proxy_words="no keys")):
        assert "\nproxy: 1 of 2 workers alive; " in text(late)
        assert "1 of 2 workers  10 connections" in text(late)


def test_one_of_a_kind_is_not_called_several() -> None:
    outline = replace(OUTLINE, workers=1)
    counts = replace(COUNTS, workers=(replace(COUNTS.workers[0], connections=1),))
    assert "/v1  1 worker  1 connection\n" in text(replace(PICTURE, outline=outline, counts=counts))
    assert "/v1  0 of 1 worker\n" in text(replace(PICTURE, outline=outline, counts=replace(counts, workers=())))


def test_the_unix_socket_is_shown_beside_the_port() -> None:
    shown = text(replace(PICTURE, outline=replace(OUTLINE, unix_socket="/run/p.sock")))
    assert "proxy    http://127.0.0.1:8000/v1  /run/p.sock  2 workers" in shown
