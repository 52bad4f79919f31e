"""Whether it fits: what there is, less what is taken, against what one sequence of the wanted length needs.

vLLM starts where the cache has room for one sequence of `max-model-len` tokens, and where its whole share of each GPU
is free at that moment. Memory of several GPUs is counted on the smallest, since vLLM takes the same of each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from vllm_circus.gpu import Gpu
from vllm_circus.plan.fit.architecture import Architecture
from vllm_circus.plan.fit.cache import longest_sequence, sequence_bytes, token_bytes
from vllm_circus.plan.fit.lessons import Lesson
from vllm_circus.plan.fit.needs import Part, activations_part, graphs_part, other_part, weights_part
from vllm_circus.plan.fit.setup import Setup
from vllm_circus.plan.fit.weights import Weights


@dataclass(frozen=True)
class Case:
    """Everything that the answer depends on.

    Attributes:
        cards: the GPUs of one engine, with their sizes known.
        share: the part of each that it may take, 0 to 1.
        lesson: an earlier load with the same model and options, if there was one; `costs` where what it took beside
            weights and cache holds as well, `tokens` where its cache does.
    """

    model: Architecture
    weights: Weights
    setup: Setup
    cards: tuple[Gpu, ...]
    share: float
    lesson: Lesson | None = None
    costs: bool = False
    tokens: bool = False


@dataclass(frozen=True)
class Verdict:
    """The answer. Sizes are bytes of each GPU."""

    case: Case

    @property
    def memory(self) -> int:
        """Of the smallest GPU."""
        return min(card.memory_total or 0 for card in self.case.cards)

    @property
    def budget(self) -> int:
        """What it may take; all of the GPU where the cache's size is written down, as vLLM has it."""
        return self.memory if self.case.setup.cache_bytes else int(self.memory * self.case.share)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """What is taken beside the cache, by what it is for."""
        case, lesson = self.case, self.case.lesson
        weights = weights_part(case.model, case.weights, case.setup)
        if lesson is not None and lesson.weights is not None:
            weights = Part(lesson.weights, "told by its last load")
        if lesson is not None and case.costs and (overhead := lesson.overhead(self.memory)) is not None:
            return {"weights": weights, "while it runs": Part(overhead, "told by its last load")}
        return {
            "weights": weights,
            "activations": activations_part(case.model, case.setup),
            "CUDA graphs": graphs_part(case.model, case.setup),
            "other": other_part(case.setup),
        }

    @property
    def taken(self) -> int:
        """The sum of the parts."""
        return sum(part.size for part in self.parts.values())

    @property
    def room(self) -> int:
        """What is left for the cache; below 0 where not even the rest has room."""
        left = self.budget - self.taken
        written = self.case.setup.cache_bytes
        return left if written is None else min(left, written)

    @cached_property
    def scale(self) -> float:
        """By how much an earlier load's cache differs from what is reckoned; 1 where nothing was learnt."""
        case = self.case
        if not case.tokens or case.lesson is None or not case.lesson.tokens or not case.lesson.cache:
            return 1.0
        if any(layers.window for layers in case.model.cache):
            return 1.0  # its tokens are those of the length that it had then
        reckoned = token_bytes(case.model, case.setup)
        found = case.lesson.cache / case.lesson.tokens / reckoned if reckoned else 1.0
        return found if 0.5 < found < 2 else 1.0

    @property
    def token(self) -> int:
        """One more token."""
        return round(token_bytes(self.case.model, self.case.setup) * self.scale)

    @cached_property
    def longest(self) -> int:
        """The longest sequence that there is room for, up to what the model was made for or what is asked."""
        most = max(self.case.model.context, self.case.setup.context or 0)
        return longest_sequence(self.case.model, self.case.setup, int(self.room / self.scale), most)

    @property
    def context(self) -> int:
        """The length that it is to take."""
        setup = self.case.setup
        return max(self.longest, 1) if setup.automatic else setup.context or self.case.model.context

    @property
    def sequence(self) -> int:
        """One sequence of that length."""
        return round(sequence_bytes(self.case.model, self.case.setup, self.context) * self.scale)

    @property
    def sequences(self) -> float | None:
        """How many of them at a time, as far as the cache goes; None where they leave nothing in it."""
        return max(self.room, 0) / self.sequence if self.sequence else None

    @property
    def fits(self) -> bool:
        """Whether vLLM starts with that length, when its share is free."""
        return self.room >= self.sequence and self.room >= 0

    @property
    def lacks(self) -> int:
        """What is missing on each GPU; 0 where nothing is."""
        return max(self.sequence - self.room, -self.room, 0)

    @property
    def busy(self) -> tuple[Gpu, ...]:
        """The GPUs on which its share is not free now, as far as they tell."""
        wanted = self.taken + self.sequence if self.case.setup.cache_bytes else None
        return tuple(
            card
            for card in self.case.cards
            if (free := free_memory(card)) is not None
            and free < (wanted or int((card.memory_total or 0) * self.case.share))
        )

    def with_setup(self, **changes: object) -> Verdict:
        """The answer for other options; what was learnt of the weights holds only for these."""
        setup = replace(self.case.setup, **changes)  # type: ignore[arg-type]  # the names are those of its fields
        same = setup.gpus == self.case.setup.gpus and setup.quantisation == self.case.setup.quantisation
        case = replace(self.case, setup=setup, lesson=self.case.lesson if same else None)
        return Verdict(replace(case, tokens=case.tokens and setup.cache_dtype == self.case.setup.cache_dtype))


def free_memory(card: Gpu) -> int | None:
    """Bytes of the card that nobody has; None where it does not tell."""
    if card.memory_total is None or card.memory_used is None:
        return None
    return card.memory_total - card.memory_used
