"""How many parameters a model has, from the sizes in its config.json: for models whose files are not here.

Good to a few percent for decoders: norms and biases are left out, and so is everything that sees or hears.
"""

from __future__ import annotations

from vllm_circus.plan.fit.fields import Fields

#: Their feed-forward part has two matrices, not three.
_UNGATED = frozenset(
    {"gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "bloom", "falcon", "mpt", "phi", "starcoder2", "bert", "roberta"}
)
_TIED = ("gemma", "gpt2", "bloom", "opt", "falcon", "cohere")
_FOUR_BITS = 4.25  # with the scale of each group
_BITS = {"fp8": 8, "fbgemm_fp8": 8, "awq": _FOUR_BITS, "gptq": _FOUR_BITS, "mxfp4": _FOUR_BITS}


def count_parameters(fields: Fields, layers: int, hidden: int, heads: int, kv_heads: int, head: int) -> int:
    """All parameters of the language model."""
    vocabulary = fields.whole("vocab_size", "padded_vocab_size") or 0
    tied = fields.flag("tie_word_embeddings", default=fields.word("model_type").startswith(_TIED))
    embeddings = vocabulary * hidden * (1 if tied else 2)
    attention = _latent(fields, hidden, heads) or 2 * hidden * head * (heads + kv_heads)
    sparse = _sparse_layers(fields, layers)
    return (
        embeddings
        + layers * attention
        + sparse * _experts(fields, hidden)
        + (layers - sparse) * _feed_forward(fields, hidden)
    )


def _latent(fields: Fields, hidden: int, heads: int) -> int:
    """Multi-head latent attention: queries and keys go through narrow matrices."""
    rank = fields.whole("kv_lora_rank")
    if not rank:
        return 0
    rope = fields.whole("qk_rope_head_dim", least=0) or 0
    nope = fields.whole("qk_nope_head_dim", least=0) or 0
    value = fields.whole("v_head_dim") or nope
    narrow = fields.whole("q_lora_rank")
    queries = (hidden + heads * (nope + rope)) * narrow if narrow else hidden * heads * (nope + rope)
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _matrices(fields: Fields) -> int:
    return 2 if fields.word("model_type") in _UNGATED else 3


def _feed_forward(fields: Fields, hidden: int) -> int:
    inner = fields.whole("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff") or 4 * hidden
    return _matrices(fields) * hidden * inner


def _number_of_experts(fields: Fields) -> int:
    return fields.whole("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", least=0) or 0


def _sparse_layers(fields: Fields, layers: int) -> int:
    """How many layers have experts."""
    if not _number_of_experts(fields):
        return 0
    dense = min(fields.whole("first_k_dense_replace", least=0) or 0, layers)
    step = fields.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    return (layers - dense) // step


def _experts(fields: Fields, hidden: int) -> int:
    inner = fields.whole("moe_intermediate_size", "intermediate_size", "expert_ffn_hidden_size") or 4 * hidden
    number = _number_of_experts(fields)
    shared = (fields.whole("n_shared_experts", least=0) or 0) * inner
    shared += fields.whole("shared_expert_intermediate_size", least=0) or 0
    return _matrices(fields) * hidden * (number * inner + shared) + hidden * number


def stored_bits(top: Fields, fields: Fields) -> float:
    """Bits of a weight in the files, by config.json."""
    for holder in (top, fields):
        method = holder.section("quantization_config") or holder.section("compression_config")
        if method is not None and (bits := _quantised(method)):
            return bits
    kind = top.word("dtype", "torch_dtype") or fields.word("dtype", "torch_dtype")
    return 32.0 if kind in {"float32", "float"} else 16.0


def _quantised(method: Fields) -> float:
    name = method.word("quant_method").lower()
    if bits := method.whole("bits", "w_bit", most=16):
        return bits + 0.25 if bits < 8 else bits
    if name == "bitsandbytes":
        return _FOUR_BITS if method.flag("load_in_4bit", default=False) else 8
    if "FP4" in method.word("quant_algo"):
        return 4.5
    groups = method.section("config_groups")
    for group in groups.values if groups else ():
        part = groups.section(group) if groups else None
        weights = part.section("weights") if part else None
        if weights and (bits := weights.whole("num_bits", most=16)):
            return bits + 0.25 if bits < 8 else bits
    return _BITS.get(name, 8 if name else 0)
