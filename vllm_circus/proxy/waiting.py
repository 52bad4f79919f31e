"""Who waits for a place at a model's engines: in turn, client by client. Pure.

Rules: the clients that wait stand in a ring. Each turn gives the first of them its oldest item and puts it behind all
others, so one that asks for much delays nobody who asks for little; a newcomer stands at the end, so coming and going
gains nothing. A place is free as soon as its item was given or taken away, and of a client that waits for nothing
nothing is kept: memory follows what waits now, and that has a bound. Everything is O(1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class QueueFull(Exception):
    """As many wait as may."""


class FairQueue(Generic[T]):
    """A bounded queue that gives each client its turn; `len()` is the number of items that wait."""

    __slots__ = ("_clients", "_count", "size")

    def __init__(self, size: int) -> None:
        """`size` is how many items may wait, all clients together; 0 lets none."""
        self.size = size
        self._count = 0
        # Plain dicts would do, but finding the first key of one is slow once many before it were taken away.
        self._clients: OrderedDict[bytes, OrderedDict[T, None]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<FairQueue {self._count} of {self.size} from {len(self._clients)} clients>"

    def put(self, client: bytes, item: T) -> None:
        """Let an item wait for its turn.

        Raises QueueFull, and ValueError where the same item of this client waits already.
        """
        if self._count >= self.size:
            raise QueueFull
        items = self._clients.get(client)
        if items is None:
            items = self._clients[client] = OrderedDict()
        elif item in items:
            raise ValueError("the item waits already")
        items[item] = None
        self._count += 1

    def remove(self, client: bytes, item: T) -> bool:
        """Take an item away whose client left; False where it does not wait."""
        items = self._clients.get(client)
        if items is None or item not in items:
            return False
        del items[item]
        if not items:
            del self._clients[client]
        self._count -= 1
        return True

    def pop(self) -> T | None:
        """The item whose turn it is, or None where none waits."""
        if not self._count:
            return None
        client = next(iter(self._clients))
        items = self._clients[client]
        item, _ = items.popitem(last=False)
        if items:
            self._clients.move_to_end(client)
        else:
            del self._clients[client]
        self._count -= 1
        return item
