"""Bytes of a terminal as keys: pure, and total, since a terminal may send anything.

A key is called by what it writes (`q`, `é`, `/`) or by its name (`up`, `pgdn`, `enter`, `escape`, `ctrl-u`). What is
no key that anybody listens to is called `other`, whole: the rest of an unknown sequence is never taken for letters.
An Escape alone and the beginning of a sequence look alike, so `Keys.idle` says that nothing more came for a while.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator

#: Seconds after which an Escape that nothing followed was the key; over ssh a sequence arrives in one piece as a rule.
ESCAPE_AFTER = 0.1
OTHER = "other"

_ESCAPE = "\x1b"
_LONGEST = 32  # characters of a sequence: a terminal that sends more than that sends nonsense
_PLAIN = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x15": "ctrl-u",
    "\x0c": "ctrl-l",
    "\x06": "pgdn",  # Ctrl-F and Ctrl-B, as in less
    "\x02": "pgup",
}
#: By the last character of `ESC [ … x` and `ESC O x`: ECMA-48 and xterm's ctlseqs.
_FINALS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "backtab",
    "M": "enter",
}
#: By the number of `ESC [ n ~`.
_NUMBERS = {"1": "home", "4": "end", "5": "pgup", "6": "pgdn", "7": "home", "8": "end"}


class Keys:
    """Turns what was read into keys, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._begun = ""

    @property
    def waits(self) -> bool:
        """Whether a sequence has begun that may go on."""
        return bool(self._begun)

    def feed(self, data: bytes) -> Iterator[str]:
        """The keys that are complete with this."""
        for character in self._decoder.decode(data):
            yield from self._take(character)

    def idle(self) -> Iterator[str]:
        """Nothing more came for `ESCAPE_AFTER`: what has begun is all there is."""
        begun, self._begun = self._begun, ""
        if begun:
            yield "escape" if begun == _ESCAPE else OTHER

    def _take(self, character: str) -> Iterator[str]:
        if self._begun:
            yield from self._go_on(self._begun, character)
        elif character == _ESCAPE:
            self._begun = character
        else:
            yield _name(character)

    def _go_on(self, begun: str, character: str) -> Iterator[str]:
        self._begun = ""
        if character == _ESCAPE:  # the one before was the key
            yield "escape" if begun == _ESCAPE else OTHER
            self._begun = character
        elif begun == _ESCAPE and character in "[O":
            self._begun = begun + character
        elif begun == _ESCAPE:  # Alt and a key
            yield OTHER
        elif begun == "\x1bO" or "\x40" <= character <= "\x7e":
            yield _sequence(begun[2:], character)
        elif len(begun) < _LONGEST and " " <= character <= "?":
            self._begun = begun + character
        else:
            yield OTHER


def _name(character: str) -> str:
    return _PLAIN.get(character, character if character.isprintable() and character != "\ufffd" else OTHER)


def _sequence(parameters: str, final: str) -> str:
    if final == "~":
        return _NUMBERS.get(parameters.partition(";")[0], OTHER)
    return _FINALS.get(final, OTHER)
