"""What is told on the bus: frozen data, one JSON document a message, each with the version of its form.

Two publishers, each an XPUB that sends the last message of a topic to every new subscriber:

- the health plugin, topic `models`: `ModelsMessage`, the state of every model, whole each time;
- the stats plugin, topic `counts`: `CountsMessage`, the sums over all workers that ever were, whole each time.

One inbox: proxy workers push `WorkerMessage`, cumulative since that worker started, to the stats plugin. Since every
message is a whole picture, a lost one loses nothing. Every publisher repeats its message at least every
`HEARTBEAT` seconds: one that is silent for three of those is dead, whatever circus says.

Operator commands go as `CommandMessage` to the health plugin, which answers each with `ReplyMessage`.

A field with a default may be added without a new version: whoever does not know it leaves it out, and reads the rest.

Times called `*_at` are wall-clock seconds since 1970, for showing only; decisions use durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from vllm_circus.gpu import Gpu
from vllm_circus.lifecycle.life import Crash
from vllm_circus.lifecycle.states import State

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pydantic import TypeAdapter

VERSION = 2
HEARTBEAT = 1.0
TOPIC_MODELS = b"models"
TOPIC_COUNTS = b"counts"

#: Upper bounds of the histogram buckets, in seconds; the last bucket is open.
FIRST_TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CHUNK_GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
DURATION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True)
class Histogram:
    """Counts per bucket (not cumulative; one more than there are bounds), and the sum of all values in seconds."""

    counts: tuple[int, ...]
    total: float = 0.0

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)


def empty_histogram(bounds: tuple[float, ...]) -> Histogram:
    """No values yet."""
    return Histogram((0,) * (len(bounds) + 1))


@dataclass(frozen=True)
class ModelState:
    """One model as the health plugin sees it.

    Attributes:
        state: where it is in its life.
        reason: why, one cleaned line for people; empty where the state says all.
        since_at: when it came into this state; 0 where nobody knows, as of one that never ran.
        pid: of the API server, while there is one.
        started_at: when this process was started; None while there is none.
        phase: what loading is at, from its log (`loading weights`); empty outside loading.
        tries: how often in a row it did not start, or ended before it had been ready for `restart.reset_after`.
        retry_after: seconds until it is expected to be ready, or None where nobody can say.
        expected: seconds that its loads usually take, or None before the first.
        fix: what to do about `reason`, one sentence; empty where nobody knows.
        awaited: requests may wait for it: it is on its way because somebody wished so, not after a crash.
        on_call: a request starts it or wakes it up (`want`).
        names: what the running engine answers to; empty where that is all that the plan says, or none runs.
        crash: the last one, or None.
        probed_at: when the last good probe of this process began; None before the first.
        failures: probes that failed in a row since then.
        restarts: how often in a row it was started again without anybody's wish.
    """

    name: str
    state: State
    reason: str = ""
    since_at: float = 0.0
    pid: int | None = None
    started_at: float | None = None
    phase: str = ""
    tries: int = 0
    retry_after: float | None = None
    expected: float | None = None
    fix: str = ""
    awaited: bool = False
    on_call: bool = False
    names: tuple[str, ...] = ()
    crash: Crash | None = None
    probed_at: float | None = None
    failures: int = 0
    restarts: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether it is not to be ready now: the next request brings it up."""
        return self.on_call and not self.awaited and self.state in {State.STOPPED, State.SLEEPING}


@dataclass(frozen=True)
class ModelsMessage:
    """Every model's state. `sequence` grows with each change of a state that matters to routing.

    `plan` is the digest of the plan.json that the health plugin works by (see `plan.types.digest_of`): who has read
    another one reads it again.
    """

    sent_at: float
    pid: int
    sequence: int
    models: tuple[ModelState, ...]
    plan: str = ""
    version: int = VERSION


