"""The format of our log files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.logline import LogLine, clean, decode, encode

AT = datetime(2026, 11, 23, 14, 31, 53, 123_456, tzinfo=UTC)


def test_a_line_says_when_on_which_channel_and_what() -> None:
    assert encode(AT, "O", "INFO ready") == "2026-11-23T14:31:53.123+00:00 O INFO ready\n"
    elsewhere = AT.astimezone(timezone(timedelta(hours=2)))
    assert encode(elsewhere, "E", "x").startswith("2026-11-23T14:31:53.123+00:00 E")


def test_colours_are_dropped_and_control_characters_spelled_out() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x1bc") == "red bell\\x07 "
    assert clean("a\rb\x9bc") == "a\\x0db\\x9bc"
    assert clean("tab\tstays, ünïcode stays") == "tab\tstays, ünïcode stays"


def test_a_line_of_something_else_is_none() -> None:
    for line in [
        "",
        "hello",
        "2026-11-23T14:31:53.123+00:00",
        "2026-11-23T14:31:53.123+00:00 X no",
        "x" * 29 + " O no",
    ]:
        assert decode(line) is None


@given(st.text(), st.sampled_from(["O", "E"]), st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))
def test_every_line_comes_back_cleaned_and_stays_one_line(text: str, channel: str, at: datetime) -> None:
    written = encode(at, "O" if channel == "O" else "E", text)
    assert written.count("\n") == 1
    back = decode(written)
    assert isinstance(back, LogLine)
    assert (back.channel, back.text) == (channel, clean(text))
    assert abs(back.at - at) < timedelta(milliseconds=1)


@given(st.text())
def test_what_is_clean_has_no_control_characters_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert not any((ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for c in cleaned)
    assert clean(cleaned) == cleaned
