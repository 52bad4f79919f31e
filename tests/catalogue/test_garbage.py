"""Whatever stands in a model's JSON files, it is listed, and nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalogue.samples import safetensors
from tests.plan.fit.samples import config
from vllm_circus.catalogue.adapters import match_adapters
from vllm_circus.catalogue.find import survey
from vllm_circus.catalogue.room import room_for
from vllm_circus.facts import Disk
from vllm_circus.gpu import Gpu

CARD = Gpu(0, "GPU-0", "NVIDIA H100", 80 << 30, 0, 0, 40)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONFIG = ["architectures", "model_type", "torch_dtype", "dtype", "quantization_config", "text_config", "is_decoder"]
CONFIG += ["max_position_embeddings", "num_hidden_layers", "rope_scaling"]
METHOD = ["quant_method", "quant_algo", "bits", "w_bit", "load_in_4bit", "config_groups"]
ADAPTER = ["peft_type", "base_model_name_or_path", "r", "target_modules"]


def objects(names: list[str]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from(names), ANYTHING, max_size=5)


@settings(deadline=None, max_examples=150)
@given(objects(CONFIG), objects(METHOD), objects(ADAPTER), st.dictionaries(st.just("weight_map"), ANYTHING))
def test_any_json_is_listed(
    tmp_path_factory: pytest.TempPathFactory,
    told: dict[str, object],
    method: dict[str, object],
    adapter: dict[str, object],
    index: dict[str, object],
) -> None:
    base = tmp_path_factory.mktemp("any")
    safetensors(base / "m" / "model.safetensors", 100)
    quantised = {"quantization_config": method} if method else {}
    (base / "m" / "config.json").write_text(json.dumps({**config("llama-3-8b"), **quantised, **told}))
    (base / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "a").mkdir()
    (base / "a" / "adapter_config.json").write_text(json.dumps(adapter))
    found = survey([base], {"HF_HOME": "/nowhere"}, Disk())
    assert {Path(model.id).name for model in found.models} == {"a", "m"}
    for model in found.models:
        room_for(model, (CARD,))
        match_adapters(model, found.models)
        assert all(text.isprintable() for text in (model.architecture, model.quantization, model.base, model.lacks))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"null", b"[]", b'"x"', b"{" * 5000, b"1e999", b'{"a": NaN}'])
def test_what_is_no_object_is_told(data: bytes, tmp_path: Path) -> None:
    safetensors(tmp_path / "m" / "model.safetensors", 100)
    (tmp_path / "m" / "config.json").write_bytes(data)
    found = survey([tmp_path], {"HF_HOME": "/nowhere"}, Disk())
    (model,) = found.models
    assert found.notes == (() if data == b'{"a": NaN}' else (f"{tmp_path}/m/config.json is no JSON object",))
    assert (model.architecture, model.context) == ("", None)
