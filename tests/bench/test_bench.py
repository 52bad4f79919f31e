"""The benchmark runs and says everything that it promises; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.circus import CIRCUS, CIRCUS_FULL
from tests.bench.crew import run_helpers, run_more_engines
from tests.bench.load import BenchError
from tests.bench.pooled import estimate, percentile
from tests.bench.process import ROOT, Cores, find_cores
from tests.bench.ration import find_groups, rationed
from tests.bench.report import Line
from tests.bench.rivals import HAPROXY, NGINX, find_program
from tests.bench.suites import Pool, choose, keys, suites
from tests.bench.syscalls import read_calls
from tests.bench.targets import DIRECT, Target, run_engine
from tests.bench.wire import StreamOrder, make_request, model_names, read_order
from tests.proxy.scripted import until

#: What a clean machine may have: Python proxies come with `make bench-rivals` alone.
TARGETS = (DIRECT, NGINX, HAPROXY, CIRCUS, CIRCUS_FULL)


def test_a_quick_run_prints_every_row_with_a_figure_for_every_proxy(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.bench", "--quick", "--targets", ",".join(TARGETS), "--output", str(tmp_path)]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    expected = choose((), TARGETS)
    assert [suite["key"] for suite in result["suites"]] == [suite.key for suite in expected]
    for said, suite in zip(result["suites"], expected, strict=True):
        there = {p.name for p in suite.proxies if not p.lacking and p.name != DIRECT}
        for row, promised in zip(said["rows"], suite.rows, strict=True):
            beyond = isinstance(promised.value, Pool) and promised.value.beyond
            assert set(row["medians"]) - {DIRECT} == there - ({suite.base} if beyond else set()), row["title"]
            assert f"| {row['title']} |" in run.stdout
    assert (tmp_path / "result.md").read_text().strip() == run.stdout.strip()


def test_a_proxy_that_is_not_installed_is_named_with_what_installs_it() -> None:
    lacking = {proxy.names[-1]: proxy.lacking for suite in suites() for proxy in suite.proxies if proxy.lacking}
    assert not {CIRCUS, CIRCUS_FULL, DIRECT} & set(lacking)
    for name, what in lacking.items():
        assert what == (f"apt install {name}" if name in (NGINX, HAPROXY) else "make bench-rivals")
    assert (HAPROXY in lacking) == (find_program("haproxy") is None)


def test_words_choose_scenarios_and_proxies() -> None:
    (suite,) = choose(["streams", "small"], [NGINX, CIRCUS])
    assert [scenario.key for scenario in suite.scenarios] == ["small", "streams-64", "streams-256"]
    assert [proxy.name for proxy in suite.proxies] == [DIRECT, NGINX, CIRCUS]
    assert [suite.key for suite in choose(["models"], [])] == ["models"]
    assert choose(["nothing"], []) == []


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.8, 0.99, 1.0)] == [1.0, 3.0, 4.0, 5.0, 5.0]


def test_a_percentile_of_all_rounds_has_an_interval_that_tells_rounds_that_differ_from_such_that_do_not() -> None:
    like = [[1.0, 2.0, 3.0]] * 8
    assert estimate(like, 0.5) == (2.0, 2.0, 2.0)
    unlike = [[1.0, 2.0, 3.0 + turn] for turn in range(8)]
    figure, low, high = estimate(unlike, 1.0)
    assert figure == 10.0
    assert 3.0 <= low < high <= 10.0


def test_what_one_proxy_takes_beyond_another_is_compared_in_the_same_rounds() -> None:
    base = [[float(turn), turn + 1.0] for turn in range(8)]  # rounds differ much, and the two of a round do not
    slower = [[value + 1.5 for value in values] for values in base]
    assert estimate(slower, 0.99, base) == (1.5, 1.5, 1.5)
    assert estimate(slower[:3], 0.99, base) == (1.5, 1.5, 1.5)


def test_ratios_are_of_medians_and_left_out_where_the_base_is_nothing() -> None:
    row = suites()[0].rows[0]
    line = Line("", row, {"a": [3.0, 1.0, 2.0], "b": [8.0, 1.0], "none": [-1.0]}, 0.5)
    assert line.ratio("a", "b") == pytest.approx(2 / 4.5)
    assert line.ratio("a", "none") is None
    assert line.ratio("a", "absent") is None


def test_the_engine_understands_the_streams_that_are_asked_for() -> None:
    order = StreamOrder(chunks=200, pace=20)
    assert read_order(make_request(order=order)) == order
    assert read_order(make_request()) is None


def test_a_request_is_as_large_as_it_shall_be() -> None:
    small, large = make_request(size=1), make_request(size=8 << 20)
    assert len(large.partition(b"\r\n\r\n")[2]) - len(small.partition(b"\r\n\r\n")[2]) == (8 << 20) - 1
    assert model_names(3)[2].encode() in make_request(model=model_names(3)[2])


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [
        ([5], Cores(5, 5, (5,))),
        ([0, 1], Cores(0, 0, (1, 0))),
        ([0, 1, 2], Cores(0, 1, (2, 1))),
        (range(7), Cores(0, 1, (6, 5))),
        (range(8), Cores(0, 1, (7, 6), ((2, 3), (4, 5)))),
        (range(16), Cores(0, 1, (15, 14, 13, 12), ((2, 3), (4, 5), (6, 7), (8, 9), (10, 11)))),
    ],
)
def test_the_proxy_has_a_core_of_its_own_wherever_there_are_two(allowed: list[int], cores: Cores) -> None:
    assert find_cores(allowed) == cores


def test_two_threads_of_one_core_do_not_both_work_where_there_are_enough_cores() -> None:
    def pair(core: int) -> frozenset[int]:
        return frozenset({core & ~1, core | 1})

    assert find_cores(range(16), pair) == Cores(0, 2, (14, 12), ((4, 6), (8, 10)))
    assert find_cores(range(4), pair) == Cores(0, 1, (3, 2))


def test_further_loads_and_engines_have_their_share(tmp_path: Path) -> None:
    cores = Cores(0, 0, (0,), helpers=((0, 0),))
    with run_engine(tmp_path, cores) as alone, run_more_engines(alone) as stage:
        assert len(stage.engine_pids) == 2
        target = Target("", stage.engine, (), stage.load, helpers=stage.helpers)
        with run_helpers(target, clients=3) as (helper,):
            before = helper.count()
            assert until(lambda: helper.count() > before + 100)


def test_a_worker_with_a_part_of_a_core_has_a_group_of_its_own_meanwhile() -> None:
    groups = find_groups()
    if groups is None:
        assert "workers-rationed" not in keys()
        return
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        place = Path(f"/proc/{worker.pid}/cgroup")
        with rationed(groups, [worker.pid], 0.25):
            group = groups / f"vllm-circus-bench-{worker.pid}"
            assert group.name in place.read_text()
            names = [name for name in ("cpu.max", "cpu.cfs_quota_us") if (group / name).exists()]
            assert [(group / name).read_text().split()[0] for name in names] == ["25000"]
        assert group.name not in place.read_text()
        assert not group.exists()
        with pytest.raises(BenchError, match="does not limit"), rationed(groups / "absent", [worker.pid], 0.25):
            pass
    with pytest.raises(BenchError, match="No such process"), rationed(groups, [worker.pid], 0.25):
        pass
    assert not group.exists()


def test_one_engine_alone_has_no_further_loads(tmp_path: Path) -> None:
    with run_engine(tmp_path, Cores(0, 0, (0,), helpers=((0, 0),))) as stage:
        assert stage.helpers == ()


def test_calls_are_read_from_what_strace_sums_up() -> None:
    summary = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000200           1       120           sendto\n"
        " 40.00    0.000100           1       240        12 recvfrom\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000300           1       360        12 total\n"
    )
    assert list(read_calls(summary).items()) == [("recvfrom", 240), ("sendto", 120)]
