"""Whole completions through the scorer, on a real database and its second instance."""

import gc
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conf.schema.reward import AtomicReward, BudgetConfig, ExecutionReward, MemoryReward, PenaltyConfig, RewardConfig
from rewards import verdicts
from rewards.carriers import RewardResult, SqlTask
from rewards.components.memory import MemoryComponent
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool
from tests.dogs import write_dogs
from tests.unit.counting_pool import CountingPool
from tests.unit.losing_pool import LosingPool

THINK = "<think>" + "The question asks for dogs, so the dog table is read and its rows are counted. " * 2 + "</think>"
BUDGET = BudgetConfig(vm_steps=1_000_000, rows=1000)


@pytest.fixture(scope="module")
def pool() -> Iterator[CountingPool]:
    with CountingPool(2) as executors:
        yield executors


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("dogs")
    rows = {
        "dogs.sqlite": [("rex", 3), ("ace", 5)],
        "dogs_v1.sqlite": [("rex", 3), ("ace", 5), ("old", 9), ("edge", 4)],
    }
    for name, content in rows.items():
        write_dogs(folder / name, content)
    return str(folder / "dogs.sqlite"), str(folder / "dogs_v1.sqlite")


def config(**changes: object) -> RewardConfig:
    values = {"execution": ExecutionReward(budget=BUDGET), "memory": MemoryReward(enabled=False), **changes}
    return RewardConfig(**values)  # type: ignore[arg-type]


def task(databases: tuple[str, ...], *golds: str) -> SqlTask:
    return SqlTask(id="t", db_id="dogs", question="?", gold_sqls=golds, databases=databases, denotation="spider")


def score(
    pool: ExecutorPool, databases: tuple[str, ...], gold: str, completions: Sequence[str], settings: RewardConfig
) -> tuple[RewardResult, ...]:
    return Scorer(settings, pool).score(task(databases, gold), completions)


@pytest.mark.parametrize(
    ("completion", "form", "execution", "kind", "total"),
    [
        (THINK + "SELECT name FROM dog", 1, 2, None, 3.0),
        (THINK + "```sql\nSELECT name FROM dog;\n```", 1, 2, None, 3.0),
        ("SELECT name FROM dog", 0, 2, None, 0.0),
        ("<think>short</think>SELECT name FROM dog", 0, 2, None, 0.0),
        (THINK + "DROP TABLE dog", 1, 0, "forbidden", 1.0),
        (THINK + "I do not know.", 1, 0, "not_a_query", 1.0),
        (THINK, 0, 0, "not_a_query", 0.0),
        ("<think>SELECT name FROM dog", 0, 0, "not_a_query", 0.0),
        (THINK + "SELECT nme FROM dog", 1, 0, "runtime", 1.0),
        (THINK + "SELECT name FROM", 1, 0, "syntax", 1.0),
        ("", 0, 0, "not_a_query", 0.0),
        (THINK + "```sqlite3\nSELECT name FROM dog\n```", 1, 2, None, 3.0),
        (THINK + "```SELECT name FROM dog```", 1, 2, None, 3.0),
        (THINK + "~~~sql\nSELECT name FROM dog", 1, 2, None, 3.0),
        (THINK + "SELECT name FROM dog; -- all of them", 1, 2, None, 3.0),
        ("\ufeff" + THINK + "\ufeffSELECT name FROM dog", 1, 2, None, 3.0),
        (THINK + "\u200bSELECT name FROM dog", 1, 0, "not_a_query", 1.0),
        (THINK + "```" + " " * 90_000, 0, 0, "not_a_query", 0.0),
        (THINK + "```" + " " * 90_000 + "x", 1, 0, "not_a_query", 1.0),
        (THINK + "SELECT name FROM dog" + " " * 200_000, 0, 0, "too_large", 0.0),
        (THINK + "<think>" * 100_000, 0, 0, "too_large", 0.0),
    ],
)
def test_published_components(
    pool: CountingPool, databases: tuple[str, str], completion: str, form: int, execution: int, kind: str, total: float
) -> None:
    (result,) = score(pool, databases, "SELECT name FROM dog", [completion], config())
    assert result.status == "scored"
    assert (result.components["format"], result.components["execution"]) == (form, execution)
    assert result.error_kind == kind
    assert result.total == pytest.approx(total)
    assert result.correct is (execution == 2)


