"""Checks that break, hang or cannot be done are findings; the others are done all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.checkup.conftest import MakePlan
from vllm_circus.checkup import Verdict, run, worst
from vllm_circus.checkup.findings import Found, fault, note, ok
from vllm_circus.checkup.patience import Answer, all_within, within
from vllm_circus.checkup.running import CHECKS, Check
from vllm_circus.checkup.scene import Scene
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance

Look = Callable[[Scene], Iterable[Found]]


def breaks(_scene: Scene) -> Iterator[Found]:
    yield ok("so far")
    raise ZeroDivisionError("by nothing")


def refused(_scene: Scene) -> Iterator[Found]:
    raise PermissionError(13, "Permission denied", "/etc/secret")


def gives_up(_scene: Scene) -> Iterator[Found]:
    raise CircusError("no such thing", hint="get one")


def fine(_scene: Scene) -> Iterator[Found]:
    yield ok("all is well")


@pytest.mark.parametrize(
    ("check", "verdict", "what"),
    [
        (breaks, Verdict.WARNING, "this check broke: ZeroDivisionError: by nothing"),
        (refused, Verdict.NOTE, "cannot be told: /etc/secret: Permission denied"),
        (gives_up, Verdict.NOTE, "cannot be told: no such thing"),
    ],
)
def test_a_check_that_breaks_is_a_finding_and_the_next_is_done(
    instance: Instance, check: Look, verdict: Verdict, what: str
) -> None:
    checks = (Check("A", "one", check), Check("B", "two", fine))
    first, second = run(instance, environ={}, checks=checks)
    assert (first.group, first.check, first.verdict, first.what) == ("A", "one", verdict, what)
    assert (second.group, second.verdict) == ("B", Verdict.OK)


def test_a_check_that_hangs_is_a_finding_and_the_next_is_done(instance: Instance) -> None:
    for_ever = threading.Event()

    def hangs(_scene: Scene) -> Iterator[Found]:
        for_ever.wait()
        yield ok("at last")

    try:
        first, second = run(instance, environ={}, checks=(Check("A", "one", hangs, 0.05), Check("B", "two", fine)))
    finally:
        for_ever.set()
    assert first.what == "this check did not end within 0.05 s"
    assert first.verdict is Verdict.WARNING
    assert second.verdict is Verdict.OK


def test_what_is_looked_at_is_told(instance: Instance) -> None:
    told: list[str] = []
    run(instance, None, told.append, environ={}, checks=(Check("A", "open-files", fine),))
    assert told == ["the driver", "circusd", "the models file", "open files"]


def test_every_check_is_named_once_and_stands_with_its_group() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    groups = [check.group for check in CHECKS]
    assert [*dict.fromkeys(groups)] == [group for at, group in enumerate(groups) if at == 0 or groups[at - 1] != group]


def test_where_there_is_nothing_at_all_every_check_ends_well(instance: Instance, short_dir: Path) -> None:
    findings = run(instance, environ={"HOME": str(short_dir), "PATH": ""})
    assert not [finding for finding in findings if finding.what.startswith("this check ")]
    assert {finding.check for finding in findings} >= {"packages", "driver", "models-file", "circusd", "memory"}
    assert not list(short_dir.iterdir())  # nothing was made


def test_nothing_configured_is_no_fault(instance: Instance, short_dir: Path) -> None:
    findings = run(instance, environ={"HOME": str(short_dir), "PATH": ""})
    (told,) = [finding for finding in findings if finding.check == "models-file"]
    assert told.verdict is Verdict.WARNING
    assert f"vllm-circus example --output {instance.config_file}" in told.fix


def test_every_finding_that_is_not_ok_says_what_to_do(instance: Instance, short_dir: Path) -> None:
    instance.config_dir.mkdir()
    instance.config_file.write_text("proxy: {prot: 1}\nmodels: [{name: a, model: /nowhere}]\n")
    findings = run(instance, environ={"HOME": str(short_dir), "PATH": ""})
    assert all(finding.fix for finding in findings if finding.verdict is not Verdict.OK)


def test_the_worst_of_all_counts(scene: Scene, plan_of: MakePlan) -> None:
    assert worst(()) is Verdict.OK
    assert fault("a", "b").verdict.rank > note("a").verdict.rank > ok("a").verdict.rank == 0


def test_what_takes_too_long_has_no_answer() -> None:
    for_ever = threading.Event()
    try:
        assert within(0.01, for_ever.wait) == Answer(late=True)
    finally:
        for_ever.set()
    assert within(5, lambda: 7) == Answer(7)
    assert all_within(5, [lambda: 1, lambda: 2]) == (Answer(1), Answer(2))
    assert isinstance(within(5, lambda: 1 // 0).error, ZeroDivisionError)
