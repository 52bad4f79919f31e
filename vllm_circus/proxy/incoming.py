"""A request as it comes in: its head, its body, what is held of it, and what is edited.

Rules: what is held is counted for the whole worker, and given away as soon as it cannot be sent again. Edits start
from the body as it came, whichever model is to answer in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vllm_circus.proxy.allow import Where
from vllm_circus.proxy.fields import find_field
from vllm_circus.proxy.framing import ByChunks
from vllm_circus.proxy.intake import Intake, Piece
from vllm_circus.proxy.keys import presented_key
from vllm_circus.proxy.naming import in_form, in_json, in_query

if TYPE_CHECKING:
    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.reception import Prepared
    from vllm_circus.proxy.relay import Relay
    from vllm_circus.proxy.rewrite import Rewriter


class Incoming:
    """See the module.

    Attributes:
        down: the client's connection.
        length: the body's Content-Length, None where it has none.
        complete: the whole request has come.
        intake: what reads the body; None where it came whole, or has not begun.
        hides_usage: the engine is asked for a usage that the client did not ask for.
        retried: it has been sent twice.
    """

    __slots__ = (
        "_counted",
        "_pieces",
        "_relay",
        "_unedited",
        "complete",
        "down",
        "head",
        "hides_usage",
        "intake",
        "length",
        "prepared",
        "request_bytes",
        "request_id",
        "retried",
    )

    def __init__(
        self, relay: Relay, down: Downstream, prepared: Prepared, length: int | None, request_id: bytes
    ) -> None:
        self._relay = relay
        self.down = down
        self.prepared = prepared
        self.head = head = prepared.head
        self.length = length
        self.request_id = request_id
        self.complete = not length and not head.chunked
        self.intake: Intake | None = None
        self._pieces: Sequence[Piece] = ()  # of a body that needs no intake, or was edited
        self._unedited: tuple[Sequence[Piece], int | None] | None = None  # these and the length, before
        self.retried = self.hides_usage = False
        self._counted = self.request_bytes = 0

    @property
    def has_body(self) -> bool:
        """Whether the request announces any byte of a body."""
        return self.head.chunked or bool(self.length)

    @property
    def is_anthropic(self) -> bool:
        """Whether errors have Anthropic's shape."""
        page = self.prepared.page
        return page is not None and page.anthropic

    @property
    def sender(self) -> bytes:
        """Who sent it, as far as fairness goes: the key, or else the address.

        Where no key opens anything nobody checked one, and a client could show as many as it likes.
        """
        return (presented_key(self.head.read) if self._relay.keys else None) or self.down.peer

    def header(self, name: bytes) -> bytes | None:
        """The value of a header field, by its lower-case name."""
        return self.head.read.get(name) or find_field(self.head.rest, name)

    def beginning(self, size: int) -> bytes:
        """The first bytes of the body, as far as they are here."""
        found = bytearray()
        for piece in self._held():
            found += piece[: size - len(found)]
        return bytes(found)

    def whole(self) -> bytes:
        """The body without its framing; all of it is here."""
        body = b"".join(self._held())
        if not self.head.chunked or self.intake is None:
            return body
        parts: list[bytes] = []
        ByChunks().feed(body, 0, parts)
        return b"".join(parts)

    def _held(self) -> Sequence[Piece]:
        """The body, as far as it is here."""
        return self._pieces if self._pieces or self.intake is None else self.intake.peek()

    def _hold(self, size: int) -> None:
        """So many bytes more of it wait here. Raises Refused when there are too many."""
        self._counted += size  # first: what finds no room is counted, too
        self._relay.hold(size)

    def _release(self) -> Sequence[Piece]:
        """What is held of the body; it is held no longer."""
        pieces, self._pieces = self._pieces, ()
        self._unedited = None
        if self._counted:
            self._relay.hold(-self._counted)
            self._counted = 0
        if self.intake is None or not self.intake.held:
            return pieces
        held = self.intake.take()
        return pieces or held

    def _can_be_sent_again(self) -> bool:
        """Whether every byte of it is still here."""
        if self.retried or not self.complete:
            return False
        return bool(self._pieces) or (self.intake is not None and self.intake.held == self.intake.total)

    def _rewrite(self, rewriter: Rewriter | None, name: str | None) -> None:
        """Edit it as the rules of the model have it that is to answer, and name that; None where it is named.

        Raises Refused.
        """
        if self._unedited is not None:  # another was to answer before
            self._pieces, self.length = self._unedited
            self._unedited = None
            self.hides_usage = False
        page, self.head = self.prepared.page, self.prepared.head
        if name is not None and page is not None and not page.in_body:
            self.head = in_query(self.head, name)
            return
        if not self.complete or (rewriter is None and name is None):
            return
        body = self.whole()
        if rewriter is not None:
            edited = rewriter.rewrite(body)
            self.hides_usage = edited.added_usage
            body = edited.body
        if name is not None:
            body = self._renamed(body, name)
        self._unedited = self._pieces, self.length
        self._pieces = (body,)
        self.length = len(body)

    def _renamed(self, body: bytes, name: str) -> bytes:
        page = self.prepared.page
        if page is not None and page.where is Where.FORM:
            return in_form(body, self.head.read.get(b"content-type", b""), name)
        return in_json(body, name)
