"""The benchmark runs and says everything that it promises; how fast anything is, no test asserts."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.process import ROOT
from tests.bench.report import ROWS, percentile
from tests.bench.targets import CIRCUS, CIRCUS_KEYS, DIRECT, NGINX, nginx_program
from tests.bench.wire import StreamOrder, read_order


def test_a_quick_run_prints_every_row_with_a_figure_for_every_proxy() -> None:
    argv = [sys.executable, "-m", "tests.bench", "--quick"]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]
    header, rows = lines[0], {cells[0]: cells for cells in lines[2:]}
    proxies = ([NGINX] if nginx_program() else []) + [CIRCUS, CIRCUS_KEYS]
    assert header[: len(proxies) + 2] == ["", DIRECT, *proxies]
    assert list(rows) == [row.title for row in ROWS]
    for title, cells in rows.items():
        assert len(cells) == len(header)
        assert all(any(map(str.isdigit, cell)) for cell in cells[2 : len(proxies) + 2]), title


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.8, 0.99, 1.0)] == [1.0, 3.0, 4.0, 5.0, 5.0]


def test_the_engine_understands_the_streams_that_are_asked_for() -> None:
    order = StreamOrder(chunks=200, pace=20)
    assert read_order(b"POST %b HTTP/1.1" % order.target.encode()) == order
    assert read_order(b"POST /v1/chat/completions HTTP/1.1") is None
