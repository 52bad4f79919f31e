"""How long functions and modules may be: `python -m tests.lint.sizes FOLDER…` fails where one is longer.

Lines are counted as they stand, with comments and empty lines; a function's docstring and decorators do not count,
so that nobody saves on words. A function inside another counts in both.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_FUNCTION = 50
LONGEST_TENTH = 28  # nine functions of ten are no longer
LONGEST_MODULE = 400


@dataclass(frozen=True)
class Size:
    """How many lines something has, and where it is (`file:line name`)."""

    lines: int
    place: str


def function_sizes(source: str, file: str) -> Iterator[Size]:
    """Every function and method of a module."""
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
            yield Size(lines, f"{file}:{node.lineno} {node.name}")


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node, clean=False) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


def percentile(sizes: Sequence[Size], share: float) -> int:
    """The length that `share` (0 to 1) of all functions do not exceed, by nearest rank; 0 where there are none."""
    ordered = sorted(size.lines for size in sizes)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0


def complaints(functions: Sequence[Size], modules: Sequence[Size]) -> Iterator[str]:
    """What is too long, one line each."""
    for size in functions:
        if size.lines > LONGEST_FUNCTION:
            yield f"{size.place}: {size.lines} lines, a function may have {LONGEST_FUNCTION}"
    for size in modules:
        if size.lines > LONGEST_MODULE:
            yield f"{size.place}: {size.lines} lines, a module may have {LONGEST_MODULE}"
    if (tenth := percentile(functions, 0.9)) > LONGEST_TENTH:
        yield f"the 90th percentile of all functions is {tenth} lines, the limit is {LONGEST_TENTH}"


def main(folders: Sequence[str]) -> int:
    """Print what is too long, or the figures; returns the exit code."""
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    sources = {str(path): path.read_text() for path in paths}
    functions = [size for file, source in sources.items() for size in function_sizes(source, file)]
    modules = [Size(len(source.splitlines()), file) for file, source in sources.items()]
    if not functions:
        print(f"no function in {' '.join(folders)}", file=sys.stderr)
        return 1
    found = list(complaints(functions, modules))
    for line in found:
        print(line, file=sys.stderr)
    print(
        f"{len(functions)} functions, 90th percentile {percentile(functions, 0.9)} lines, "
        f"longest {max(size.lines for size in functions)}; "
        f"{len(modules)} modules, longest {max(size.lines for size in modules)} lines"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