@dataclass(frozen=True)
class ModelCounts:
    """What happened to requests for one model, since the beginning.

    Attributes:
        statuses: number of finished requests by HTTP status; 499 is a client that left before the end.
        in_flight: requests being served now.
        waiting: requests that wait in the queue now; those of a model with replicas stand with its first one.
        streams: how many of all requests were answered as event streams.
        chunks: events of those streams, which is nearly the number of tokens.
        prompt_tokens, completion_tokens: from the `usage` of answers that carried one.
        cut: answers that ended before their end.
        first_token: seconds from the request to the first body byte of the answer.
        duration: seconds from the request to the end of the answer.
        chunk_gap: seconds between two pieces of a stream.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    in_flight: int = 0
    waiting: int = 0
    streams: int = 0
    chunks: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    first_token: Histogram = field(default_factory=lambda: empty_histogram(FIRST_TOKEN_BUCKETS))
    duration: Histogram = field(default_factory=lambda: empty_histogram(DURATION_BUCKETS))
    chunk_gap: Histogram = field(default_factory=lambda: empty_histogram(CHUNK_GAP_BUCKETS))

    @property
    def requests(self) -> int:
        """Finished requests."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Finished requests that were answered with a 5xx, or cut."""
        return sum(n for status, n in self.statuses.items() if status >= 500) + self.cut


@dataclass(frozen=True)
class WorkerMessage:
    """One proxy worker's counters since it started; `worker` is unique for ever (pid and start time).

    `sequence` is that of the last `ModelsMessage` it acts on, so that whoever drains a model knows when no worker
    sends there any more. `unrouted` counts requests that named no known model, by status.
    """

    worker: str
    pid: int
    sent_at: float
    sequence: int
    connections: int
    models: dict[str, ModelCounts]
    unrouted: dict[int, int] = field(default_factory=dict)
    leaving: bool = False
    version: int = VERSION


@dataclass(frozen=True)
class WorkerState:
    """One living proxy worker."""

    pid: int
    sequence: int
    connections: int
    seen_at: float


@dataclass(frozen=True)
class CountsMessage:
    """The sums over all workers, living and dead; `rates` are of the last ten seconds, a second.

    `first_token` is, by model, what the last minute added to the histogram of that name.
    """

    sent_at: float
    pid: int
    models: dict[str, ModelCounts]
    unrouted: dict[int, int]
    request_rate: dict[str, float]
    token_rate: dict[str, float]
    workers: tuple[WorkerState, ...]
    gpus: tuple[Gpu, ...]
    first_token: dict[str, Histogram] = field(default_factory=dict)
    version: int = VERSION


Verb = Literal["start", "stop", "restart", "sleep", "wake", "want", "reload"]


@dataclass(frozen=True)
class CommandMessage:
    """A wish. `models` are names of engines (`NAME-1` of a model with replicas); empty means all.

    `want` is a proxy worker's: requests wait for the model. It is said again each second while they do. All others are
    an operator's. Replicas of one model are restarted in turns, whatever is asked for. `reload` means the set: the
    plan.json is new. `level` is how deeply to sleep.
    """

    verb: Verb
    models: tuple[str, ...]
    level: Literal[1, 2] = 1
    version: int = VERSION


@dataclass(frozen=True)
class ReplyMessage:
    """What became of it: `accepted` names the models that will change, `error` says why nothing was done."""

    accepted: tuple[str, ...]
    error: str = ""
    version: int = VERSION


M = TypeVar("M")


def encode(message: Any) -> bytes:
    """A message as JSON."""
    return _adapter(cast("Hashable", type(message))).dump_json(message)


def decode(kind: type[M], data: bytes) -> M:
    """A message read back. Raises ValueError on anything else, another version included."""
    message: M = _adapter(cast("Hashable", kind)).validate_json(data)
    version = getattr(message, "version", VERSION)
    if version != VERSION:
        raise ValueError(f"{kind.__name__} of version {version}, this program reads {VERSION}")
    return message


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter
