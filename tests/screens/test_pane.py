"""A log that scrolls, follows and is searched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.screens.drawn import check_fits, entries, numbered, text
from vllm_circus.screens.pane import KEPT, Pane, add, found, pane_lines, pane_words, press, spots
from vllm_circus.view.table import paint

ROWS = 5
KEYS = ["up", "down", "pgup", "pgdn", "home", "end", "g", "G", "j", "k", " ", "f", "w", "t", "/", "n", "N"]


def after(pane: Pane, *names: str) -> Pane:
    for name in names:
        changed = press(pane, name, ROWS)
        assert changed is not None, name
        pane = changed
    return pane


def shown(pane: Pane, width: int = 40) -> list[str]:
    return text(pane_lines(pane, ("proxy",), width, ROWS))


def words(pane: Pane) -> str:
    return paint(pane_words(pane), colour=False)


TEN = add(Pane(), numbered(10))


def test_it_follows_from_the_beginning() -> None:
    assert shown(TEN) == ["line 5", "line 6", "line 7", "line 8", "line 9"]
    assert shown(add(TEN, entries("proxy", "new")))[-1] == "new"
    assert words(TEN) == "follows"


def test_lines_are_scrolled_and_stay_where_they_are() -> None:
    up = after(TEN, "up", "up")
    assert shown(up) == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    assert shown(add(up, entries("proxy", "new"))) == shown(up)
    assert words(up) == "line 8 of 10"


def test_pages_overlap_by_a_line_and_end_at_both_ends() -> None:
    assert shown(after(TEN, "pgup"))[-1] == "line 5"
    assert shown(after(TEN, "pgup", "pgup", "pgup"))[0] == "line 0"
    assert after(TEN, "pgup", "pgdn", "pgdn").follows


def test_home_and_end() -> None:
    assert shown(after(TEN, "home")) == ["line 0", "line 1", "line 2", "line 3", "line 4"]
    assert after(TEN, "home", "end").follows


def test_scrolling_down_to_the_end_follows_again() -> None:
    assert after(TEN, "up", "down").follows
    assert not after(TEN, "up", "up", "down").follows


def test_follow_is_switched_off_and_on() -> None:
    still = after(TEN, "f")
    assert not still.follows
    assert shown(add(still, entries("proxy", "new")))[-1] == "line 9"
    assert after(still, "f").follows


def test_a_search_finds_the_newest_and_goes_on_upwards() -> None:
    log = add(Pane(), entries("proxy", "an error", "fine", "ERROR again", *["dull"] * 9))
    found_one = after(log, "/", *"error", "enter")
    assert found_one.hit == 2
    assert "ERROR again" in shown(found_one)
    assert after(found_one, "n").hit == 0
    assert after(found_one, "n", "n").hit == 0  # there is no other
    assert after(found_one, "n", "N").hit == 2
    assert words(found_one).startswith("/error  2 of 12 lines")


def test_a_capital_makes_case_count() -> None:
    log = add(Pane(), entries("proxy", "error", "Error"))
    assert found(after(log, "/", *"error", "enter")) == 2
    assert found(after(log, "/", *"Error", "enter")) == 1


def test_what_is_found_is_marked() -> None:
    log = after(add(Pane(), entries("proxy", "an error in an error")), "/", *"err", "enter")
    (line,) = [line for line in pane_lines(log, ("proxy",), 40, ROWS) if line]
    assert [cell.text for cell in line if cell.style == "mark"] == ["err", "err"]


def test_a_search_that_finds_nothing_says_so_and_moves_nothing() -> None:
    nothing = after(TEN, "/", *"zebra", "enter")
    assert shown(nothing) == shown(TEN)
    assert "nothing found" in words(nothing)


def test_typing_a_search_can_be_corrected_and_given_up() -> None:
    assert after(TEN, "/", *"linq", "backspace", "e", "enter").query == "line"
    assert after(TEN, "/", *"x", "ctrl-u", "9", "enter").query == "9"
    assert after(TEN, "/", *"x", "escape").typing is None
    searching = after(TEN, "/", *"9", "enter")
    assert after(searching, "/", "enter").query == ""  # an empty search ends it


def test_while_a_search_is_typed_every_letter_belongs_to_it() -> None:
    assert after(TEN, "/", "q", "f", "?", "tab", "up", "pgup").typing == "qf?"


def test_long_lines_are_cut_or_wrapped() -> None:
    log = add(Pane(), entries("proxy", "x" * 25))
    assert shown(log, 10)[0] == "xxxxxxxxx…"
    assert shown(after(log, "w"), 10)[:3] == ["x" * 10, "x" * 10, "x" * 5]


def test_times_are_shown_where_they_are_wanted() -> None:
    assert shown(after(TEN, "t"))[-1].endswith(" line 9")
    assert len(shown(after(TEN, "t"))[-1]) > len("line 9")


def test_old_lines_are_forgotten_and_places_stay() -> None:
    pane = after(TEN, "home")
    full = add(pane, numbered(KEPT))
    assert len(full.entries) == KEPT
    assert full.dropped == 10
    assert full.end == KEPT + 10
    assert full.last == 10  # what was looked at is gone: the oldest that is left comes next


def test_other_keys_mean_nothing_here() -> None:
    assert [key for key in ("q", "escape", "tab", "?", "p", "l", "other", "ö") if press(TEN, key, ROWS)] == []


def test_letters_that_grow_when_they_are_made_small_are_not_marked_wrongly() -> None:
    assert list(spots("i", "İi")) == []
    assert list(spots("ab", "abab")) == [(0, 2), (2, 4)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(KEYS) | st.text(max_size=1) | st.sampled_from(["enter", "escape", "other", ""]), max_size=30
    ),
    st.integers(0, 12),
    st.integers(1, 50),
    st.integers(0, 30),
)
def test_no_keys_and_no_size_break_it(names: list[str], rows: int, width: int, lines: int) -> None:
    pane = add(Pane(), entries("proxy", *(f"{at} \x1b[31m漢\tx\x07" for at in range(lines))))
    for name in names:
        pane = press(pane, name, rows) or pane
        if rows:
            check_fits(pane_lines(pane, ("proxy",), width, rows), width, rows)
        assert pane.dropped <= pane.last <= pane.end
