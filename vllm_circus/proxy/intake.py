"""The request's body on its way in: framed, searched for its model, held until it may go on. Pure.

Rules: the raw bytes are kept as they came, chunk framing included, and given away in one go; what is decoded is only
looked at. The limit counts the body proper, so nobody gets around it with tiny chunks.
"""

from __future__ import annotations

from vllm_circus.proxy.allow import Page, Where
from vllm_circus.proxy.bodymodel import BadBody, FormModel, JsonModel, ModelFinder, NoModel
from vllm_circus.proxy.errors import BadMessage, Refused
from vllm_circus.proxy.framing import MORE, BadFraming, ByChunks, ByLength, Framing
from vllm_circus.proxy.head import RequestHead

#: Chunk framing may be so many times as long as what it frames, beside `_FRAMING_FREE`.
_FRAMING_SHARE = 4
_FRAMING_FREE = 64 << 10

#: Bytes of a body on a path whose body names no model: it is held whole, and some such paths need no key.
_NO_MODEL_LIMIT = 64 << 10


class Intake:
    """One request's body.

    Attributes:
        complete: its last byte has come.
        error: what is wrong with what it says, or None.
        held: raw bytes that wait here.
        total: raw bytes that came.
    """

    __slots__ = ("_finder", "_framing", "_limit", "_pieces", "complete", "error", "held", "total")

    def __init__(self, head: RequestHead, length: int | None, page: Page, limit: int) -> None:
        """Raises Refused where the header alone shows that the body will not do; `limit` is in bytes."""
        if not page.in_body:
            limit = min(limit, _NO_MODEL_LIMIT)
        self._limit = limit
        if length is not None and length > limit:
            raise _too_large(limit)
        self._finder = _finder(head, page)
        self._framing: Framing | None = None
        if head.chunked:
            self._framing = ByChunks()
        elif length:
            self._framing = ByLength(length)
        self._pieces: list[bytes] = []
        self.held = self.total = 0
        self.error: Refused | None = None
        self.complete = self._framing is None
        if self.complete:
            self._search(b"")

    @property
    def model(self) -> str | None:
        """The model named so far."""
        return self._finder.name

    def feed(self, data: bytes, at: int) -> int:
        """Read on from `at`: index after the body's last byte, or `MORE`. Raises Refused."""
        framing = self._framing
        if framing is None:
            return at
        parts: list[bytes] = []
        try:
            end = framing.feed(data, at, parts)
        except BadFraming as error:
            raise BadMessage(f"The body is malformed: {error}.") from None
        piece = data if at == 0 and end in {MORE, len(data)} else data[at : end if end != MORE else None]
        self.total += len(piece)
        if framing.payload > self._limit:
            raise _too_large(self._limit)
        if self.total > _FRAMING_FREE + _FRAMING_SHARE * framing.payload:
            raise BadMessage("The body is nearly all chunk framing.")
        self._pieces.append(piece)
        self.held += len(piece)
        self.complete = end != MORE
        self._search(b"".join(parts))
        return end

    def _search(self, data: bytes) -> None:
        """Look for the model; what is wrong with the body is noted, since where it ends is known all the same."""
        if self.error is not None:
            return
        finder = self._finder
        try:
            if data:
                finder.feed(data)
            if self.complete:
                finder.finish()
        except Refused as error:
            self.error = error
        if finder.conflict:
            self.error = Refused(400, "duplicate_model", "Two different models are named.", param="model")

    def take(self) -> bytes:
        """What is held; it is held no longer."""
        data = self.peek()
        self._pieces = []
        self.held = 0
        return data

    def peek(self) -> bytes:
        """What is held; it stays."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def _finder(head: RequestHead, page: Page) -> ModelFinder:
    if page.where is Where.JSON:
        return JsonModel()
    if page.where is Where.FORM:
        content_type = head.read.get(b"content-type", b"")
        if not content_type.lower().startswith(b"multipart/form-data"):
            raise BadBody("This path takes a multipart form.")
        return FormModel(content_type)
    return NoModel()


def _too_large(limit: int) -> Refused:
    return Refused(413, "body_too_large", f"The body is larger than {limit} bytes.")
