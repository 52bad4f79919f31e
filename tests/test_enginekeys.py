"""An engine's key is read from its variables, and what no header could carry is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_circus.enginekeys import read_engine_key


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"VLLM_API_KEY": "abc-123", "OTHER": "x"}', "abc-123"),
        ('{"OTHER": "x"}', None),
        ('{"VLLM_API_KEY": ""}', None),
        ('{"VLLM_API_KEY": "a\\r\\nX: y"}', None),
        ('{"VLLM_API_KEY": "schlüssel"}', None),
        ('{"VLLM_API_KEY": 7}', None),
        ('["VLLM_API_KEY"]', None),
    ],
)
def test_the_key_is_read_where_a_header_can_carry_it(tmp_path: Path, content: str, key: str | None) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_engine_key(tmp_path / "a.json") == key


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.json"):
        read_engine_key(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        read_engine_key(tmp_path / "a.json")
