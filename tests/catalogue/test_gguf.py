"""The header of a GGUF file: as the specification writes it, cut anywhere, and garbage."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalogue.samples import LLAMA, gguf_file, gguf_header, text
from vllm_circus.catalogue.gguf import Gguf, quantisation_of_name, read_gguf, read_gguf_file


def read(data: bytes) -> Gguf | None:
    return read_gguf(io.BytesIO(data))


def test_a_header_byte_by_byte() -> None:
    data = (
        b"GGUF\x03\x00\x00\x00"
        b"\x02\x00\x00\x00\x00\x00\x00\x00"  # tensors
        b"\x03\x00\x00\x00\x00\x00\x00\x00"  # pairs
        b"\x14\x00\x00\x00\x00\x00\x00\x00general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00qwen3"
        b"\x14\x00\x00\x00\x00\x00\x00\x00qwen3.context_length\x04\x00\x00\x00\x00\xa0\x00\x00"
        b"\x11\x00\x00\x00\x00\x00\x00\x00general.file_type\x04\x00\x00\x00\x12\x00\x00\x00"
    )
    found = read(data)
    assert found is not None
    assert (found.architecture, found.own("context_length"), found.quantisation) == ("qwen3", 40960, "Q6_K")


def test_every_kind_of_value_is_read_or_stepped_over() -> None:
    kinds = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2 * len(kinds) + 1)
    for kind, form in kinds.items():
        data += text(f"one.{kind}") + struct.pack("<I", kind) + struct.pack(f"<{form}", 1)
        data += text(f"many.{kind}") + struct.pack("<IIQ", 9, kind, 3) + struct.pack(f"<3{form}", 1, 1, 0)
    data += text("last") + struct.pack("<I", 8) + text("reached")
    found = read(data)
    assert found is not None
    assert all(found.values[f"one.{kind}"] == 1 and found.values[f"many.{kind}"] == 3 for kind in kinds)
    assert found.word("last") == "reached"


def test_what_stands_behind_the_vocabulary_is_found_only_where_it_is_needed(tmp_path: Path) -> None:
    plain = read_gguf_file(gguf_file(tmp_path / "model.gguf", 4096))
    named = read_gguf_file(gguf_file(tmp_path / "model-Q4_K_M.gguf", 4096))
    assert plain is not None
    assert named is not None
    assert (plain.quantisation, plain.values["tokenizer.ggml.tokens"]) == ("Q4_K_M", 3)
    assert "general.file_type" not in named.values  # its name says it
    assert named.own("context_length") == 8192


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(100),
        b"GGUF\x00\x00\x00\x03" + bytes(16),  # the other order of bytes
        b"GGUF\x01\x00\x00\x00" + bytes(16),  # 32 bit counts
        b"GGUF\x03\x00\x00\x00\x00",
    ],
)
def test_what_is_no_header_is_none(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    "value",
    [
        struct.pack("<I", 99),  # a kind that nobody knows
        struct.pack("<IQ", 8, 1 << 62),  # a text of exabytes
        struct.pack("<IIQ", 9, 0, 1 << 62),  # an array of exabytes
        struct.pack("<IIQ", 9, 8, 1 << 62),
        struct.pack("<IIQ", 9, 8, 1 << 20),  # more texts than follow
        struct.pack("<IIQ", 9, 9, 2),  # arrays of arrays
        struct.pack("<I", 8),
    ],
)
def test_a_broken_value_ends_the_reading_and_keeps_what_came_before(value: bytes) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60) + text("general.architecture") + struct.pack("<I", 8)
    found = read(data + text("llama") + text("next") + value)
    assert found is not None
    assert dict(found.values) == {"general.architecture": "llama"}


def test_values_that_cannot_be_are_not_used() -> None:
    values = {**LLAMA, "llama.context_length": 0, "general.file_type": 4000, "general.name": 7}
    found = read(gguf_header(values))
    assert found is not None
    assert (found.own("context_length"), found.quantisation, found.word("general.name")) == (None, "", "")


@settings(deadline=None)
@given(st.integers(0, len(gguf_header(LLAMA))))
def test_a_header_that_is_cut_anywhere_gives_what_is_there(cut: int) -> None:
    found = read(gguf_header(LLAMA)[:cut])
    assert found is None or set(found.values) <= set(LLAMA)


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**64 - 1), st.booleans())
def test_garbage_behind_the_magic_harms_nothing(rest: bytes, count: int, until: bool) -> None:
    began = time.monotonic()
    read_gguf(io.BytesIO(b"GGUF\x03\x00\x00\x00" + bytes(8) + struct.pack("<Q", count) + rest), until_vocabulary=until)
    assert time.monotonic() - began < 10


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(gguf_header(LLAMA)) - 1))
def test_a_header_with_a_piece_overwritten_harms_nothing(piece: bytes, at: int) -> None:
    data = bytearray(gguf_header(LLAMA))
    data[at : at + len(piece)] = piece
    read(bytes(data))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("llama.q8_0.gguf", "Q8_0"),
        ("model-IQ2_XXS.gguf", "IQ2_XXS"),
        ("model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("model-BF16-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Q4_K_M.gguf", ""),
        ("model.gguf", ""),
        ("model-Q4_K_M.safetensors", ""),
    ],
)
def test_the_kind_that_a_name_ends_in(name: str, kind: str) -> None:
    assert quantisation_of_name(name) == kind


def test_a_file_that_is_none_gives_nothing(tmp_path: Path) -> None:
    assert read_gguf_file(tmp_path / "none.gguf") is None
    assert read_gguf_file(tmp_path) is None
