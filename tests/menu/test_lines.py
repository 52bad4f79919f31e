"""Lines of views, made to fit above a question."""

from __future__ import annotations

from vllm_circus.menu.lines import within
from vllm_circus.view.table import Cell, Line, paint


def shown(*lines: Line, width: int = 30) -> list[str]:
    return [paint(line, colour=False) for line in within(lines, width)]


def test_a_long_sentence_goes_on_below_itself() -> None:
    assert shown((Cell("  fix   "), Cell("write less of it, or buy a larger card")), width=24) == [
        "  fix   write less of",
        "        it, or buy a",
        "        larger card",
    ]


def test_what_is_only_shown_is_cut() -> None:
    assert shown((Cell("  log  "), Cell("x" * 40, "dim"))) == ["  log  " + "x" * 22 + "…"]


def test_a_path_stays_whole() -> None:
    assert shown((Cell("at "), Cell("see /a/path/that/is/longer/than/all/of/it"))) == [
        "at see",
        "   /a/path/that/is/longer/than/all/of/it",
    ]


def test_what_fits_stays_as_it_is() -> None:
    lines: list[Line] = [(), (Cell("a", "bold"), Cell("b"))]
    assert list(within(lines, 30)) == lines
