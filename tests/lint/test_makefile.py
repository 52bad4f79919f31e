"""The make targets, the documents that name them, and the run of all checks agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def targets() -> set[str]:
    """The targets that people call."""
    (names,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(names.split())


def named_in(text: str) -> set[str]:
    """The targets that a document tells its reader to make, in code."""
    return set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", text, re.MULTILINE))


def test_help_lists_every_target() -> None:
    run = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  ([a-z-]+) +\S", run.stdout, re.MULTILINE)) == targets()


def test_every_target_that_a_document_names_exists() -> None:
    for name in DOCUMENTS:
        unknown = named_in((ROOT / name).read_text()) - targets()
        assert not unknown, f"{name} names {unknown}"


def test_the_readme_says_how_to_see_it_work_and_how_to_test_it() -> None:
    assert {"demo", "test"} <= named_in((ROOT / "README.md").read_text())


def test_the_run_of_all_checks_makes_what_the_readme_calls_the_tests() -> None:
    (made,) = re.findall(r"^for target in (.*); do$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert made.split() == ["lint", "test", "test-wheel", "compiled", "test-vllm"]
    assert set(made.split()) <= targets()


def test_the_ordinary_run_leaves_the_real_engine_out() -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet"]
    run = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/lint/test_makefile.py" in run.stdout
    assert "real_vllm" not in run.stdout
