"""What can be tested without a process: flags, text, metrics, faults."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.simulator.faults import ActiveFaults, Fault, make_fault, parse_fault
from vllm_circus.simulator.metrics import Histogram
from vllm_circus.simulator.options import Lora, UsageError, parse
from vllm_circus.simulator.text import Answer, Vocabulary, embedding, pieces, similarity


def test_flags_are_taken_with_dashes_underscores_and_equals_signs() -> None:
    options = parse(["m", "--max_model_len=4k", "--port=1", "-tp", "2", "--served-model-name", "a", "b"], {})
    assert (options.max_model_len, options.port, options.workers, options.names) == (4000, 1, 2, ("a", "b"))


def test_unknown_flags_are_echoed_as_what_they_look_like() -> None:
    arguments = ["m", "--foo", "--bar", "1", "--baz", "1.5", "--list", "a", "b", "--cc", '{"x": [1]}', "--neg", "-1"]
    echo = parse(arguments, {}).echo
    assert echo == str(
        {
            "model_tag": "m",
            "foo": True,
            "bar": 1,
            "baz": 1.5,
            "list": ["a", "b"],
            "cc": {"x": [1]},
            "neg": -1,
            "model": "m",
        }
    )


@pytest.mark.parametrize(
    ("text", "length"), [("512", 512), ("2K", 2048), ("2k", 2000), ("1.5k", 1500), ("1M", 1 << 20)]
)
def test_a_context_length_may_have_a_unit(text: str, length: int) -> None:
    assert parse(["m", "--max-model-len", text], {}).max_model_len == length


def test_the_context_length_is_that_of_the_model(short_dir: Path) -> None:
    assert parse([str(short_dir)], {}).max_model_len == 32768
    (short_dir / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    assert parse([str(short_dir)], {}).max_model_len == 1024
    assert parse([str(short_dir), "--max-model-len", "auto"], {}).max_model_len == 1024


def test_adapters_are_named_by_pairs_or_json() -> None:
    options = parse(["m", "--enable-lora", "--lora-modules", "a=x/y", '{"name": "b", "path": "z"}'], {})
    assert options.loras == (Lora("a", "x/y"), Lora("b", "z"))
    assert parse(["m", "--lora-modules", "a=x"], {}).loras == ()
    with pytest.raises(UsageError, match="expected NAME=PATH"):
        parse(["m", "--enable-lora", "--lora-modules", "a"], {})


@pytest.mark.parametrize(
    ("model", "runner", "pooling"),
    [
        ("meta/llama", None, False),
        ("BAAI/bge-m3", None, True),
        ("sentence-transformers/all-MiniLM-L6-v2", "auto", True),
        ("BAAI/bge-m3", "generate", False),
        ("meta/llama", "pooling", True),
    ],
)
def test_models_for_embeddings_are_known_by_name_or_runner(model: str, runner: str | None, pooling: bool) -> None:
    arguments = [model] if runner is None else [model, "--runner", runner]
    assert parse(arguments, {}).pooling is pooling


@given(st.lists(st.text(min_size=1), max_size=8))
def test_any_command_line_is_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(UsageError):
        assert parse(["m", *words], {}).model


@given(st.text())
def test_pieces_make_up_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text())
def test_tokens_are_the_text(text: str) -> None:
    vocabulary = Vocabulary()
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode(text) == vocabulary.encode(text)


@given(st.text(), st.integers(1, 60), st.integers(0, 60))
def test_an_answer_in_parts_is_the_whole_answer(model: str, limit: int, cut: int) -> None:
    answer = Answer(model)
    cut = min(cut, limit)
    assert answer.text(0, cut) + answer.text(cut, limit) == answer.text(0, limit)


@given(st.integers(1, 60), st.text(max_size=3))
def test_a_stop_never_makes_an_answer_longer_nor_is_in_it(limit: int, stop: str) -> None:
    answer = Answer("m")
    length, found = answer.until(limit, [stop])
    assert 0 <= length <= limit
    if found:
        assert stop not in answer.text(0, length)


@given(st.text(), st.integers(1, 500))
def test_embeddings_have_length_one_and_are_always_the_same(text: str, size: int) -> None:
    vector = embedding(text, size)
    assert vector == embedding(text, size)
    assert len(vector) == size
    assert abs(similarity(vector, vector) - 1) < 1e-9 or not any(vector)


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_the_buckets_of_a_histogram_grow(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    lines = list(histogram.lines("n", 'a="b"'))
    counts = [float(line.split()[-1]) for line in lines[:4]]
    assert counts == [sum(value <= bound for value in values) for bound in (0.5, 1.0, 10.0, float("inf"))]
    assert lines[3].startswith('n_bucket{a="b",le="+Inf"} ')


def test_a_fault_is_used_up() -> None:
    faults = ActiveFaults((Fault("error", 503.0, 2),))
    assert [faults.take("error", 500) for _ in range(3)] == [503.0, 503.0, None]
    faults.set(make_fault("error"))
    assert (faults.take("error", 500), faults.take("error", 500)) == (500, 500)
    faults.clear("error")
    assert faults.take("error") is None


@pytest.mark.parametrize("text", ["lunch", "error=x", "error=-1", "error=nan", "die-after-chunks", "slow-first-byte="])
def test_a_fault_that_makes_no_sense_is_no_fault(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|value"):
        parse_fault(text)