def test_a_query_that_runs_but_differs_earns_its_overlap(pool: CountingPool, databases: tuple[str, str]) -> None:
    near, far = score(
        pool,
        databases,
        "SELECT name FROM dog WHERE age > 4",
        [THINK + "SELECT name FROM dog WHERE age < 4", THINK + "SELECT count(*) FROM dog"],
        config(),
    )
    assert near.components["execution"] == far.components["execution"] == 1
    assert 2.0 < float(far.total or 0) < float(near.total or 0) < 2.0 + 0.8005
    assert near.result_digest != far.result_digest


def test_a_completion_without_sql_has_the_least_overlap_and_an_unscored_one_none(
    pool: CountingPool, databases: tuple[str, str]
) -> None:
    answers = ["I do not know", "<think>SELECT name FROM dog", THINK, "SELECT 1" + " " * 200_000]
    results = score(pool, databases, "SELECT name FROM dog", answers, config())
    assert [result.components["atomic"] for result in results][1:] == [0.0, 0.0, 0.0]
    assert float(results[0].components["atomic"] or 0) < 0.1  # prose is compared like a query
    without = config(atomic=AtomicReward(enabled=False))
    assert score(pool, databases, "SELECT name FROM dog", [""], without)[0].components["atomic"] is None
    assert score(pool, databases, "SELECT nothing FROM dog", [""], config())[0].components["atomic"] is None


def test_a_comment_behind_the_semicolon_hides_no_operation(pool: CountingPool, databases: tuple[str, str]) -> None:
    plain, noted = score(
        pool,
        databases,
        "SELECT name FROM dog WHERE age > 4",
        [THINK + "SELECT name FROM dog WHERE age < 4", THINK + "SELECT name FROM dog WHERE age < 4; -- younger"],
        config(),
    )
    assert (plain.components["atomic"], plain.flags) == (noted.components["atomic"], noted.flags)
    assert plain.components["atomic"] == pytest.approx(0.5)
    assert plain.flags == ()


def test_equal_candidates_run_once_and_verdicts_are_cached(pool: CountingPool, databases: tuple[str, str]) -> None:
    scorer = Scorer(config(), pool)
    group = [THINK + sql for sql in ("SELECT name FROM dog", "select  name from dog ;", "SELECT age FROM dog")] * 10
    scorer.score(task(databases, "SELECT name FROM dog"), group[:0])
    before = pool.executed
    first = scorer.score(task(databases, "SELECT name FROM dog"), group)
    assert pool.executed == before + 2
    second = scorer.score(task(databases, "SELECT name FROM dog"), group)
    assert pool.executed == before + 2
    assert first == second
    assert [r.correct for r in first] == [True, True, False] * 10


def test_dropped_syntax_trees_are_collected_after_many_new_candidates(
    pool: CountingPool, databases: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "COLLECT_ALL_AFTER", 4)
    scorer, whole = Scorer(config(), pool), 0

    def count(phase: str, info: dict[str, int]) -> None:
        nonlocal whole
        whole += phase == "stop" and info["generation"] == 2

    def collections(first: int) -> int:
        before = whole
        answers = [THINK + f"SELECT name FROM dog WHERE age > {n}" for n in range(first, first + 3)]
        scorer.score(task(databases[:1], "SELECT name FROM dog"), answers)
        return whole - before

    gc.disable()
    gc.callbacks.append(count)
    try:
        assert [collections(0), collections(0), collections(3), collections(3), collections(6)] == [0, 0, 1, 0, 0]
    finally:
        gc.callbacks.remove(count)
        gc.enable()


def test_scores_do_not_depend_on_the_batch(pool: CountingPool, databases: tuple[str, str]) -> None:
    group = [THINK + sql for sql in ("SELECT name FROM dog", "SELECT age FROM dog", "nonsense", "SELECT 1")]
    together = score(pool, databases, "SELECT name FROM dog", group, config())
    alone = [score(pool, databases, "SELECT name FROM dog", [text], config())[0] for text in group]
    backwards = score(pool, databases, "SELECT name FROM dog", group[::-1], config())[::-1]
    assert list(together) == alone == list(backwards)


def test_right_means_right_on_every_instance(pool: CountingPool, databases: tuple[str, str]) -> None:
    gold, lucky = "SELECT name FROM dog WHERE age > 4", THINK + "SELECT name FROM dog WHERE age >= 4"
    (primary,) = score(pool, databases, gold, [lucky], config())
    everywhere = ExecutionReward(budget=BUDGET, instances="all")
    (strict, same) = score(pool, databases, gold, [lucky, THINK + gold], config(execution=everywhere))
    assert primary.correct
    assert (strict.correct, strict.components["execution"]) == (False, 1)
    assert same.correct


