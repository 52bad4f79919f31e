"""Which replica of a model gets a request, and which is left alone for a while. Pure.

Rules:
- The one with the fewest requests in flight; among equals they take turns.
- With an affinity key each key has an order of its own over all replicas (rendezvous hashing): the highest weight, a
  hash of key and replica, comes first. A replica that comes or goes moves only its own share of the keys, and every
  worker finds the same order. Who has much more to do than the least busy is passed over.
- A replica that refuses a connection, or fails several times in a row, is out for a while. Then one request tries it:
  if it fails the time doubles, if it does not the replica is in again and all is forgotten.
- A model that is ready always has somebody: where all its replicas are out, all that are ready are used, and the first
  answer brings the one that gave it back.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import Protocol, TypeVar

from vllm_circus.config.models import Ejection

#: A replica has much more to do than the least busy one when it has more than so many times as many requests …
BUSY_SHARE = 2
#: … and so many on top.
BUSY_MARGIN = 4
#: Bytes of a prompt's beginning that decide where it goes: some 64 tokens, four blocks of vLLM's prefix cache.
PREFIX = 256
#: Bytes of a body that are searched for the prompt; what stands before it is short.
SEARCHED = 16 << 10

_PROMPTS = (b'"messages"', b'"prompt"', b'"input"')
_COLON = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")
_MASK = (1 << 64) - 1


class Standing(Enum):
    """Whether a replica may have requests."""

    IN = "in"
    OUT = "out"
    #: Its time is over and nobody tries it yet: one request may.
    TRIAL = "trial"


class Ejector:
    """How one replica has done lately; `marked` is False while there is nothing to forget."""

    __slots__ = ("_failures", "_pause", "_rules", "_trying", "_until", "marked")

    def __init__(self, ejection: Ejection) -> None:
        self._rules = ejection
        self.marked = False
        self._forget()

    def __repr__(self) -> str:
        if self._pause:
            return f"<Ejector out for {self._pause:g} s{', being tried' if self._trying else ''}>"
        return f"<Ejector in, {self._failures} failures in a row>"

    def settle(self, ejection: Ejection) -> None:
        """Go by these rules from now on; who is out is so for as long as was said."""
        self._rules = ejection

    def state(self, now: float) -> Standing:
        """OUT also while another request tries it."""
        if not self._pause:
            return Standing.IN
        return Standing.OUT if self._trying or now < self._until else Standing.TRIAL

    def try_(self, now: float) -> bool:
        """Claim the trial; False where none is due or another request has it.

        Who has it tells how it ends by one of `succeeded()`, `failed(trial=True)` and `abandoned()`.
        """
        if self.state(now) is not Standing.TRIAL:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """A request was answered, and not by a 5xx: whatever was before counts no longer."""
        if self.marked:
            self._forget()

    def failed(self, now: float, *, refused: bool, trial: bool = False) -> None:
        """A request got a 5xx or lost its answer; `refused`: it could not even connect.

        While the replica is out only the trial counts (`trial`): others that fail were sent before, or for want of a
        better one.
        """
        self.marked = True
        if self._pause:
            if trial and self._trying:
                self._eject(now, self._pause * 2)
            return
        self._failures += 1
        if refused or self._failures >= self._rules.failures:
            self._eject(now, self._rules.seconds)

    def abandoned(self) -> None:
        """The client whose request was the trial left before it showed anything: another may try at once."""
        self._trying = False

    def _eject(self, now: float, pause: float) -> None:
        self._pause = min(pause, self._rules.max_seconds)
        self._until = now + self._pause
        self._trying = False

    def _forget(self) -> None:
        self.marked = self._trying = False
        self._failures = 0
        self._pause = self._until = 0.0  # a pause of zero: it is in


class Replica(Protocol):
    """What is asked of a replica."""

    @property
    def is_ready(self) -> bool:
        """Whether its engine is ready, by all that the worker knows."""

    @property
    def load(self) -> int:
        """Requests in flight there."""

    @property
    def seed(self) -> int:
        """`seed_of` its name."""

    @property
    def ejector(self) -> Ejector:
        """How it has done lately."""


R = TypeVar("R", bound=Replica)


def candidates(replicas: Sequence[R], now: float) -> Sequence[R]:
    """Those among which `choose` is to choose; empty where none is ready.

    One whose trial is due stands alone, so that it gets this request: whoever was chosen is asked for it by
    `ejector.try_(now)`.
    """
    ready = [replica for replica in replicas if replica.is_ready]
    usual = []
    for replica in ready:
        standing = replica.ejector.state(now) if replica.ejector.marked else Standing.IN
        if standing is Standing.TRIAL:
            return (replica,)
        if standing is Standing.IN:
            usual.append(replica)
    return usual or ready


def choose(replicas: Sequence[R], *, turn: int, key: int | None = None) -> R:
    """The replica for one request, out of at least one.

    `turn` is a number that grows with each request, so that equals take turns; `key` is what `affinity_key` or
    `prefix_key` gave.
    """
    if len(replicas) == 1:
        return replicas[0]
    least = min(replica.load for replica in replicas)
    if key is None:
        idle = [replica for replica in replicas if replica.load == least]
        return idle[turn % len(idle)]
    most = BUSY_SHARE * least + BUSY_MARGIN
    return max((replica for replica in replicas if replica.load <= most), key=lambda it: _mixed(it.seed ^ key))


def seed_of(name: str) -> int:
    """64 bits that stand for a replica's name in every worker."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def affinity_key(value: bytes | None) -> int | None:
    """The key of a header's value; None where there is none or an empty one."""
    return zlib.crc32(value) if value else None


def prefix_key(beginning: bytes) -> int | None:
    """The key of a JSON body by the first `PREFIX` bytes of its prompt; None for an empty body.

    `beginning` is the body's first `SEARCHED` + `PREFIX` bytes or more, or all of it where it is shorter. The prompt
    is the value of `messages`, `prompt` or `input`, so other members before it do not matter; without one the body
    itself counts. Nothing is parsed: a quote within a string is escaped, so text cannot pose as one of these keys,
    and a nested member of that name only makes another key, the same one each time.
    """
    if not beginning:
        return None
    at = next((found for name in _PROMPTS if (found := _value_of(name, beginning)) >= 0), 0)
    return zlib.crc32(beginning[at : at + PREFIX])


def _value_of(name: bytes, beginning: bytes) -> int:
    """Where the value of the first member with this name begins, or -1."""
    at = beginning.find(name, 0, SEARCHED)
    while at >= 0:
        at += len(name)
        colon = _COLON.match(beginning, at, SEARCHED + PREFIX)
        if colon is not None:
            return colon.end()
        at = beginning.find(name, at, SEARCHED)
    return -1


def _mixed(value: int) -> int:
    """The 64 bits well mixed (the last steps of splitmix64): a checksum alone is too regular for weights."""
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
