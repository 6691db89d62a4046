"""The RL step on one page runs and learns."""

from examples.one_step import QUERIES, main


def test_the_example_finds_the_right_query() -> None:
    shares = main()
    assert sum(shares[:3]) / 3 < 2.5 / len(QUERIES)
    assert sum(shares[-3:]) / 3 > 0.9