def test_an_empty_answer_proves_nothing_where_another_instance_has_rows(
    pool: CountingPool, databases: tuple[str, str]
) -> None:
    gold = "SELECT name FROM dog WHERE age > 8"
    group = [THINK + "SELECT name FROM dog WHERE 1 = 0", THINK + "SELECT name FROM dog WHERE age >= 9"]
    loose = score(pool, databases, gold, group, config())
    strict = score(pool, databases, gold, group, config(empty_needs_empty_everywhere=True))
    assert [r.correct for r in loose] == [True, True]
    assert [r.correct for r in strict] == [False, True]
    alone = score(pool, databases[:1], gold, group, config(empty_needs_empty_everywhere=True))
    assert [r.correct for r in alone] == [True, True]


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT nothing_here FROM dog",
        "WITH RECURSIVE t(a) AS (VALUES (1) UNION ALL SELECT a + 1 FROM t) SELECT sum(a) FROM t",
        "SELECT name FROM nowhere",
    ],
)
def test_a_broken_gold_is_unscorable_also_for_an_empty_answer(
    pool: CountingPool, databases: tuple[str, str], gold: str
) -> None:
    (result,) = score(pool, databases, gold, [THINK + "SELECT name FROM dog WHERE 1 = 0"], config())
    assert (result.status, result.total, result.components["execution"]) == ("unscorable", None, None)
    assert result.cause == "data"
    assert str(result.error).startswith("gold: ")
    assert not Scorer(config(), pool).check_gold(task(databases, gold)).usable


def test_a_missing_database_is_unscorable(pool: CountingPool, tmp_path: Path) -> None:
    (result,) = score(pool, (str(tmp_path / "absent.sqlite"),), "SELECT 1", [THINK + "SELECT 1"], config())
    assert (result.status, result.total, result.cause) == ("unscorable", None, "infrastructure")
    assert not (tmp_path / "absent.sqlite").exists()


def test_any_usable_gold_counts(pool: CountingPool, databases: tuple[str, str]) -> None:
    scorer = Scorer(config(), pool)
    (result,) = scorer.score(
        task(databases, "SELECT missing FROM dog", "SELECT age FROM dog", "SELECT name FROM dog"),
        [THINK + "SELECT name FROM dog"],
    )
    assert result.correct
    assert result.flags == ("gold_failed",)


def test_an_order_dependent_gold_is_flagged_or_left_out(pool: CountingPool, databases: tuple[str, str]) -> None:
    gold = "SELECT name FROM dog LIMIT 1"
    (flagged,) = score(pool, databases, gold, [THINK + gold], config())
    assert (flagged.correct, flagged.flags) == (True, ("gold_order_dependent",))
    strict = ExecutionReward(budget=BUDGET, order_dependent_gold="unscorable")
    (left_out,) = score(pool, databases, gold, [THINK + gold], config(execution=strict))
    assert (left_out.status, left_out.total, left_out.cause) == ("unscorable", None, "data")
    assert not left_out.lost


@pytest.mark.parametrize("policy", ["score", "unscorable"])
def test_a_gold_whose_order_cannot_be_found_out_is_no_infrastructure_failure(
    pool: CountingPool, databases: tuple[str, str], policy: str
) -> None:
    execution = ExecutionReward.model_validate({"budget": BUDGET, "order_dependent_gold": policy})
    scorer = Scorer(config(execution=execution), pool)
    asked = task(databases, "SELECT DISTINCT name FROM dog ORDER BY age")
    (result,) = scorer.score(asked, [THINK + "SELECT DISTINCT name FROM dog ORDER BY age"])
    check = scorer.check_gold(asked)
    assert (check.usable, check.infrastructure, check.order_unknown) == (policy == "score", False, True)
    assert (result.correct, result.flags) == ((True, ("gold_order_unknown",)) if policy == "score" else (False, ()))


def test_sums_that_differ_in_the_last_bits_are_one_result(pool: CountingPool, tmp_path: Path) -> None:
    path = tmp_path / "prices.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (price REAL)")
        connection.executemany("INSERT INTO item VALUES (?)", [(0.1,), (0.2,), (0.3,), (100.5,)])
    connection.close()
    sums = [
        "SELECT price + sum(price) OVER () FROM item WHERE 0 UNION SELECT 0.1 + 0.2 + 0.3",
        "SELECT 0.3 + 0.2 + 0.1",
    ]
    sums.append("SELECT sum(price) FROM item WHERE price < 1")
    sums.append("SELECT sum(p) FROM (SELECT price AS p FROM item WHERE price < 1 ORDER BY p DESC LIMIT 9)")
    results = score(pool, (str(path),), "SELECT max(price) FROM item", [THINK + sql for sql in sums], config())
    assert [result.components["execution"] for result in results] == [1] * 4
    assert len({result.result_digest for result in results}) == 1
    (alone,) = score(pool, (str(path),), "SELECT max(price) FROM item", [THINK + sums[1]], config())
    (other,) = score(pool, (str(path),), "SELECT max(price) FROM item", [THINK + "SELECT 0.7"], config())
    assert other.result_digest != alone.result_digest


