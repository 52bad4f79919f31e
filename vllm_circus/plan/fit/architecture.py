"""What config.json tells of a model, as far as its memory is concerned.

Rules: names of fields are those that vLLM looks for; what is not known is in `unknown`, and never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import cast

from vllm_circus.plan.fit.fields import BadModel, Fields
from vllm_circus.plan.fit.layers import RECURRENT, Kind, kinds_of
from vllm_circus.plan.fit.parameters import count_parameters, stored_bits

#: Models that read the whole text at once and keep nothing of it.
_ENCODERS = frozenset({"bert", "distilbert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "new", "deberta-v2"})
_TEXT = ("text_config", "language_config", "llm_config", "thinker_config")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_CONTEXT = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length"),
    *("model_max_length", "seq_len"),
)
#: Of these kinds of stretched positions, `max_position_embeddings` is the length after stretching already.
_STRETCHED = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "default", ""})
_FALLBACK_CONTEXT = 2048  # what vLLM assumes where config.json says nothing
#: Fields of models whose cache has a form that is not reckoned here.
_STRANGE = {
    "index_head_dim": "the index of its sparse attention",
    "compress_ratios": "its compressed cache",
    "block_configs": "that its layers differ (block_configs)",
    "global_head_dim": "that its layers' heads differ (global_head_dim)",
}


@dataclass(frozen=True)
class Layers:
    """Layers whose cache is alike.

    Attributes:
        heads: among which it can be split over GPUs; 0 where every GPU has all of it.
        width: numbers kept for a token: by each head, keys and values together; where `heads` is 0, in all.
        window: tokens that are kept at most; None for all.
    """

    count: int
    heads: int
    width: int
    window: int | None

    def numbers(self, tensor: int) -> int:
        """What a token leaves in one layer on each of `tensor` GPUs; a head is never cut in two."""
        return self.width * (ceil(self.heads / tensor) if self.heads else 1)


@dataclass(frozen=True)
class Architecture:
    """One model.

    Attributes:
        name: its class, or its type.
        cache: the layers that keep something for each token.
        inner: numbers that a token has in the widest layer between hidden states, all its experts' together.
        context: the longest one that it was made for, in tokens.
        stored: bits of a weight in its files, by config.json; 32 become 16 when vLLM loads them.
        quantised: its weights have fewer than 16 bits.
        parameters: estimated from the layers' sizes.
        unknown: what takes memory beside, and is not reckoned.
    """

    name: str
    layers: int
    cache: tuple[Layers, ...]
    hidden: int
    heads: int
    inner: int
    vocabulary: int
    context: int
    stored: float
    quantised: bool
    parameters: int
    unknown: tuple[str, ...]


def read_architecture(config: object) -> Architecture:
    """The parsed config.json as an `Architecture`. Raises BadModel where it is none, naming the field."""
    if not isinstance(config, dict):
        raise BadModel("config.json: is no JSON object", hint="is the file whole?")
    top = Fields(cast("Mapping[str, object]", config))
    fields = _text(top)
    count = fields.need(*_LAYERS, most=10_000)
    hidden = fields.need("hidden_size", "n_embd", "d_model", "dim")
    heads = fields.whole(*_HEADS) or 0
    kinds = kinds_of(fields, count)
    cache = () if _is_encoder(top) else tuple(_cache(fields, kinds, hidden, heads))
    stored = stored_bits(top, fields)
    names = top.items("architectures")
    return Architecture(
        name=str(names[0])[:80] if names else (top.word("model_type") or "a model")[:80],
        layers=count,
        cache=cache,
        hidden=hidden,
        heads=heads,
        inner=_inner(fields, hidden),
        vocabulary=fields.whole("vocab_size", "padded_vocab_size") or 0,
        context=_context(fields),
        stored=stored,
        quantised=stored < 16,
        parameters=count_parameters(
            fields, count, hidden, heads, _kv_heads(fields, heads), _head(fields, hidden, heads)
        ),
        unknown=tuple(_unknown(top, fields, kinds)),
    )


def _text(top: Fields) -> Fields:
    """The part about language of a model that also sees or hears."""
    for name in _TEXT:
        if (section := top.section(name)) is not None:
            return _text(section) if name == "thinker_config" else section
    return top


def _is_encoder(top: Fields) -> bool:
    return top.word("model_type") in _ENCODERS and not top.flag("is_decoder", default=False)


def _kv_heads(fields: Fields, heads: int) -> int:
    """Heads of keys and values; as many as of queries where nothing is said."""
    if fields.flag("multi_query", default=False) and not fields.flag("new_decoder_architecture", default=False):
        return 1  # Falcon's first ones, GPT-BigCode
    attention = fields.section("attn_config")  # DBRX
    return (attention and attention.whole("kv_n_heads")) or fields.whole(*_KV_HEADS) or heads


def _head(fields: Fields, hidden: int, heads: int) -> int:
    return fields.whole("head_dim", "hidden_size_per_head", "kv_channels") or (hidden // heads if heads else 0)


def _cache(fields: Fields, kinds: list[Kind], hidden: int, heads: int) -> Iterator[Layers]:
    shared = fields.whole("num_kv_shared_layers", least=0) or 0  # the last ones read what others keep (Gemma 3n)
    own = Counter(kinds[: max(len(kinds) - shared, 0)])
    if sum(own[kind] for kind in (Kind.FULL, Kind.WINDOW, Kind.CHUNK)) and not heads:
        fields.need(*_HEADS)
    windows = {Kind.FULL: None, Kind.WINDOW: "sliding_window", Kind.CHUNK: "attention_chunk_size"}
    for kind, name in windows.items():
        if own[kind]:
            window = fields.whole(name) if name else None
            yield _kept(fields, own[kind], window, hidden, heads)


def _kept(fields: Fields, count: int, window: int | None, hidden: int, heads: int) -> Layers:
    """Keys and values of each head; or, with latent attention (DeepSeek V2 on), one vector for all of them."""
    if latent := fields.whole("kv_lora_rank"):
        return Layers(count, 0, latent + (fields.whole("qk_rope_head_dim", least=0) or 0), window)
    return Layers(count, _kv_heads(fields, heads), 2 * _head(fields, hidden, heads), window)


def _inner(fields: Fields, hidden: int) -> int:
    dense = fields.whole("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff") or 4 * hidden
    chosen = fields.whole("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")
    if not chosen:
        return dense
    return chosen * ((fields.whole("moe_intermediate_size", "expert_ffn_hidden_size") or dense) + hidden // 3)


def _context(fields: Fields) -> int:
    lengths = [length for name in _CONTEXT if (length := fields.whole(name, most=10**12))]
    longest = min(lengths, default=_FALLBACK_CONTEXT)
    rope = fields.section("rope_scaling") or fields.section("rope_parameters")
    if rope is None:
        return longest
    kind = rope.word("rope_type", "type")
    if kind == "longrope":  # vLLM takes the length before stretching, unless it is told to
        return fields.whole("original_max_position_embeddings") or longest
    if kind in _STRETCHED or fields.word("model_type").startswith("gemma3"):
        return longest
    return int(longest * (rope.number("factor", 1, 1000) or 1))


def _unknown(top: Fields, fields: Fields, kinds: list[Kind]) -> Iterator[str]:
    if Kind.STATE in kinds:
        few = "all" if fields.word("model_type") in RECURRENT else str(kinds.count(Kind.STATE))
        yield f"the state of {few} layers without attention: so much for each sequence, whatever its length"
    if Kind.UNKNOWN in kinds:
        yield f"{kinds.count(Kind.UNKNOWN)} layers of a kind that this program does not know"
    for name, what in _STRANGE.items():
        if name in fields.values:
            yield what
    if top.flag("is_encoder_decoder", default=False):
        yield "what its decoder keeps of the encoder's output"
    if "vision_config" in top.values or "audio_config" in top.values:
        yield "what its images or sounds take while they are read"
