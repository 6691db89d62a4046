"""Timing of right answers: it sees the queries and not the rows that they hand over, and survives a lost process."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from benchmarks.scoring.timing import Stopwatch
from conf.schema.benchmark import BenchmarkExecution
from conf.schema.reward import BudgetConfig

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT max(i) FROM n"
EXECUTION = BenchmarkExecution(
    budget=BudgetConfig(vm_steps=2_000_000_000, rows=1_000_000, bytes=2**28, heap_mib=256, cpu_s=1.0, wall_s=20.0)
)


@pytest.fixture
def database(tmp_path: Path) -> str:
    file = tmp_path / "t.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.commit()
    connection.close()
    return str(file)


def test_ten_times_the_work_is_ten_times_the_time(database: str) -> None:
    with Stopwatch(EXECUTION, 20) as stopwatch:
        slower = stopwatch.compare(database, COUNT.format(20_000), COUNT.format(200_000))
        same = stopwatch.compare(database, COUNT.format(50_000), COUNT.format(50_000))
    assert slower is not None
    assert same is not None
    assert 0.03 < slower.ratio < 0.25
    assert slower.r_ves == 0.5
    assert slower.ves == pytest.approx(slower.ratio**0.5)
    assert 0.4 < same.ratio < 2.5
    assert same.spread > 0


@pytest.mark.integration
def test_failures_and_lost_processes(database: str) -> None:
    with Stopwatch(EXECUTION, 2) as stopwatch:
        assert stopwatch.compare(database, "SELECT 1", "SELECT nothing") is None
        os.kill(stopwatch._process.pid or 0, signal.SIGKILL)
        assert stopwatch.compare(database, "SELECT 1", "SELECT 1") is not None
        endless = COUNT.format(10**12)
        assert stopwatch.compare(database, "SELECT 1", endless) is None
        assert stopwatch.compare(database, "SELECT 1", "SELECT 1") is not None
