"""Who waits for a place at a model's engines: in turn, client by client. Pure.

Rules:
- The clients that wait stand in a ring. Each turn gives the first of them its oldest item and puts it behind all
  others, so one that asks for much delays nobody who asks for little; a newcomer stands at the end, so coming and going
  gains nothing.
- A full queue is shared as well: whoever has the most in it gives its newest place to who has at least two fewer. So
  one client alone cannot keep the others out, and places stop moving once the shares are equal.
- A place is free as soon as its item was given or taken away, and of a client that waits for nothing nothing is kept:
  memory follows what waits now, and that has a bound. Everything is O(1), however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class QueueFull(Exception):
    """As many wait as may, and nobody has much more places than who asks."""


class FairQueue(Generic[T]):
    """A bounded queue that gives each client its turn; `len()` is the number of items that wait."""

    __slots__ = ("_clients", "_count", "_most", "_shares", "size")

    def __init__(self, size: int) -> None:
        """`size` is how many items may wait, all clients together; 0 lets none."""
        self.size = size
        self._count = self._most = 0  # all items, and those of the client that has the most
        # Plain dicts would do, but finding the first key of one is slow once many before it were taken away.
        self._clients: OrderedDict[bytes, OrderedDict[T, None]] = OrderedDict()
        #: The clients that have so many items, who came to that number last at the end.
        self._shares: dict[int, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<FairQueue {self._count} of {self.size} from {len(self._clients)} clients>"

    def put(self, client: bytes, item: T) -> T | None:
        """Let an item wait for its turn; returns the one that waits no longer because of it, or None.

        Raises QueueFull, and ValueError where the same item of this client waits already.
        """
        items = self._clients.get(client)
        if items is not None and item in items:
            raise ValueError("the item waits already")
        share = 0 if items is None else len(items)
        loser = self._make_room(share) if self._count >= self.size else None
        if items is None:
            items = self._clients[client] = OrderedDict()
        items[item] = None
        self._count += 1
        self._move(client, share, share + 1)
        return loser

    def remove(self, client: bytes, item: T) -> bool:
        """Take an item away whose client left; False where it does not wait."""
        items = self._clients.get(client)
        if items is None or item not in items:
            return False
        del items[item]
        if not items:
            del self._clients[client]
        self._count -= 1
        self._move(client, len(items) + 1, len(items))
        return True

    def take_out(self, goes: Callable[[T], bool]) -> list[T]:
        """Take away all that go, and return them; the others keep their turns."""
        found = [(client, item) for client, items in self._clients.items() for item in items if goes(item)]
        for client, item in found:
            self.remove(client, item)
        return [item for _, item in found]

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
        self._move(client, len(items) + 1, len(items))
        return item

    def _make_room(self, share: int) -> T:
        """Take the newest item of a client that has the most, for one that has `share`. Raises QueueFull."""
        if self._most <= share + 1:
            raise QueueFull
        client = next(reversed(self._shares[self._most]))
        item = next(reversed(self._clients[client]))
        self.remove(client, item)
        return item

    def _move(self, client: bytes, before: int, after: int) -> None:
        """A client has one item more, or one less, than before."""
        if after:
            self._shares.setdefault(after, OrderedDict())[client] = None
        if before:
            others = self._shares[before]
            del others[client]
            if not others:
                del self._shares[before]
        if after > self._most or self._most not in self._shares:
            self._most = after
