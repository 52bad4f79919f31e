"""A list as data: where the pointer goes, what the filter leaves, what is drawn on a small screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.listing import Listing, draw, make_listing

CHOICES: list[Choice[int] | Heading] = [
    Heading("fruit"),
    Choice(1, "apple", "red"),
    Choice(2, "banana", "yellow", "none is ripe"),
    Heading("other"),
    Choice(3, "bread", "of apples"),
]


def listing(*, many: bool = False, default: object = None, chosen: tuple[object, ...] = ()) -> Listing:
    return make_listing("Which?", CHOICES, many=many, default=default, chosen=chosen)


def lines(shown: Listing, columns: int = 80, rows: int = 24, explanation: str = "") -> list[str]:
    drawn = draw(shown, columns, rows, explanation)
    return ["".join(text for _, text in line).rstrip() for line in drawn]


def present(shown: Listing) -> object:
    return shown.present.value if shown.present else None


def test_the_pointer_begins_on_the_default() -> None:
    assert present(listing(default=3)) == 3


def test_the_pointer_begins_on_the_first_that_can_be_chosen() -> None:
    barred_first = make_listing("", [Choice(1, "a", barred="no"), Choice(2, "b")], many=False)
    assert present(barred_first) == 2


def test_the_pointer_passes_over_headings_and_comes_out_at_the_other_end() -> None:
    start = listing()
    assert [present(start.moved(step)) for step in (0, 1, 2, 3, -1)] == [1, 2, 3, 1, 3]


def test_a_page_stops_at_the_end() -> None:
    assert present(listing().moved(50, around=False)) == 3
    assert present(listing().moved(-50, around=False)) == 1


def test_what_is_called_so_comes_before_what_is_described_so() -> None:
    assert present(listing().typed("APPLE")) == 1
    assert [CHOICES[at] for at in listing().typed("apple").shown] == [CHOICES[1]]
    assert [CHOICES[at] for at in listing().typed("of app").shown] == [CHOICES[4]]


def test_the_pointer_goes_to_what_begins_as_the_filter() -> None:
    both = make_listing("", [Choice(1, "Start from saved configuration"), Choice(2, "Configure new proxy")], many=False)
    assert present(both.typed("conf")) == 2
    assert present(both.typed("configuration")) == 1
    assert present(both.typed("conf").typed("")) == 2


def test_a_filter_without_hits_leaves_nothing_to_choose() -> None:
    nothing = listing().typed("zebra")
    assert nothing.present is None
    assert nothing.moved(1).present is None
    assert "  nothing is called so" in lines(nothing)
    assert present(nothing.typed("")) == 1


def test_space_toggles_and_a_barred_choice_says_why_not() -> None:
    start = listing(many=True, chosen=(3,))
    assert start.picked == [3]
    assert start.toggled().picked == [1, 3]
    assert start.toggled().toggled().picked == [3]
    refused = start.moved(1).toggled()
    assert refused.picked == [3]
    assert refused.complaint == "not available: none is ripe"
    assert refused.moved(1).complaint == ""


def test_what_is_barred_is_never_chosen_beforehand() -> None:
    assert listing(many=True, chosen=(2, 3)).picked == [3]


def test_a_list_without_choices_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without choices"):
        make_listing("", [Heading("x")], many=False)


def test_a_list_is_drawn_with_pointer_hints_reasons_and_keys() -> None:
    assert lines(listing(many=True, chosen=(3,)), explanation="one is chosen") == [
        "? Which?",
        "  fruit:",
        "> [ ] apple     red",
        "      (banana)  none is ripe",
        "  other:",
        "  [x] bread     of apples",
        "  one is chosen",
        "  Space: on/off   Enter: done   Esc: back   type: filter",
    ]


def test_a_long_list_shows_what_is_around_the_pointer() -> None:
    many = make_listing("Which?", [Choice(n, f"m{n}") for n in range(100)], many=False, default=50)
    shown = lines(many, rows=12)
    assert len(shown) <= 11
    assert any("> m50" in line for line in shown)
    assert any("more above" in line for line in shown)
    assert any("more below" in line for line in shown)


def test_a_hint_that_is_cut_is_told_in_full_below() -> None:
    long = make_listing("Which?", [Choice(1, "a", "word " * 30)], many=False)
    shown = lines(long, columns=60)
    assert shown[1].endswith("...")
    assert " ".join(line.strip() for line in shown[2:-1]) == ("word " * 30).strip()


def test_wide_characters_count_as_two_columns() -> None:
    shown = lines(make_listing("模型", [Choice(1, "模" * 60, "x")], many=False), columns=40)
    assert shown[1] == "> 模模模模模模模模...  x"
    assert all(get_cwidth(line) <= 39 for line in shown)


def test_escape_codes_in_names_are_harmless() -> None:
    evil = make_listing("a\x1b[2Jb", [Choice(1, "x\x1b]0;t\x07y", "h\x1b[31m\rz")], many=False)
    assert all(line.isprintable() for line in lines(evil))


@given(
    columns=st.integers(1, 200),
    rows=st.integers(1, 60),
    count=st.integers(1, 80),
    at=st.integers(0, 200),
    typed=st.text(max_size=5),
    words=st.text(max_size=300),
)
def test_a_list_never_leaves_the_screen(columns: int, rows: int, count: int, at: int, typed: str, words: str) -> None:
    many = make_listing("Which?", [Choice(n, f"m{n}", words) for n in range(count)], many=True).moved(at)
    shown = lines(many.typed(typed), columns, rows, words)
    assert len(shown) <= max(rows - 1, 6)
    assert all(get_cwidth(line) <= max(columns - 1, 12) for line in shown)


@pytest.mark.parametrize("many", [True, False])
def test_the_keys_are_told_whole_or_not_at_all(many: bool) -> None:
    listing = make_listing("Which", [Choice(1, "one"), Choice(2, "two")], many=many)
    narrow, wide = lines(listing, columns=40)[-1], lines(listing, columns=80)[-1]
    assert "..." not in narrow
    assert wide.startswith(narrow)
    assert narrow.strip().endswith("Enter: done" if many else "Esc: back")
