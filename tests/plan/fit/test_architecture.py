"""config.json: what public models keep for a token, and what becomes of files that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.fit.samples import NAMES, architecture, config
from vllm_circus.plan.fit.architecture import Layers, read_architecture
from vllm_circus.plan.fit.cache import token_bytes
from vllm_circus.plan.fit.fields import BadModel
from vllm_circus.plan.fit.setup import Setup

#: Bytes of KV cache for a token in 16 bits. "GQA": two times layers, heads of keys and values, size of a head and two
#: bytes, with the figures of the model's paper or card.
PUBLISHED = {
    "llama-3-8b": 131_072,  # The Llama 3 Herd of Models (arXiv 2407.21783), table 3: 32 layers, 8 heads of 128
    "llama-3-70b": 327_680,  # the same table: 80 layers, 8 heads of 128
    "qwen2.5-7b": 57_344,  # Qwen2.5 Technical Report (arXiv 2412.15115), table 1: 28 layers, 4 heads of 128
    "qwen3-30b-a3b": 98_304,  # Qwen3 Technical Report (arXiv 2505.09388), table 2: 48 layers, 4 heads of 128
    "mixtral-8x7b": 131_072,  # Mixtral of Experts (arXiv 2401.04088), table 1: 32 layers, 8 heads of 128
    "mistral-7b-v0.1": 131_072,  # Mistral 7B (arXiv 2310.06825), table 1: 32 layers, 8 heads of 128, window 4096
    "gemma-2-9b": 344_064,  # Gemma 2 (arXiv 2408.00118), table 1: 42 layers, 8 heads of 256
    "gemma-3-27b": 507_904,  # Gemma 3 27B's card and config.json: 62 layers, 16 heads of 128
    "deepseek-v3": 70_272,  # Insights into DeepSeek-V3 (arXiv 2505.09343), table 1: 70.272 KB a token
    "phi-3-mini": 393_216,  # Phi-3 Technical Report (arXiv 2404.14219), section 2: 32 layers, 32 heads of 96
    "gpt-oss-20b": 49_152,  # gpt-oss model card (arXiv 2508.10925): 24 layers, 8 heads of 64
    "qwen3-next-80b-a3b": 24_576,  # its card: 12 of 48 layers have attention, 2 heads of 256
}
#: Parameters in billions, from the same sources.
PARAMETERS = {
    "llama-3-8b": 8.03,
    "llama-3-70b": 70.6,
    "qwen2.5-7b": 7.61,
    "qwen3-30b-a3b": 30.5,
    "mixtral-8x7b": 46.7,
    "mistral-7b-v0.1": 7.24,
    "gemma-2-9b": 9.24,
    "gemma-3-27b": 27.0,
    "deepseek-v3": 671.0,
    "phi-3-mini": 3.82,
    "gpt-oss-20b": 20.9,
    "qwen3-next-80b-a3b": 80.0,
}


def test_every_file_has_a_figure() -> None:
    assert set(NAMES) == set(PUBLISHED) == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_takes_what_is_published(name: str) -> None:
    assert token_bytes(architecture(name), Setup()) == pytest.approx(PUBLISHED[name], rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_reckoned_to_a_few_percent(name: str) -> None:
    assert architecture(name).parameters / 1e9 == pytest.approx(PARAMETERS[name], rel=0.1)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama-3-8b", (Layers(32, 8, 256, None),)),
        ("qwen2.5-7b", (Layers(28, 4, 256, None),)),
        ("mistral-7b-v0.1", (Layers(32, 8, 256, 4096),)),
        ("gemma-2-9b", (Layers(21, 8, 512, None), Layers(21, 8, 512, 4096))),
        ("gemma-3-27b", (Layers(10, 16, 256, None), Layers(52, 16, 256, 1024))),
        ("gpt-oss-20b", (Layers(12, 8, 128, None), Layers(12, 8, 128, 128))),
        ("deepseek-v3", (Layers(61, 0, 576, None),)),
        ("qwen3-next-80b-a3b", (Layers(12, 2, 512, None),)),
    ],
)
def test_layers_are_told_apart_by_what_they_keep(name: str, layers: tuple[Layers, ...]) -> None:
    assert architecture(name).cache == layers


@pytest.mark.parametrize(
    ("changes", "full", "window"),
    [
        ({"sliding_window_pattern": 3, "sliding_window": 9}, 10, 22),
        ({"sliding_window_pattern": "LLLG", "sliding_window": 9}, 8, 24),
        ({"use_sliding_window": True, "max_window_layers": 20, "sliding_window": 9}, 20, 12),
        ({"use_sliding_window": False, "sliding_window": 9}, 32, 0),
        ({"attention_chunk_size": 9}, 8, 24),
        ({"layer_types": ["full_attention", "chunked_attention"] * 16, "attention_chunk_size": 9}, 16, 16),
        ({"attn_layer_period": 8, "attn_layer_offset": 4}, 4, 0),
        ({"hybrid_override_pattern": "M-M*" * 8}, 8, 0),
        ({"num_kv_shared_layers": 12}, 20, 0),
        ({"model_type": "mamba"}, 0, 0),
        ({"model_type": "bert"}, 0, 0),
    ],
)
def test_every_way_of_telling_the_layers_is_known(changes: dict[str, Any], full: int, window: int) -> None:
    cache = architecture("llama-3-8b", **changes).cache
    assert sum(layers.count for layers in cache if layers.window is None) == full
    assert sum(layers.count for layers in cache if layers.window == 9) == window


@pytest.mark.parametrize(
    ("name", "changes", "unknown"),
    [
        ("qwen3-next-80b-a3b", {}, "the state of 36 layers without attention"),
        ("llama-3-8b", {"model_type": "mamba"}, "the state of all layers"),
        ("llama-3-8b", {"layer_types": ["sorcery"] * 32}, "32 layers of a kind that this program does not know"),
        ("deepseek-v3", {"index_head_dim": 128}, "the index of its sparse attention"),
        ("gemma-3-27b", {}, "what its images or sounds take"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(name: str, changes: dict[str, Any], unknown: str) -> None:
    assert any(what.startswith(unknown) for what in architecture(name, **changes).unknown)


@pytest.mark.parametrize(
    ("name", "changes", "context"),
    [
        ("llama-3-8b", {}, 8192),
        ("gemma-3-27b", {}, 131_072),  # its positions are stretched already
        ("deepseek-v3", {}, 163_840),
        ("phi-3-mini", {}, 4096),  # vLLM takes the length before stretching
        ("llama-3-8b", {"rope_scaling": {"type": "linear", "factor": 4.0}}, 32_768),
        ("llama-3-8b", {"max_position_embeddings": None}, 2048),
    ],
)
def test_the_context_is_the_one_that_vllm_takes(name: str, changes: dict[str, Any], context: int) -> None:
    assert architecture(name, **changes).context == context


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({"torch_dtype": "float32"}, 32),
        ({"torch_dtype": None, "dtype": "float16"}, 16),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, 4.25),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, 8),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, 4.25),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"g": {"weights": {"num_bits": 4}}},
                }
            },
            4.25,
        ),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, 4.5),
    ],
)
def test_the_weights_form_is_read(changes: dict[str, Any], bits: float) -> None:
    assert architecture("llama-3-8b", **changes).stored == bits


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([], "is no JSON object"),
        ({}, "there is no num_hidden_layers"),
        (config("llama-3-8b", num_hidden_layers="32"), "num_hidden_layers needs a whole number from 1"),
        (config("llama-3-8b", hidden_size=-1), "hidden_size needs a whole number from 1"),
        (config("llama-3-8b", num_attention_heads=10**12), "num_attention_heads needs a whole number"),
        (config("llama-3-8b", num_attention_heads=None), "there is no num_attention_heads"),
        (config("llama-3-8b", layer_types=["full_attention"]), "layer_types has 1 entries for 32 layers"),
        (config("gemma-3-27b", text_config={}), "text_config: there is no num_hidden_layers"),
    ],
)
def test_a_broken_file_is_told_with_its_field(broken: object, words: str) -> None:
    with pytest.raises(BadModel, match=r"^config\.json") as caught:
        read_architecture(broken)
    assert words in str(caught.value)
    assert caught.value.hint


FIELDS = sorted({field for name in NAMES for field in config(name)} | set(config("gemma-3-27b")["text_config"]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.integers(0, 99)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from([*FIELDS, "x"]), inner, max_size=8)
    ),
    max_leaves=20,
)


def told(config: object) -> str:
    """What is said against a config.json; that of one which is taken."""
    try:
        assert token_bytes(read_architecture(config), Setup()) >= 0
    except BadModel as error:
        return str(error)
    return "config.json is fine"


@given(st.one_of(JSON, st.dictionaries(st.sampled_from(FIELDS), JSON)))
def test_no_json_at_all_makes_it_crash(value: object) -> None:
    assert told(value).startswith("config.json")


@given(st.sampled_from(NAMES), st.sampled_from(FIELDS), JSON)
def test_no_field_of_a_real_file_makes_it_crash(name: str, field: str, value: object) -> None:
    assert told(config(name, **{field: value})).startswith("config.json")
