"""Which kind of attention each layer of a model has: it decides what a token leaves in the KV cache.

The names are those of Hugging Face's configurations. What a model class knows without saying it in config.json (Gemma
2 alternates, of Gemma 3's layers every sixth sees everything) is in `_PATTERNS`, from transformers' configuration
classes. Kinds that are not known are said to be so, and count nothing.
"""

from __future__ import annotations

from enum import StrEnum

from vllm_circus.plan.fit.fields import BadModel, Fields

#: Every so many layers one sees everything, where config.json does not say it.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gpt_oss": 2, "cohere2": 4}
#: Models without attention: their state does not grow with the context.
RECURRENT = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7"})


class Kind(StrEnum):
    """FULL keeps every token, WINDOW and CHUNK the last ones, STATE something that does not grow."""

    FULL = "full"
    WINDOW = "window"
    CHUNK = "chunk"
    STATE = "state"
    UNKNOWN = "unknown"


_WORDS = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "global_attention": Kind.FULL,
    "sliding_attention": Kind.WINDOW,
    "sliding_window": Kind.WINDOW,
    "local_attention": Kind.WINDOW,
    "chunked_attention": Kind.CHUNK,
    "linear_attention": Kind.STATE,
    "mamba": Kind.STATE,
    "mamba2": Kind.STATE,
    "recurrent": Kind.STATE,
    "conv": Kind.STATE,
    "moe": Kind.STATE,
    "mlp": Kind.STATE,
}
_LETTERS = {"M": Kind.STATE, "-": Kind.STATE, "E": Kind.STATE, "*": Kind.FULL}


def kinds_of(fields: Fields, count: int) -> list[Kind]:
    """The kind of each of the model's `count` layers. Raises BadModel where the list of them has another length."""
    if fields.word("model_type") in RECURRENT:
        return [Kind.STATE] * count
    listed = _listed(fields, count)
    return listed if listed is not None else _counted(fields, count)


def _listed(fields: Fields, count: int) -> list[Kind] | None:
    """Where every layer is named."""
    for name in ("layer_types", "layers_block_type"):
        if (words := fields.items(name)) is not None:
            return _whole([_WORDS.get(str(word), Kind.UNKNOWN) for word in words], name, count)
    if letters := fields.word("hybrid_override_pattern"):
        return _whole([_LETTERS.get(letter, Kind.UNKNOWN) for letter in letters], "hybrid_override_pattern", count)
    return None


def _whole(kinds: list[Kind], name: str, count: int) -> list[Kind]:
    if len(kinds) != count:
        raise BadModel(f"config.json: {name} has {len(kinds)} entries for {count} layers", hint="is the file whole?")
    return kinds


def _counted(fields: Fields, count: int) -> list[Kind]:
    """Where layers are told by a period."""
    if period := fields.whole("attn_layer_period"):
        offset = fields.whole("attn_layer_offset", least=0) or 0
        return [Kind.FULL if number % period == offset else Kind.STATE for number in range(count)]
    if interval := fields.whole("full_attention_interval"):
        return [Kind.STATE if (number + 1) % interval else Kind.FULL for number in range(count)]
    if fields.whole("attention_chunk_size"):
        period = fields.whole("no_rope_layer_interval") or 4  # Llama 4: those without positions see everything
        return [Kind.CHUNK if (number + 1) % period else Kind.FULL for number in range(count)]
    if not fields.whole("sliding_window") or not fields.flag("use_sliding_window", default=True):
        return [Kind.FULL] * count
    return _windows(fields, count)


def _windows(fields: Fields, count: int) -> list[Kind]:
    letters = fields.word("sliding_window_pattern")
    if letters and set(letters) <= {"L", "G"}:  # EXAONE 4: `LLLG`, again and again
        return [Kind.WINDOW if letters[number % len(letters)] == "L" else Kind.FULL for number in range(count)]
    known = _PATTERNS.get(fields.word("model_type"))
    pattern = known if letters else fields.whole("sliding_window_pattern", "_sliding_window_pattern") or known
    if pattern:
        return [Kind.WINDOW if (number + 1) % pattern else Kind.FULL for number in range(count)]
    first = fields.whole("max_window_layers", least=0)
    if first is not None and "use_sliding_window" in fields.values:  # Qwen: those below see everything
        return [Kind.WINDOW if number >= first else Kind.FULL for number in range(count)]
    return [Kind.WINDOW] * count
