"""Wrong input, as people type and paste it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.menu.typed import complain
from vllm_circus.menu.wizard import checks


@pytest.mark.parametrize("text", ["", "abc", "0", "65536", "-1", "80.5", "1" * 300, "\u0668\u0660", "\u00b2"])
def test_what_is_no_port(text: str) -> None:
    assert "no port" in checks.bad_port(text)


def test_a_port_that_is_taken_says_by_whom() -> None:
    assert checks.bad_port("8000", taken=[(8000, "the proxy's own")]).startswith("port 8000 is the proxy's own")
    assert "in use by another process" in checks.bad_port("8000", busy={8000})
    assert checks.bad_port("8001", taken=[(8000, "the proxy's own")], busy={8000}) == ""


@pytest.mark.parametrize("text", ["", "Chat", "a b", "-a", "a" * 65, "all", "proxy", "taken"])
def test_what_no_model_can_be_called(text: str) -> None:
    assert checks.bad_name(text, {"taken"})
    assert len(checks.bad_name(text, {"taken"})) < 250


def test_aliases_stand_between_commas_or_blanks() -> None:
    assert checks.split_aliases(" gpt-4o, Qwen/Qwen3-8B  x ") == ["gpt-4o", "Qwen/Qwen3-8B", "x"]
    assert checks.bad_aliases("gpt-4o, x", ()) == ""
    assert checks.bad_aliases("", ()) == ""
    assert "twice" in checks.bad_aliases("a, a", ())
    assert "taken" in checks.bad_aliases("a, chat", {"chat"})
    assert "cannot be used" in checks.bad_aliases("ä", ())


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.4", 0.4), ("1", 1.0), ("40%", 0.4), ("40 %", 0.4), ("20 GiB", "20 GiB"), ("20GiB", "20GiB")],
)
def test_a_share_is_a_fraction_a_percentage_or_an_amount(text: str, share: object) -> None:
    assert checks.read_share(text) == share
    assert checks.bad_share(text) == ""


@pytest.mark.parametrize("text", ["", "0", "1.5", "-0.4", "nan", "inf", "20 GB", "half", "140 %"])
def test_what_is_no_share(text: str) -> None:
    assert "no part of a GPU" in checks.bad_share(text)


@given(st.text(max_size=400))
def test_no_text_breaks_a_check(text: str) -> None:
    for check in (
        checks.bad_port,
        lambda text: checks.bad_name(text, ()),
        lambda text: checks.bad_aliases(text, ()),
        checks.bad_share,
    ):
        complaint = complain(text, check)
        assert isinstance(complaint, str)
        assert complaint == "" or complaint.isprintable()


def test_what_is_pasted_with_escape_codes_is_refused() -> None:
    assert "control characters" in complain("\x1b[31mchat", None)
    assert "control characters" in complain("two\nlines", None)
    assert "characters long" in complain("x" * 5000, None)
    assert complain("  fine  ", None) == ""
