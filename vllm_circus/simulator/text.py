"""Text and tokens without a model: a tokenizer that can be undone, answers that say what they are, embeddings.

A token is a word with the blank before it, a run of signs, or one blank. Ids are given in the order in which pieces
are first seen, so `detokenize` finds what `tokenize` gave. All of it is deterministic: the same server asked the
same things in the same order answers the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import re

VOCABULARY = 100_000
"""How many different pieces get an id of their own; further ones share them."""

MAX_CHARACTERS = 12
"""No token is longer than this many characters on the average: a longer prompt is refused unread."""

_PIECE = re.compile(r" ?\w{1,12}| ?[^\w\s]{1,12}|\s")


def pieces(text: str) -> list[str]:
    """The tokens of `text`; joined they are `text` again."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens `text` has."""
    return len(_PIECE.findall(text))


class Vocabulary:
    """The ids of the pieces that this server has seen."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []

    def encode(self, text: str) -> list[int]:
        """The ids of the tokens of `text`."""
        return [self._id(piece) for piece in pieces(text)]

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`; an id that was never given reads `<id>`."""
        known = len(self._texts)
        return "".join(self._texts[number] if 0 <= number < known else f"<{number}>" for number in ids)

    def _id(self, piece: str) -> int:
        found = self._ids.get(piece)
        if found is not None:
            return found
        if len(self._texts) >= VOCABULARY:
            return len(piece)
        self._texts.append(piece)
        self._ids[piece] = len(self._texts) - 1
        return self._ids[piece]


class Answer:
    """The text of every answer of one model: a sentence that says that it is simulated, over and over."""

    def __init__(self, model: str) -> None:
        self._pieces = pieces(f"This is a simulated answer from {model}: no model is loaded. ")
        if self._pieces[-1] == " ":
            self._pieces[0:1] = [" " + self._pieces[0]]
            del self._pieces[-1]

    def text(self, start: int, stop: int) -> str:
        """The tokens from `start` up to `stop`, counted from the beginning of the answer."""
        size = len(self._pieces)
        joined = "".join([self._pieces[index % size] for index in range(start, stop)])
        return joined[1:] if start == 0 else joined

    def until(self, limit: int, stops: list[str]) -> tuple[int, str | None]:
        """How many of `limit` tokens come before the first of `stops`, and which it is (None: none of them)."""
        span = min(limit, 3 * len(self._pieces))
        text = self.text(0, span)
        found = [(place, stop) for stop in stops if stop and (place := text.find(stop)) >= 0]
        if not found:
            return limit, None
        place, stop = min(found)
        length = 0
        for index in range(span):
            length += len(self.text(index, index + 1))
            if length > place:
                return index, stop
        return limit, None


def embedding(text: str, size: int) -> list[float]:
    """A vector of length 1 made of the words of `text`: texts that share words are close to each other."""
    vector = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode("utf-8", "replace")).digest()
        for place in range(0, 32, 4):
            slot = int.from_bytes(digest[place : place + 4], "big")
            vector[slot % size] += 1.0 if slot & 1 << 31 else -1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def similarity(one: list[float], other: list[float]) -> float:
    """The cosine of two vectors of length 1."""
    return sum(left * right for left, right in zip(one, other, strict=True))
