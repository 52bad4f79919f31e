"""The KV cache of tokens and sequences, on one GPU of several."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.fit.samples import NAMES, architecture
from vllm_circus.plan.fit.cache import longest_sequence, sequence_bytes, token_bytes
from vllm_circus.plan.fit.setup import Setup, read_setup, short_number

MODELS = {name: architecture(name) for name in NAMES}
GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "setup", "size"),
    [
        ("llama-3-70b", Setup(tensor=4), 327_680 // 4),
        ("llama-3-70b", Setup(tensor=8), 327_680 // 8),
        ("llama-3-70b", Setup(tensor=16), 327_680 // 8),  # each of 16 GPUs keeps one of the 8 heads whole
        ("llama-3-70b", Setup(pipeline=2), 327_680 // 2),
        ("llama-3-70b", Setup(pipeline=3), 327_680 * 27 // 80),
        ("deepseek-v3", Setup(tensor=8), 70_272),  # the latent vector is every GPU's
        ("llama-3-70b", Setup(cache_number=1.0), 327_680 // 2),
        ("deepseek-v3", Setup(cache_number=1.0, tensor=2), 70_272 // 2),
    ],
)
def test_heads_and_layers_are_shared_out_over_gpus(name: str, setup: Setup, size: int) -> None:
    assert token_bytes(MODELS[name], setup) == size


def test_windows_bound_what_a_sequence_takes() -> None:
    model, setup = MODELS["mistral-7b-v0.1"], Setup(batch=2048)
    bound = 4096 - 1 + 2 * 2048
    assert sequence_bytes(model, setup, 4096) == 4096 * 131_072
    assert sequence_bytes(model, setup, 32_768) == sequence_bytes(model, setup, 16_384)
    assert sequence_bytes(model, setup, 32_768) == pytest.approx(bound * 131_072, rel=0.01)
    assert sequence_bytes(model, replace(setup, windows=False), 32_768) == 32_768 * 131_072


def test_only_full_layers_grow_beyond_the_window() -> None:
    model, setup = MODELS["gpt-oss-20b"], Setup(batch=2048)
    long, longer = sequence_bytes(model, setup, 65_536), sequence_bytes(model, setup, 131_072)
    assert longer - long == 65_536 * token_bytes(model, setup) // 2


def test_tokens_take_whole_blocks() -> None:
    assert sequence_bytes(MODELS["llama-3-8b"], Setup(), 1) == 16 * 131_072
    assert sequence_bytes(MODELS["llama-3-8b"], Setup(), 0) == 0


SETUPS = st.builds(
    Setup,
    tensor=st.sampled_from([1, 2, 4, 8, 16]),
    pipeline=st.integers(1, 4),
    cache_number=st.sampled_from([0.5625, 1.0, 2.0, 4.0]),
    windows=st.booleans(),
    batch=st.integers(1, 20_000),
)


@given(st.sampled_from(NAMES), SETUPS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_longer_sequences_never_take_less(name: str, setup: Setup, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert sequence_bytes(MODELS[name], setup, short) <= sequence_bytes(MODELS[name], setup, long)


@given(st.sampled_from(NAMES), SETUPS, st.integers(0, 10**12), st.integers(0, 10**7))
def test_the_longest_sequence_has_room_and_one_more_token_has_not(
    name: str, setup: Setup, room: int, most: int
) -> None:
    longest = longest_sequence(MODELS[name], setup, room, most)
    assert sequence_bytes(MODELS[name], setup, longest) <= room
    assert longest == most or sequence_bytes(MODELS[name], setup, longest + 1) > room


def test_without_room_there_is_no_sequence() -> None:
    assert longest_sequence(MODELS["llama-3-8b"], Setup(), -1, 8192) == 0


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (8192, 8192),
        ("8192", 8192),
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25_600),
        ("1M", 1 << 20),
        ("64G", 64 << 30),
        ("auto", None),
        (-1, None),
        (0, None),
        (True, None),
        (None, None),
        ("9" * 99, None),
        ([1], None),
    ],
)
def test_numbers_are_read_as_vllm_reads_them(written: object, number: int | None) -> None:
    assert short_number(written) == number


@pytest.mark.parametrize(
    ("memory", "gpu", "usual"),
    [
        (80 * GIB, "NVIDIA H100", (8192, 1024)),
        (80 * GIB, "NVIDIA A100-SXM4-80GB", (2048, 256)),
        (24 * GIB, "NVIDIA L4", (2048, 256)),
        (180 * GIB, "NVIDIA B200", (16_384, 1024)),
    ],
)
def test_vllms_own_batch_goes_by_the_card(memory: int, gpu: str, usual: tuple[int, int]) -> None:
    setup = read_setup({}, memory, gpu)
    assert (setup.batch, setup.sequences) == usual


def test_options_decide_how_it_runs() -> None:
    options = {
        "tensor-parallel-size": 2,
        "pipeline-parallel-size": "2",
        "max-model-len": "32k",
        "kv-cache-dtype": "fp8_e4m3",
        "max-num-batched-tokens": 512,
        "max-num-seqs": 16,
        "enforce-eager": True,
        "disable-hybrid-kv-cache-manager": True,
        "quantization": "fp8",
        "kv-cache-memory-bytes": "2G",
    }
    assert read_setup(options, 80 * GIB, "H100") == Setup(
        tensor=2,
        pipeline=2,
        context=32_000,
        cache_dtype="fp8_e4m3",
        cache_number=1.0,
        windows=False,
        batch=512,
        sequences=16,
        eager=True,
        quantisation="fp8",
        cache_bytes=2 * GIB,
    )
    assert read_setup({"max-model-len": "auto"}, 0, "").automatic
    assert read_setup({"dtype": "float32"}, 0, "").cache_number == 4
