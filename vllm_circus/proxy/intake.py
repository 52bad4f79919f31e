"""The request's body on its way in: framed, searched for its model, held until it may go on. Pure.

Rules: the raw bytes are kept as they came, chunk framing included, and given away in one go; what is decoded is only
looked at. A large piece is never copied: it is kept as a view of what was read. The limit counts the body proper, so
nobody gets around it with tiny chunks.
"""

from __future__ import annotations

from typing import Final

from vllm_circus.proxy.allow import Page, Where
from vllm_circus.proxy.bodymodel import BadBody, FormModel, JsonModel, ModelFinder, NoModel
from vllm_circus.proxy.errors import BadMessage, Refused
from vllm_circus.proxy.framing import MORE, BadFraming, ByChunks, ByLength
from vllm_circus.proxy.head import RequestHead

#: A piece of a body, as it came.
Piece = bytes | memoryview

#: Chunk framing may be so many times as long as what it frames, beside `_FRAMING_FREE`.
_FRAMING_SHARE: Final = 4
_FRAMING_FREE: Final = 64 << 10
#: Bytes of a body on a path whose body names no model: it is held whole, and some such paths need no key.
_NO_MODEL_LIMIT: Final = 64 << 10
#: Bytes from which a view is cheaper than a copy.
_LARGE: Final = 4096


class Intake:
    """One request's body.

    Attributes:
        complete: its last byte has come.
        error: what is wrong with what it says, or None.
        held: raw bytes that wait here.
        total: raw bytes that came.
    """

    __slots__ = ("_chunks", "_finder", "_length", "_limit", "_pieces", "complete", "error", "held", "total")

    def __init__(self, head: RequestHead, length: int | None, page: Page, limit: int) -> None:
        """Raises Refused where the header alone shows that the body will not do; `limit` is in bytes."""
        if not page.in_body:
            limit = min(limit, _NO_MODEL_LIMIT)
        self._limit = limit
        if length is not None and length > limit:
            raise too_large(limit)
        self._finder = _finder(head, page)
        self._chunks = ByChunks() if head.chunked else None
        self._length = ByLength(length or 0)
        self._pieces: list[Piece] = []
        self.held = self.total = 0
        self.error: Refused | None = None
        self.complete = not head.chunked and not length
        if self.complete:
            self._finish()

    @property
    def model(self) -> str | None:
        """The model named so far."""
        return self._finder.name

    def feed(self, data: bytes, at: int) -> int:
        """Read on from `at`: index after the body's last byte, or `MORE`. Raises Refused."""
        if self.complete:
            return at
        end = self._by_length(data, at) if self._chunks is None else self._by_chunks(self._chunks, data, at)
        stop = len(data) if end == MORE else end
        piece: Piece = data
        if at or stop != len(data):
            piece = memoryview(data)[at:stop] if stop - at >= _LARGE else data[at:stop]
        self._pieces.append(piece)
        self.held += stop - at
        self.total += stop - at
        if self._chunks is not None and self.total > _FRAMING_FREE + _FRAMING_SHARE * self._chunks.payload:
            raise BadMessage("The body is nearly all chunk framing.")
        if end != MORE:
            self.complete = True
            self._finish()
        return end

    def _by_length(self, data: bytes, at: int) -> int:
        end = self._length.feed(data, at)
        self._search(data if end in {MORE, len(data)} else data[:end], at)
        return end

    def _by_chunks(self, chunks: ByChunks, data: bytes, at: int) -> int:
        parts: list[bytes] = []
        try:
            end = chunks.feed(data, at, parts)
        except BadFraming as error:
            raise BadMessage(f"The body is malformed: {error}.") from None
        if chunks.payload > self._limit:
            raise too_large(self._limit)
        self._search(b"".join(parts), 0)
        return end

    def _search(self, data: bytes, at: int) -> None:
        """Look for the model; what is wrong with the body is noted, since where it ends is known all the same."""
        if self.error is not None:
            return
        try:
            self._finder.feed(data, at)
        except Refused as error:
            self.error = error
        self._note_conflict()

    def _finish(self) -> None:
        if self.error is not None:
            return
        try:
            self._finder.finish()
        except Refused as error:
            self.error = error
        self._note_conflict()

    def _note_conflict(self) -> None:
        if self._finder.conflict:
            self.error = Refused(400, "duplicate_model", "Two different models are named.", param="model")

    def take(self) -> list[Piece]:
        """What is held; it is held no longer."""
        pieces, self._pieces = self._pieces, []
        self.held = 0
        return pieces

    def peek(self) -> list[Piece]:
        """What is held; it stays."""
        return list(self._pieces)


def _finder(head: RequestHead, page: Page) -> ModelFinder:
    if page.where is Where.JSON:
        return JsonModel()
    if page.where is Where.FORM:
        content_type = head.read.get(b"content-type", b"")
        if not content_type.lower().startswith(b"multipart/form-data"):
            raise BadBody("This path takes a multipart form.")
        return FormModel(content_type)
    return NoModel()


def too_large(limit: int) -> Refused:
    """413."""
    return Refused(413, "body_too_large", f"The body is larger than {limit} bytes.")
