"""What `--output` writes: result.md, result.json and, where matplotlib is, result.png."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.bench.process import ROOT
from tests.bench.report import lines
from tests.bench.rivals import RIVALS
from tests.bench.run import Result
from tests.bench.suites import Pool


def write(folder: Path, text: str, head: Sequence[str], results: Sequence[Result]) -> None:
    """Write them; a missing plot is said on stderr and is no failure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.md").write_text(f"{text.rstrip()}\n")
    data = folder / "result.json"
    data.write_text(json.dumps({"measured": list(head), "suites": [_suite(result) for result in results]}, indent=1))
    _plot(data.resolve(), (folder / "result.png").resolve())


def _suite(result: Result) -> dict[str, object]:
    rows = [
        {
            "title": line.title,
            "values": {name: [round(value, 3) for value in values] for name, values in line.values.items()},
            "medians": {name: round(line.figures(name)[0], 3) for name in line.values},
            "pooled": isinstance(line.row.value, Pool),  # then `values` are the figure and its interval
            "load_share": round(line.busy, 3),
        }
        for line in lines(result)
    ]
    return {"key": result.suite.key, "title": result.suite.title, "base": result.suite.base, "rows": rows}


def _plot(data: Path, picture: Path) -> None:
    """Drawn by whichever Python has matplotlib, ours or that of the rivals."""
    python = sys.executable if find_spec("matplotlib") else str(RIVALS / "bin" / "python")
    if not Path(python).exists():
        print("no plot: matplotlib is not here; to have it: make bench-rivals", file=sys.stderr)
        return
    argv = [python, "-m", "tests.bench.plot", str(data), str(picture)]
    if subprocess.run(argv, cwd=ROOT, check=False).returncode:
        print("no plot: see above", file=sys.stderr)
