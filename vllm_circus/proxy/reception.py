"""What the head of a request decides by itself: whether it is well-formed, where it may go, who may send it.

Rules: nothing here changes while a worker lives (pages, keys, origins, limits), and a client's heads differ in little
but their Content-Length. So what is decided about a head is remembered by its bytes around that number, bounded; and
who sends the same head again on a kept connection pays for comparing it, a tenth of looking for its end and for its
length and of finding what was remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_circus.config.models import Limits
from vllm_circus.proxy.allow import Page, Where, find_page
from vllm_circus.proxy.cors import Cors
from vllm_circus.proxy.errors import BadMessage, Refused, unknown_path
from vllm_circus.proxy.fields import USUAL_HEAD, cut_length, read_again, without_length
from vllm_circus.proxy.head import NO_HEAD, RequestHead, header_too_large, parse_head, whole_length
from vllm_circus.proxy.keys import Keys

#: Heads that are remembered: some ten megabytes at the most, with what is made of each.
_MOST_HEADS: Final = 1024


class Mark:
    """Tells who read a head, without being the one who has all others too."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A head and what follows from it.

    Attributes:
        page: where it goes; None where the path is not public.
        refusal: why it goes nowhere, or None.
        cors: the lines that every answer to it has, for browsers.
        forwards: it says itself whom it is forwarded for, so what engines are told is not the connection's usual.
        plain: nothing about it is unusual: a JSON body of known length, no Expect, no Upgrade, and nothing refused.
        before, after: the head as it came, around the digits of its Content-Length; see `read_again`.
        by: who read it.
    """

    head: RequestHead
    page: Page | None
    refusal: Refused | None
    cors: bytes
    forwards: bool
    plain: bool
    before: bytes
    after: bytes
    by: Mark | None


#: Stands for what is no request: how it would have gone on is not known.
NOTHING: Final = Prepared(NO_HEAD, None, None, b"", forwards=False, plain=False, before=b"", after=b"", by=None)


class Reception:
    """Reads heads for one worker.

    Attributes:
        max_body: bytes of a body at most.
    """

    def __init__(self, keys: Keys, cors: Cors, limits: Limits) -> None:
        self._keys = keys
        self._cors = cors
        self._limits = limits
        self._max_header = limits.max_header_bytes + 4  # with the empty line
        self.max_body = limits.max_body_bytes
        self._remembered: dict[tuple[bytes, bytes], Prepared] = {}
        self._mark = Mark()

    def read(self, raw: bytes) -> tuple[Prepared, int | None]:
        """A whole head, from its request line to the empty line, and its Content-Length. Raises BadMessage."""
        before, after, length = cut_length(raw)
        prepared = self._remembered.get((before, after))
        if prepared is None:
            prepared = self._prepare(before, after)
            if len(raw) <= USUAL_HEAD:
                self._remember(prepared)
        if len(raw) - prepared.head.line > self._max_header:
            raise header_too_large()
        return prepared, length if prepared.plain else whole_length(prepared.head, length)

    def read_plain(self, data: bytes, usual: Prepared) -> tuple[Prepared, int, int]:
        """The plain head with which the data begins, where it ends, and its Content-Length.

        `usual` is what the same client sent before, which it mostly sends again. The length is 0 where there is no
        such head, or where a closer look is needed.
        """
        if usual.by is self._mark:
            end, length = read_again(data, usual.before, usual.after)
            if 0 < end < len(data) and end <= usual.head.line + self._max_header:
                return usual, end, length
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end == len(data):
            return NOTHING, 0, 0
        try:
            prepared, size = self.read(data[:end])
        except BadMessage:  # it will be found once more
            return NOTHING, 0, 0
        return prepared, end, size if size is not None and prepared.plain else 0

    def _remember(self, prepared: Prepared) -> None:
        """Keep it. When there are too many all go: to know which was used last costs each request more than that."""
        if len(self._remembered) >= _MOST_HEADS:
            self._remembered.clear()
        self._remembered[prepared.before, prepared.after] = prepared

    def _prepare(self, before: bytes, after: bytes) -> Prepared:
        head = parse_head(without_length(before, after), self._limits)
        page = find_page(head.path)
        refusal = None
        try:
            self._admit(head, page)
        except Refused as error:
            refusal = error.with_traceback(None)  # it is kept: its frames need not be
        read = head.read
        plain = (
            refusal is None
            and page is not None
            and page.where is Where.JSON
            and head.method in page.methods  # OPTIONS is let in without a key, and answered here
            and not (head.chunked or head.expects or head.upgrade)
            and b"content-length" not in read
        )
        forwards = b"x-forwarded-for" in read or b"x-forwarded-proto" in read
        cors = self._cors.lines(read.get(b"origin"))
        return Prepared(head, page, refusal, cors, forwards, plain, before, after, self._mark)

    def _admit(self, head: RequestHead, page: Page | None) -> None:
        """Raises Refused where key, path or method are wrong; OPTIONS needs no key, since browsers send none."""
        if head.method == b"OPTIONS":
            if page is None and head.path != b"*":
                raise unknown_path()
            return
        if page is None or not page.open:
            self._keys.check(head.read)
        if page is None:
            raise unknown_path()
        if head.method not in page.methods:
            allow = b"allow: " + b", ".join(sorted(page.methods))
            raise Refused(405, "method_not_allowed", "This path does not take that method.", headers=(allow,))
