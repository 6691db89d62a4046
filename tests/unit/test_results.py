"""Results beyond what is held in memory."""

import tracemalloc
from pathlib import Path

import pytest

from rewards.carriers import Execution
from rewards.sql.results import Results


def execution(number: int, size: int = 1_000_000) -> Execution:
    return Execution(status="ok", columns=("a", "b"), rows=((number, "x" * size), (None, b"\xff")), vm_steps=number)


def test_results_come_back_as_they_were_from_memory_and_from_the_file() -> None:
    results = Results[int](held_bytes=2_500_000)
    tracemalloc.start()
    for number in range(20):
        results.put(number, execution(number))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert [results[number] for number in (19, 0, 7)] == [execution(19), execution(0), execution(7)]
    assert [number in results for number in (0, 19, 20)] == [True, True, False]
    assert held < 4_000_000
    with pytest.raises(KeyError):
        results[20]


def test_small_results_behind_a_large_one_stay_in_memory(tmp_path: Path) -> None:
    results = Results[str](held_bytes=10_000)
    results.put("large", execution(1))
    results.put("small", execution(2, size=10))
    assert (results["large"], results["small"]) == (execution(1), execution(2, size=10))
