"""`python -m tests.bench.plot result.json result.png`: the CPU costs of all proxies as a picture.

Runs on any Python that has matplotlib, so it imports nothing else of this project.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

#: The lines of the result that are drawn, one picture each, in the order of the table.
_DRAWN = ("CPU µs", "First chunk p99", "memory per")
_SUITES = ("proxies", "first", "crowds")
_OURS = "vllm-circus"


def main() -> int:
    """Returns the exit code: 1 where nothing can be drawn."""
    source, picture = map(Path, sys.argv[1:])
    try:
        matplotlib: Any = import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot: Any = import_module("matplotlib.pyplot")
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    suites = [suite for suite in json.loads(source.read_text())["suites"] if suite["key"] in _SUITES]
    rows = [row for suite in suites for row in suite["rows"] if any(word in row["title"] for word in _DRAWN)]
    if rows:
        _draw(pyplot, rows, picture)
    return 0


def _draw(pyplot: Any, rows: list[Any], picture: Path) -> None:
    across = min(2, len(rows))
    down = -(-len(rows) // across)
    figure, places = pyplot.subplots(down, across, figsize=(7 * across, 2.6 * down), squeeze=False)
    for place in places.flat[len(rows) :]:
        place.set_visible(False)
    for place, row in zip(places.flat, rows, strict=False):
        _bars(place, row)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _bars(place: Any, row: Any) -> None:
    """Longer is worse; the scale is logarithmic, for some are a hundred times longer."""
    medians = {name: value for name, value in row["medians"].items() if name != "direct" and value > 0}
    names = list(reversed(medians))
    values = [medians[name] for name in names]
    bars = place.barh(names, values, color=["#d1495b" if name.startswith(_OURS) else "#8d99ae" for name in names])
    place.bar_label(bars, labels=[f"{value:,.{0 if value >= 100 else 1}f}" for value in values], padding=3, fontsize=8)
    place.set_xscale("log")
    place.set_xlim(min(values) / 3, max(values) * 3)
    place.set_title(row["title"], fontsize=10)
    place.tick_params(labelsize=8)
    place.tick_params(axis="x", which="both", bottom=False, labelbottom=False)  # the bars have their figures


if __name__ == "__main__":
    sys.exit(main())
