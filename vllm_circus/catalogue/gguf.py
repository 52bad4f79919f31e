"""The header of a GGUF file: what a model in one file says of itself.

Source: the specification in ggml's docs/gguf.md. Rules: numbers are little-endian (files of the other kind are told
apart by their version and left alone); every count and length is checked against what a file may hold before anything
is read; arrays are stepped over; whatever is wrong, the answer is None or what was read so far, and never an error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_KEYS = 10_000
_LONGEST_KEY = 65_535  # the specification's own bound
_LONGEST_TEXT = 4096  # of a value that is kept; longer ones (chat templates) are stepped over
_MOST_READ = 64 << 20  # bytes of a header; a vocabulary of 260,000 words takes 8 MiB
_MOST_WORDS = 1 << 20  # of an array of texts
#: Kinds of values by number: how struct reads them. 8 is a text, 9 an array.
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
#: `general.file_type`: llama.cpp's `llama_ftype`.
_FILE_TYPES = (  # in the order of their numbers; those of `-` are not used any more
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS IQ2_XS"
    " Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 MXFP4"
)
#: The same in file names: what stands before the ending, and before the number of a part.
_NAMED = re.compile(
    r"[-._]((?:UD-)?(?:I?Q\d+_(?:K(?:_(?:XXL|XL|[SML]))?|\d|XXS|XS|NL|[SML])|[TI]Q\d_\d|BF16|F16|FP16|F32|MXFP4(?:_MOE)?))"
    r"(?:-\d{5}-of-\d{5})?\.gguf$",
    re.IGNORECASE,
)
PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


class _Unusable(Exception):
    """The header ends too early, or cannot be one."""


@dataclass(frozen=True)
class Gguf:
    """What the header says; `values` holds its numbers and short texts, and of arrays their length."""

    values: Mapping[str, object] = field(default_factory=dict)

    def word(self, key: str) -> str:
        """A text; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def whole(self, key: str) -> int | None:
        """A whole number that a model may have; None where there is none."""
        value = self.values.get(key)
        usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10**8
        return value if usable and isinstance(value, int) else None

    @property
    def architecture(self) -> str:
        """The family: `llama`, `qwen3moe`, `bert`."""
        return self.word("general.architecture")

    def own(self, key: str) -> int | None:
        """A number of the family's own, such as `context_length`."""
        return self.whole(f"{self.architecture}.{key}")

    @property
    def quantisation(self) -> str:
        """The type of most of its weights; empty where the header does not say, or says something new."""
        value = self.values.get("general.file_type")
        names = _FILE_TYPES.split()
        return names[value].strip("-") if isinstance(value, int) and 0 <= value < len(names) else ""


def read_gguf_file(path: Path) -> Gguf | None:
    """The header of a file; None where it is none that can be read. What its name says need not be looked for."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return read_gguf(file, until_vocabulary=bool(quantisation_of_name(path.name)))
    except (OSError, ValueError):
        return None


def quantisation_of_name(name: str) -> str:
    """The type of weights that a file's name ends in: `model-Q4_K_M.gguf`; empty where there is none."""
    found = _NAMED.search(name)
    return found[1].upper() if found else ""


def read_gguf(file: BinaryIO, *, until_vocabulary: bool = False) -> Gguf | None:
    """The header that a stream begins with; None where it is none. A broken one gives what comes before the fault.

    `until_vocabulary` stops at the model's words, which are by far the most of it: the type of the weights may stand
    behind them.
    """
    reader = _Reader(file)
    try:
        if reader.take(4) != _MAGIC or reader.number("<I") not in _VERSIONS:
            return None
        reader.number("<Q")  # tensors
        count = reader.number("<Q")
    except _Unusable:
        return None
    values: dict[str, object] = {}
    try:
        for _ in range(min(int(count), _MOST_KEYS)):
            key = reader.text(_LONGEST_KEY)
            if key is None:
                break
            kind = int(reader.number("<I"))
            if until_vocabulary and kind == _ARRAY and key.startswith("tokenizer."):
                break
            values[key] = reader.value(kind)
    except _Unusable:
        pass
    return Gguf(values)


class _Reader:
    """A stream that is read forwards, within a bound."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MOST_READ

    def take(self, count: int) -> bytes:
        """So many bytes. Raises _Unusable where there are fewer."""
        self._left -= count
        data = self._file.read(count) if self._left >= 0 else b""
        if len(data) != count:
            raise _Unusable
        return data

    def skip(self, count: int) -> None:
        """Step over so many bytes; behind the end is found out by the next `take`."""
        self._left -= count
        if self._left < 0:
            raise _Unusable
        self._file.seek(count, 1)

    def number(self, form: str) -> int | float:
        """One number, as `struct` reads it."""
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value  # type: ignore[no-any-return]  # the forms are those of numbers

    def text(self, longest: int = _LONGEST_TEXT) -> str | None:
        """A text; None where it is longer, and was stepped over."""
        length = int(self.number("<Q"))
        if length > longest:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> object:
        """A number, a text, or the length of an array."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise _Unusable
        inner, length = int(self.number("<I")), int(self.number("<Q"))
        if inner in _NUMBERS:
            self.skip(length * struct.calcsize(_NUMBERS[inner]))
        elif inner == _TEXT and length <= _MOST_WORDS:
            for _ in range(length):
                self.skip(int(self.number("<Q")))
        else:
            raise _Unusable
        return length
