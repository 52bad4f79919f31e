"""Changes of one menu put onto those of another."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.menu.merging import rebase

_SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab", max_size=2)
_RECORDS = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), _SCALARS, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), _SCALARS | inner, max_size=4),
    max_leaves=8,
)


@given(before=_RECORDS, after=_RECORDS)
def test_without_anybody_else_the_result_is_what_was_meant(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert repr(sorted_deep(rebase(before, after, before))) == repr(sorted_deep(after))


@given(before=_RECORDS, current=_RECORDS)
def test_whoever_changed_nothing_changes_nothing(before: dict[str, Any], current: dict[str, Any]) -> None:
    assert rebase(before, before, current) == current


@given(before=_RECORDS, one=st.sampled_from("abcd"), other=st.sampled_from("abcd"))
def test_two_who_change_different_keys_both_get_their_way(before: dict[str, Any], one: str, other: str) -> None:
    if one == other:
        return
    merged = rebase(before, {**before, one: "mine"}, {**before, other: "theirs"})
    assert (merged[one], merged[other]) == ("mine", "theirs")


def test_numbers_that_are_equal_and_not_the_same_are_a_change() -> None:
    assert rebase({"x": 1}, {"x": True}, {"x": 1}) == {"x": True}


def sorted_deep(value: Any) -> Any:
    """Mappings in the order of their keys."""
    return {key: sorted_deep(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
