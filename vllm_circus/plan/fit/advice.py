"""What to change so that a model fits: each proposal is tried, and told only where it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from vllm_circus.plan.fit.setup import cache_number
from vllm_circus.plan.fit.verdict import Verdict
from vllm_circus.plan.fit.weights import Weights

#: A context below this is no answer, in tokens.
_SHORTEST = 1024
_MOST_SHARE = 0.95  # beside it is the CUDA context
_MOST_GPUS = 16
_FOUR_BITS = 0.28  # of 16-bit weights, with scales, and embeddings as they were


@dataclass(frozen=True)
class Advice:
    """A change as it is written in a models file, and what comes of it."""

    change: str
    effect: str


def advise(verdict: Verdict) -> tuple[Advice, ...]:
    """Changes that make it fit, each alone; where none does, some together; the mildest first."""
    if verdict.fits:
        return ()
    return tuple(_alone(verdict)) or tuple(_together(verdict))


def _alone(verdict: Verdict) -> Iterator[Advice]:
    yield from _shorter(verdict)
    yield from _more_memory(verdict)
    yield from _smaller_cache(verdict)
    yield from _smaller_weights(verdict)
    yield from _more_gpus(verdict)


def _shorter(verdict: Verdict) -> Iterator[Advice]:
    longest = min(verdict.longest, verdict.case.model.context)
    if _SHORTEST <= longest < verdict.context:
        words = "what it was made for" if longest == verdict.case.model.context else "the longest that has room"
        yield Advice(f"max-model-len: {_round_down(longest)}", words)


def _more_memory(verdict: Verdict) -> Iterator[Advice]:
    share = ceil((verdict.taken + verdict.sequence) / verdict.memory * 100) / 100
    if verdict.case.share < share <= _MOST_SHARE and verdict.case.setup.cache_bytes is None:
        yield Advice(f"gpu_memory: {share:g}", f"instead of {verdict.case.share:g} of each GPU")
    written = verdict.case.setup.cache_bytes
    if written is not None and verdict.taken + verdict.sequence <= verdict.memory * _MOST_SHARE:
        yield Advice("kv-cache-memory-bytes: null", "so that the cache gets what is left")


def _smaller_cache(verdict: Verdict) -> Iterator[Advice]:
    if verdict.case.setup.cache_number <= 1:
        return
    smaller = verdict.with_setup(cache_dtype="fp8", cache_number=cache_number("fp8"))
    if smaller.fits:
        yield Advice("kv-cache-dtype: fp8", f"half the cache; up to {smaller.longest:,} tokens of context")


def _smaller_weights(verdict: Verdict) -> Iterator[Advice]:
    if verdict.case.model.quantised or verdict.case.setup.quantisation:
        return
    turned = verdict.with_setup(quantisation="fp8")
    if turned.fits:
        yield Advice("quantization: fp8", f"weights in 8 bits; up to {turned.longest:,} tokens of context")
    four = _four_bits(verdict)
    if four.fits:
        yield Advice("a 4-bit model (AWQ, GPTQ)", f"other files; up to {four.longest:,} tokens of context")


def _four_bits(verdict: Verdict) -> Verdict:
    case = verdict.case
    weights = Weights(int(case.weights.size * _FOUR_BITS * 16 / case.model.stored), case.weights.origin)
    model = replace(case.model, stored=4.25, quantised=True)
    return Verdict(replace(case, model=model, weights=weights, lesson=None))


def _more_gpus(verdict: Verdict) -> Iterator[Advice]:
    tensor = verdict.case.setup.tensor * 2
    while tensor <= _MOST_GPUS and verdict.case.model.heads and verdict.case.model.heads % tensor == 0:
        spread = verdict.with_setup(tensor=tensor)
        if spread.fits:
            size = f"{spread.memory / (1 << 30):.0f} GiB"
            effect = f"each of {size}; up to {spread.longest:,} tokens of context"
            yield Advice(f"gpus: {spread.case.setup.gpus} of them", effect)
            return
        tensor *= 2


def _together(verdict: Verdict) -> Iterator[Advice]:
    """Cache and weights in 8 bits, and as long a context as then has room."""
    changes: dict[str, object] = {}
    words = []
    if not (verdict.case.model.quantised or verdict.case.setup.quantisation):
        changes["quantisation"] = "fp8"
        words.append("quantization: fp8")
    if verdict.case.setup.cache_number > 1:
        changes |= {"cache_dtype": "fp8", "cache_number": cache_number("fp8")}
        words.append("kv-cache-dtype: fp8")
    smaller = verdict.with_setup(**changes)
    if smaller.fits:
        yield Advice(", ".join(words), f"together; up to {smaller.longest:,} tokens of context")
    elif smaller.longest >= _SHORTEST:
        words.append(f"max-model-len: {_round_down(smaller.longest)}")
        yield Advice(", ".join(words), "together")


def _round_down(tokens: int) -> int:
    """A number that people would write."""
    step = 256 if tokens < 32_768 else 1024
    return tokens // step * step
