"""Questions with the way back: answers are kept, and what does not apply is passed over both ways."""

from __future__ import annotations

import pytest

from tests.menu.scripted import BACK, Scripted
from vllm_circus.menu.wizard.setup import Setup
from vllm_circus.menu.wizard.walk import BackWith, NothingToAsk, Step, walk


def steps(asker: Scripted, skipped: str = "") -> tuple[Step, ...]:
    def question(key: str) -> Step:
        def ask(setup: Setup) -> Setup:
            return setup.with_proxy(**{key: asker.text(key, default=str(setup.proxy.get(key, "")))})

        return Step(key, ask, lambda _setup: key != skipped)

    return question("a"), question("b"), question("c")


def test_every_answer_is_kept_and_told() -> None:
    kept: list[Setup] = []
    asker = Scripted(["1", "2", "3"])
    done = walk(Setup({}), steps(asker), kept.append)
    assert done.proxy == {"a": "1", "b": "2", "c": "3"}
    assert [dict(one.proxy) for one in kept] == [{"a": "1"}, {"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}]


def test_back_asks_the_question_before_again_with_its_answer() -> None:
    asker = Scripted(["1", "2", BACK, "5", "3"])
    done = walk(Setup({}), steps(asker), lambda _: None)
    assert done.proxy == {"a": "1", "b": "5", "c": "3"}
    assert [(one.title, one.default) for one in asker.questions] == [
        ("a", ""), ("b", ""), ("c", ""), ("b", "2"), ("c", ""),
    ]  # fmt: skip


def test_what_does_not_apply_is_passed_over_both_ways() -> None:
    asker = Scripted(["1", BACK, "9", "3"])
    done = walk(Setup({}), steps(asker, skipped="b"), lambda _: None)
    assert done.proxy == {"a": "9", "c": "3"}
    assert asker.titles == ["a", "c", "a", "c"]


def test_what_has_nothing_to_choose_from_is_told_on_the_way_forward_and_passed_over_both_ways() -> None:
    asker = Scripted(["1", BACK, "9", "3"])
    told: list[str] = []

    def ask(_setup: Setup) -> Setup:
        raise NothingToAsk(lambda: told.append("nothing"))

    first, _, last = steps(asker)
    done = walk(Setup({}), (first, Step("b", ask), last), lambda _: None)
    assert done.proxy == {"a": "9", "c": "3"}
    assert asker.titles == ["a", "c", "a", "c"]
    assert told == ["nothing", "nothing"]


def test_back_in_the_first_question_ends_it_with_what_was_answered() -> None:
    asker = Scripted(["1", BACK, BACK])
    with pytest.raises(BackWith) as back:
        walk(Setup({}), steps(asker), lambda _: None)
    assert back.value.setup.proxy == {"a": "1"}


def test_a_question_may_go_back_with_what_it_was_told_meanwhile() -> None:
    asker = Scripted(["1", "1", "3"])
    tried: list[str] = []

    def ask(setup: Setup) -> Setup:
        tried.append("b")
        if len(tried) == 1:
            raise BackWith(setup.with_proxy(b="halfway"))
        return setup

    first, _, last = steps(asker)
    done = walk(Setup({}), (first, Step("b", ask), last), lambda _: None)
    assert done.proxy == {"a": "1", "b": "halfway", "c": "3"}


def test_a_walk_may_begin_in_the_middle() -> None:
    asker = Scripted(["3"])
    assert walk(Setup({}), steps(asker), lambda _: None, start=2).proxy == {"c": "3"}
