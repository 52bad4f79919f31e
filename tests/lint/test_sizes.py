"""The size check counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint.sizes import Size, complaints, function_sizes, main, percentile


def lines(source: str) -> list[int]:
    return [size.lines for size in function_sizes(source, "x.py")]


def function(length: int, name: str = "f") -> str:
    """The source of a function of so many lines."""
    return f"def {name}():\n" + "    pass\n" * (length - 1)


def test_a_function_is_counted_from_its_def_to_its_last_line() -> None:
    assert lines("@cached\ndef f(\n    a,\n    b,\n):\n    # why\n\n    return a\n") == [7]


def test_a_docstring_does_not_count() -> None:
    assert lines('def f():\n    """One.\n\n    More.\n    """\n    return 1\n') == [2]


def test_methods_coroutines_and_inner_functions_count() -> None:
    source = "class C:\n    async def m(self):\n        def inner():\n            return 1\n        return inner\n"
    assert sorted(lines(source)) == [2, 4]


def test_a_place_can_be_clicked() -> None:
    (size,) = function_sizes("\n\ndef f(): ...\n", "a/b.py")
    assert size.place == "a/b.py:3 f"


@pytest.mark.parametrize(("lengths", "expected"), [([], 0), ([7], 7), ([1] * 9 + [40], 40), ([1] * 10 + [40], 1)])
def test_the_percentile_is_by_nearest_rank(lengths: list[int], expected: int) -> None:
    assert percentile([Size(length, "") for length in lengths], 0.9) == expected


def test_limits_themselves_are_allowed() -> None:
    assert list(complaints([Size(50, ""), *[Size(28, "")] * 20], [Size(400, "")])) == []


def test_each_thing_too_long_is_named() -> None:
    functions = [Size(51, "a.py:1 f"), *[Size(29, "")] * 9]
    found = list(complaints(functions, [Size(401, "a.py")]))
    assert found == [
        "a.py:1 f: 51 lines, a function may have 50",
        "a.py: 401 lines, a module may have 400",
        "the 90th percentile of all functions is 51 lines, the limit is 28",
    ]


@pytest.mark.parametrize(("length", "code"), [(28, 0), (51, 1)])
def test_it_fails_where_something_is_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int, code: int
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/module.py").write_text(function(length))
    assert main([str(tmp_path)]) == code
    output = capsys.readouterr()
    assert f"1 functions, 90th percentile {length} lines" in output.out
    assert ("a function may have 50" in output.err) == (code == 1)


def test_a_folder_without_code_is_a_mistake(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
