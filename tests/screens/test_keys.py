"""Bytes of terminals as keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.screens.help import STARTUP_KEYS, key_line
from vllm_circus.screens.keys import OTHER, Keys


def pressed(data: bytes) -> list[str]:
    keys = Keys()
    return [*keys.feed(data), *keys.idle()]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"q", ["q"]),
        (b"/x\r", ["/", "x", "enter"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b", ["escape", "escape"]),
        (b"\x1b[A\x1b[B\x1bOC\x1bOD", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~\x1b[1~\x1b[4~\x1b[H\x1b[F", ["pgup", "pgdn", "home", "end", "home", "end"]),
        (b"\x1b[1;5A\x1b[5;2~", ["up", "pgup"]),  # with Ctrl, with Shift
        (b"\t\x1b[Z", ["tab", "backtab"]),
        (b"\x7f\x08\x15", ["backspace", "backspace", "ctrl-u"]),
        (b"\x06\x02\x0c", ["pgdn", "pgup", "ctrl-l"]),
        (b"\x00\x01", [OTHER, OTHER]),
        (b"\x1bq", [OTHER]),  # Alt and q does not leave
        (b"\x1b[200~q", [OTHER, "q"]),
        (b"\x1b[<0;10;5Mq", ["enter", "q"]),
        (b"\x1b[99", [OTHER]),
        (b"\xff", [OTHER]),
    ],
)
def test_what_terminals_send(data: bytes, names: list[str]) -> None:
    assert pressed(data) == names


def test_a_sequence_may_come_in_pieces() -> None:
    keys = Keys()
    assert list(keys.feed(b"\x1b")) == []
    assert keys.waits
    assert list(keys.feed(b"[")) == []
    assert list(keys.feed(b"A")) == ["up"]
    assert not keys.waits
    assert list(keys.feed("é".encode()[:1])) == []
    assert list(keys.feed("é".encode()[1:])) == ["é"]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_are_ever_an_error_and_every_key_can_be_told(pieces: list[bytes]) -> None:
    keys = Keys()
    names = [name for piece in pieces for name in [*keys.feed(piece), *keys.idle()]]
    assert all(name and name.isprintable() for name in names)
    assert not keys.waits


@given(st.binary(max_size=200), st.integers(0, 200))
def test_how_the_bytes_are_cut_makes_no_difference(data: bytes, at: int) -> None:
    keys = Keys()
    assert [*keys.feed(data[:at]), *keys.feed(data[at:]), *keys.idle()] == pressed(data)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (47, "r retry  c continue without it  q leave  ? keys"),
        (46, "r retry  c continue  q leave  ? keys"),
        (35, "r retry  c continue  ? keys"),
        (20, "r retry  ? keys"),
        (5, "? keys"),
    ],
)
def test_the_bottom_line_says_less_of_a_key_before_it_leaves_one_out(width: int, line: str) -> None:
    offered = [key for key in STARTUP_KEYS if key.keys in {"r", "c", "q, Escape", "?"}]
    (cell,) = key_line(offered, width)
    assert cell.text == line
