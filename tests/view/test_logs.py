"""Which log lines are shown, in what order, how."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vllm_circus.logline import encode
from vllm_circus.view.logs import BEGINNING, Entry, Form, Wanted, last_complaint, merge, parse_since, read_entries
from vllm_circus.view.table import paint

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def entry(part: str, second: int, text: str = "text") -> Entry:
    return Entry(NOON + timedelta(seconds=second), part, "O", text)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("0s", 0), ("1d1h1m1s", 90_061)],
)
def test_a_span_lies_before_now(text: str, ago: int) -> None:
    assert parse_since(text, NOON) == NOON - timedelta(seconds=ago)


def test_a_date_with_a_zone_is_that_moment() -> None:
    assert parse_since("2026-11-23T14:00:00+02:00", NOON) == NOON


def test_a_date_without_a_zone_is_local() -> None:
    assert parse_since("2026-11-23T12:00", NOON) == datetime(2026, 11, 23, 12).astimezone()


def test_a_span_before_all_times_is_the_beginning() -> None:
    assert parse_since("999999999d", NOON) == BEGINNING


@pytest.mark.parametrize("text", ["", "soon", "10", "-5m", "5m ago", "10x", "2026-13-45", "9" * 5000 + "s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a span"):
        parse_since(text, NOON)


def test_a_line_without_a_time_takes_that_of_the_line_before() -> None:
    lines = [encode(NOON, "E", "Traceback:"), "  who wrote this?\n", encode(NOON + timedelta(seconds=1), "O", "on")]
    entries = list(read_entries("a", lines))
    assert [(e.at, e.channel, e.text) for e in entries] == [
        (NOON, "E", "Traceback:"),
        (NOON, "E", "  who wrote this?"),
        (NOON + timedelta(seconds=1), "O", "on"),
    ]


def test_the_first_lines_without_a_time_take_that_of_the_line_after() -> None:
    lines = ["warning: one\n", "warning: two\n", encode(NOON, "E", "begin"), "more\n"]
    assert {e.at for e in read_entries("a", lines)} == {NOON}
    assert [e.text for e in read_entries("a", lines)] == ["warning: one", "warning: two", "begin", "more"]
    assert [e.at for e in read_entries("a", ["no time at all"])] == [BEGINNING]


@pytest.mark.parametrize(
    "known",
    [
        "INFO chat: queued -> loading",
        "INFO chat: loading -> backoff: exit code 1",
        "(APIServer pid=12) INFO 11-23 14:31:53 [launcher.py:195] Route: /v1/models, Methods: GET",
    ],
)
def test_beside_the_states_what_is_known_is_left_out(known: str) -> None:
    assert not Wanted(brief=True).matches(entry("a", 1, known))
    assert Wanted().matches(entry("a", 1, known))
    assert Wanted(brief=True).matches(entry("a", 1, "WARNING chat: no port -> it waits"))
    assert Wanted(brief=True).matches(entry("a", 1, "INFO chat: started"))


def test_parts_are_merged_by_time() -> None:
    one, other = [entry("a", 1), entry("a", 4)], [entry("b", 2), entry("b", 3)]
    assert [e.part for e in merge([one, other])] == ["a", "b", "b", "a"]


@given(some.lists(some.lists(some.integers(0, 50)), max_size=4))
def test_merging_loses_nothing_and_keeps_each_parts_order(times: list[list[int]]) -> None:
    parts = [[entry(str(p), t, str(i)) for i, t in enumerate(part)] for p, part in enumerate(times)]
    merged = list(merge(parts))
    assert sorted(map(repr, merged)) == sorted(repr(e) for part in parts for e in part)
    for p, part in enumerate(parts):
        assert [e for e in merged if e.part == str(p)] == part
    if all(part == sorted(part) for part in times):
        assert [e.at for e in merged] == sorted(e.at for e in merged)


def test_filters_hold_together() -> None:
    wanted = Wanted(NOON + timedelta(seconds=2), re.compile("err"))
    lines = [entry("a", 1, "err"), entry("a", 2, "an err"), entry("a", 3, "fine")]
    assert [e.text for e in lines if wanted.matches(e)] == ["an err"]


@pytest.mark.parametrize("client", ["127.0.0.1:47456", "[::1]:47456", ""], ids=["IPv4", "IPv6", "unix socket"])
@pytest.mark.parametrize("path", ["health", "ping"])
def test_good_probes_are_left_out_however_the_engine_listens(client: str, path: str) -> None:
    probe = entry("a", 1, f'INFO:     {client} - "GET /{path} HTTP/1.1" 200 OK')
    assert not Wanted().matches(probe)
    assert Wanted(probes=True).matches(probe)


@pytest.mark.parametrize("client", ["127.0.0.1:47456", ""], ids=["TCP", "unix socket"])
def test_bad_probes_and_requests_are_shown(client: str) -> None:
    assert Wanted().matches(entry("a", 1, f'INFO:     {client} - "GET /health HTTP/1.1" 503 Service Unavailable'))
    assert Wanted().matches(entry("a", 1, f'INFO:     {client} - "GET /v1/models HTTP/1.1" 200 OK'))


def test_a_search_finds_no_probes_that_are_left_out() -> None:
    probe = entry("a", 1, 'INFO:     127.0.0.1:47456 - "GET /health HTTP/1.1" 200 OK')
    request = entry("a", 1, 'INFO:     127.0.0.1:47456 - "POST /v1/completions HTTP/1.1" 200 OK')
    assert not Wanted(pattern=re.compile("200")).matches(probe)
    assert Wanted(pattern=re.compile("200")).matches(request)
    assert Wanted(pattern=re.compile("200"), probes=True).matches(probe)


def shown(form: Form, *entries: Entry) -> list[str]:
    return [paint(form.line(e), colour=form.colour) for e in entries]


def test_one_part_is_shown_bare() -> None:
    assert shown(Form(("qwen",)), entry("qwen", 0, "hello")) == ["hello"]


def test_several_parts_are_named_and_lined_up() -> None:
    assert shown(Form(("qwen", "proxy")), entry("qwen", 0), entry("proxy", 0)) == ["qwen  | text", "proxy | text"]


def test_models_have_colours_and_our_own_parts_are_dim() -> None:
    form = Form(("qwen", "proxy"), colour=True)
    assert shown(form, entry("qwen", 0), entry("proxy", 0)) == [
        "\x1b[36mqwen  | \x1b[0mtext",
        "\x1b[2mproxy | \x1b[0mtext",
    ]


def test_times_are_local() -> None:
    (line,) = shown(Form(("qwen",), times=True), entry("qwen", 0))
    assert line == NOON.astimezone().strftime("%H:%M:%S.000 text")


def test_json_has_one_document_a_line() -> None:
    (line,) = shown(Form(("qwen",), as_json=True), entry("qwen", 0, 'a "b"'))
    assert json.loads(line) == {
        "at": "2026-11-23T12:00:00.000+00:00",
        "part": "qwen",
        "channel": "stdout",
        "text": 'a "b"',
    }


@given(some.text())
def test_no_line_can_act_on_a_terminal(text: str) -> None:
    for form in (Form(("a",)), Form(("a",), as_json=True)):
        assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", shown(form, entry("a", 0, text))[0])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ""),
        (["O listening"], ""),
        (["E error: no keys", "E   chmod 600 keys", "O later"], "error: no keys; chmod 600 keys"),
        (["E error: old", "E   old hint", "E error: new"], "error: new"),
        (["E Traceback", "E   File x", "E     raise y", "E ValueError: \x1b[2Jodd"], "ValueError: odd"),
    ],
)
def test_what_a_program_last_complained_of_is_one_line(lines: list[str], words: str) -> None:
    entries = [Entry(BEGINNING, "proxy", "E" if line[0] == "E" else "O", line[2:]) for line in lines]
    assert last_complaint(entries) == words