def test_a_lost_gold_leaves_its_task_unscorable(databases: tuple[str, str]) -> None:
    asked = task(databases, "SELECT name FROM dog", "SELECT age FROM dog")
    with LosingPool(1) as pool:
        scorer = Scorer(config(), pool)
        pool.loses = lambda query: query.sql == "SELECT age FROM dog"
        (lost,) = scorer.score(asked, [THINK + "SELECT age, 1 FROM dog"])
        assert (lost.status, lost.total, lost.error) == ("unscorable", None, "gold: lost")
        assert lost.cause == "infrastructure"
        assert scorer.check_gold(asked).infrastructure
        pool.loses = lambda query: False
        (right,) = scorer.score(asked, [THINK + "SELECT age FROM dog"])
        assert right.correct


@pytest.mark.parametrize("policy", ["score", "unscorable"])
def test_a_gold_whose_order_could_not_be_probed(databases: tuple[str, str], policy: str) -> None:
    asked = task(databases, "SELECT name FROM dog")
    with LosingPool(1) as pool:
        execution = ExecutionReward.model_validate({"budget": BUDGET, "order_dependent_gold": policy})
        scorer = Scorer(config(execution=execution), pool)
        pool.loses = lambda query: query.reverse_unordered
        (result,) = scorer.score(asked, [THINK + "SELECT name FROM dog"])
        assert result.status == {"score": "scored", "unscorable": "unscorable"}[policy]
        assert scorer.check_gold(asked).infrastructure is (policy == "unscorable")
        assert scorer.stats().cache_entries == 0


@pytest.mark.parametrize(("own_doing", "cause"), [(True, "policy"), (False, "infrastructure")])
def test_a_query_that_loses_its_process_is_unscorable_by_whose_doing_it_is(
    databases: tuple[str, str], own_doing: bool, cause: str
) -> None:
    with LosingPool(1) as pool:
        pool.loses = lambda query: "age" in query.sql
        pool.own_doing = own_doing
        scorer = Scorer(config(), pool)
        gold = task(databases, "SELECT name FROM dog")
        lost, right = scorer.score(gold, [THINK + "SELECT age FROM dog", THINK + "SELECT name FROM dog"])
        assert (lost.status, lost.total, lost.cause, lost.lost) == ("unscorable", None, cause, not own_doing)
        assert right.correct
        assert right.cause is None
        # A gold of that kind is the data's doing.
        (broken,) = scorer.score(task(databases, "SELECT age FROM dog"), [THINK + "SELECT name FROM dog"])
        assert broken.cause == ("data" if own_doing else "infrastructure")
        counted = scorer.stats()
        assert (counted.unscorable, counted.unscorable_data, counted.unscorable_policy) == (2, own_doing, own_doing)


def test_a_lost_query_is_no_failed_trace(databases: tuple[str, str]) -> None:
    reasoning = (
        "<think>The question asks for the name of every dog, so name is needed from the dog table. It also restricts "
        "the age: age must be above three. Sorting by name descending then gives the wanted dogs, and name together "
        "with age is returned.</think>"
    )
    settings = config(memory=MemoryReward(keep_failed=True))
    with LosingPool(1) as pool:
        scorer = Scorer(settings, pool, MemoryComponent(settings.memory))
        pool.loses = lambda query: query.sql == "SELECT age FROM dog"
        group = [reasoning + "SELECT age FROM dog", reasoning.replace("every", "each") + "SELECT 7"]
        lost, wrong = scorer.score(task(databases, "SELECT name FROM dog"), group)
        assert (lost.status, wrong.correct) == ("unscorable", False)
        assert ["each" in trace.reasoning for trace in scorer.take_verified()] == [True]


def test_groups_of_one_batch_do_not_mix(pool: CountingPool, databases: tuple[str, str]) -> None:
    jobs = [
        ScoreJob(
            task=task(databases, gold), completions=[THINK + "SELECT name FROM dog", THINK + "SELECT age FROM dog"]
        )
        for gold in ("SELECT name FROM dog", "SELECT age FROM dog", "SELECT broken FROM dog")
    ]
    names, ages, broken = Scorer(config(), pool).score_batch(jobs)
    assert [r.correct for r in names] == [True, False]
    assert [r.correct for r in ages] == [False, True]
    assert {r.status for r in broken} == {"unscorable"}


