"""What the plan says about the requests for one model: how many, how long they wait, what is changed. Pure.

A new plan makes new rules; these never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_circus.plan.types import PREFIX, ModelPlan, ProxyPlan
from vllm_circus.proxy.balance import PREFIX as PREFIX_BYTES
from vllm_circus.proxy.balance import SEARCHED, affinity_key, prefix_key
from vllm_circus.proxy.rewrite import Rewriter
from vllm_circus.proxy.stored import RESPONSES

if TYPE_CHECKING:
    from vllm_circus.proxy.request import Request

#: Paths whose streams end with an event that tells the usage, if that is asked for.
_WITH_USAGE = frozenset({b"/v1/chat/completions", b"/v1/completions"})
#: Paths whose bodies are edited: those that generate.
_REWRITTEN = _WITH_USAGE | {b"/v1/chat/completions/batch", RESPONSES, b"/v1/messages", b"/invocations"}


class Rules:
    """See the module.

    Attributes:
        limit: requests that each engine gets at a time, of this worker; None for no limit.
        size: requests that may wait in one queue.
        timeout: seconds that one waits for its turn.
        hold: seconds that one waits for an engine that is on its way; 0 where none does.
        comments: seconds between two comments that a waiting stream is sent; None sends none.
        names: what clients may call it; adapters: those that no other model answers to.
        changes_nothing: no request of any path is edited.
    """

    __slots__ = (
        "_affinity",
        "_rewriter",
        "_usage_rewriter",
        "adapters",
        "changes_nothing",
        "comments",
        "hold",
        "limit",
        "names",
        "size",
        "timeout",
    )

    def __init__(self, plan: ModelPlan, proxy: ProxyPlan) -> None:
        self._rewriter = Rewriter(plan.request, include_usage=False)
        self._usage_rewriter = Rewriter(plan.request, include_usage=proxy.exact_usage)
        self._affinity = plan.affinity
        self.limit = None if plan.max_in_flight is None else max(1, plan.max_in_flight // proxy.workers)
        self.size = plan.queue.size
        self.timeout = plan.queue.timeout
        self.hold = plan.queue.hold if plan.queue.size else 0.0
        self.comments = plan.queue.comments
        self.names = plan.names
        self.adapters = frozenset(adapter.name for adapter in plan.adapters)
        self.changes_nothing = self._usage_rewriter.changes_nothing

    def rewriter_for(self, path: bytes) -> Rewriter | None:
        """What is changed in requests for this path, or None for nothing."""
        rewriter = self._usage_rewriter if path in _WITH_USAGE else self._rewriter
        return None if rewriter.changes_nothing or path not in _REWRITTEN else rewriter

    def key(self, exchange: Request) -> int | None:
        """What requests have in common that are to go to the same engine; None where they need not."""
        if self._affinity is None:
            return None
        if self._affinity == PREFIX:
            return prefix_key(exchange.beginning(SEARCHED + PREFIX_BYTES))
        return affinity_key(exchange.header(self._affinity.encode()))