def test_result_facts_for_voting(pool: CountingPool, databases: tuple[str, str]) -> None:
    group = [THINK + sql for sql in ("SELECT 0", "SELECT count(*) - 2 FROM dog", "SELECT 7", "SELECT broken")]
    zero, same, seven, failed = score(pool, databases, "SELECT name FROM dog", group, config())
    assert zero.result_digest == same.result_digest != seven.result_digest
    assert (zero.result_trivial, seven.result_trivial) == (True, False)
    assert failed.result_digest is None


def test_without_the_memory_there_is_no_file_to_save(pool: CountingPool, tmp_path: Path) -> None:
    assert not Scorer(config(), pool).save(str(tmp_path / "memory.sqlite"))
    assert list(tmp_path.iterdir()) == []


def test_penalties_are_deducted_and_reported(pool: CountingPool, databases: tuple[str, str]) -> None:
    settings = config(penalties=PenaltyConfig(length=0.5))
    asked = task(databases, "SELECT name FROM dog")
    (result,) = Scorer(settings, pool).score(asked, [THINK + "SELECT name FROM dog"], lengths=[0.4])
    assert result.total == pytest.approx(3.0 - 0.2)
    assert result.components["length"] == 0.4
    assert "repetition" not in result.components


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT julianday('now') - age FROM dog",
        "SELECT strftime('%f'), CURRENT_TIMESTAMP FROM dog",
        "SELECT avg(julianday('now') - julianday('2000-01-01') - age) FROM dog",
    ],
)
def test_a_gold_that_reads_the_clock_is_right_against_its_own_copy(
    pool: CountingPool, databases: tuple[str, str], gold: str
) -> None:
    scorer = Scorer(config(), pool)
    for spaces in (1, 2, 3):  # another text each time, so that the gold is executed again
        asked = task(databases, gold.replace(" FROM", " " * spaces + "FROM"))
        time.sleep(0.002)
        (result,) = scorer.score(asked, [THINK + gold])
        assert result.correct


def test_a_batch_of_large_results_is_not_held_at_once(databases: tuple[str, str]) -> None:
    """128 candidates of a megabyte for two tasks: a few results are held at a time."""
    settings = RewardConfig(memory=MemoryReward(enabled=False), execution=ExecutionReward(instances="all"))
    text = "printf('%.*c', 1000000, 'a')"
    jobs = [
        ScoreJob(
            task=task(databases, f"SELECT {text} || {number}"),
            completions=[f"{THINK}SELECT {text} || {number + other}" for other in range(64)],
        )
        for number in (0, 1)
    ]
    with ExecutorPool(2) as executors:
        scorer = Scorer(settings, executors)
        scorer.score(task(databases, "SELECT 1"), [THINK + "SELECT 1"])  # what starting costs
        tracemalloc.start()
        results = scorer.score_batch(jobs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [[result.correct for result in group].count(True) for group in results] == [1, 1]
    assert peak < 24 * 2**20


def test_a_database_without_a_schema_is_unscorable_for_its_own_task_alone(
    pool: CountingPool, databases: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 200)
    jobs = [
        ScoreJob(task=task((str(tmp_path / "text.sqlite"),), "SELECT 1"), completions=[THINK + "SELECT 1"]),
        ScoreJob(task=task(databases, "SELECT name FROM dog"), completions=[THINK + "SELECT name FROM dog"]),
    ]
    broken, whole = Scorer(config(), pool).score_batch(jobs)
    assert (broken[0].status, broken[0].total) == ("unscorable", None)
    assert whole[0].correct


def test_the_nearest_gold_counts(pool: CountingPool, databases: tuple[str, str]) -> None:
    near, far = "SELECT name FROM dog WHERE age > 4", "SELECT count(*) FROM dog"
    completion = THINK + "SELECT name FROM dog WHERE age < 4"
    for golds in ((near, far), (far, near)):
        (result,) = Scorer(config(), pool).score(task(databases, *golds), [completion])
        assert result.components["atomic"] == pytest.approx(0.5)


def test_one_question_twice_in_a_batch_is_executed_once(pool: CountingPool, databases: tuple[str, str]) -> None:
    job = ScoreJob(task=task(databases, "SELECT name FROM dog"), completions=[THINK + "SELECT age FROM dog"])
    scorer = Scorer(config(), pool)
    scorer.score_batch([ScoreJob(task=job.task, completions=[])])
    before = pool.executed
    first, second = scorer.score_batch([job, job])
    assert pool.executed == before + 1
    assert first == second
    assert first[0].components["execution"] == 1
