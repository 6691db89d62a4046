"""Reductions, the key registry and its documentation, and the metrics of scored groups, on known numbers."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from records.group_metrics import length_metrics, pass_at_k, prompt_metrics, reward_metrics, staleness_metrics
from records.metrics import Row, Sinks, StepMetrics, UnknownMetric
from records.metrics_keys import GROUPS, KEYS
from rewards.carriers import Cause, ErrorKind, RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt, ScoredGroup

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def scored(
    total: float, *, correct: bool = False, kind: ErrorKind | None = None, sql: str | None = "SELECT 1"
) -> RewardResult:
    components = {"format": 1.0, "execution": float(correct), "atomic": None}
    return RewardResult(status="scored", total=total, components=components, correct=correct, error_kind=kind, sql=sql)


UNSCORABLE = RewardResult(status="unscorable", total=None)


def group(results: Sequence[RewardResult], *, lengths: Sequence[int] | None = None, version: int = 0) -> ScoredGroup:
    lengths = lengths or [2] * len(results)
    completions = tuple(
        Completion(
            text="x",
            token_ids=(7,) * n,
            logprobs=(-0.5,) * n,
            version_spans=((0, version),),
            finish_reason="length" if n >= 10 else "stop",
        )
        for n in lengths
    )
    task = SqlTask(id="t", db_id="d", question="q", gold_sqls=("SELECT 1",), databases=("d.sqlite",))
    prompt = Prompt(task=task, text="p", token_ids=(1, 2, 3), dropped_columns=len(results) - 1)
    return ScoredGroup(group=Group(id="0-0", prompt=prompt, completions=completions), results=tuple(results))


def test_each_reduction_gives_its_known_number() -> None:
    metrics = StepMetrics(step=3, version=2)
    metrics.add("policy/entropy", 1.0, weight=3.0)
    metrics.add("policy/entropy", 5.0, weight=1.0)
    for value in (2.0, 9.0, 4.0):
        metrics.update({"perf/completions": value, "policy/ratio_max": value, "policy/ratio_min": value})
        metrics.add("policy/learning_rate", value)
    assert metrics.row() == {
        "step": 3,
        "version": 2,
        "policy/entropy": 2.0,
        "policy/ratio_min": 2.0,
        "policy/ratio_max": 9.0,
        "policy/learning_rate": 4.0,
        "perf/completions": 15.0,
    }


def test_an_unregistered_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownMetric, match="did you mean policy/entropy"):
        StepMetrics(step=1, version=0).add("policy/entropie", 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null_and_is_counted(bad: float) -> None:
    metrics = StepMetrics(step=1, version=0)
    metrics.update({"policy/loss": 1.0, "policy/ratio_max": 2.0})
    metrics.update({"policy/loss": bad, "policy/ratio_max": bad})
    row = metrics.row()
    assert row["policy/loss"] is None
    assert row["policy/ratio_max"] is None
    assert row["perf/nonfinite_metrics"] == 2
    json.dumps(row, allow_nan=False)


def test_pass_at_k_matches_counting_all_draws() -> None:
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 4, 2) == 1.0
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)


def test_reward_metrics_of_a_known_batch() -> None:
    mixed = group([scored(2.0, correct=True), scored(1.0), scored(1.0, kind="syntax"), UNSCORABLE])
    wrong = group([scored(1.0), scored(1.0, sql=None)])
    right = group([scored(2.0, correct=True)] * 2)
    metrics = reward_metrics([mixed, wrong, right])
    assert metrics["reward/total/mean"] == pytest.approx(10 / 7)
    assert metrics["reward/total/std"] == pytest.approx(math.sqrt(16 / 7 - (10 / 7) ** 2))
    assert metrics["reward/execution/mean"] == pytest.approx(3 / 7)
    assert metrics["reward/format/std"] == 0.0
    assert "reward/atomic/mean" not in metrics
    assert metrics["reward/accuracy"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert metrics["reward/pass_at_2"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert "reward/pass_at_4" not in metrics
    assert metrics["reward/zero_variance_share"] == pytest.approx(2 / 3)
    assert metrics["reward/all_right_share"] == pytest.approx(1 / 3)
    assert metrics["reward/all_wrong_share"] == pytest.approx(1 / 3)
    assert metrics["reward/group_std"] == pytest.approx(math.sqrt(2) / 9)
    assert metrics["reward/unscorable"] == 1
    assert metrics["reward/unscorable_share"] == pytest.approx(1 / 8)
    assert metrics["reward/error/syntax"] == pytest.approx(1 / 7)
    assert metrics["reward/no_sql_share"] == pytest.approx(1 / 7)


def test_a_batch_that_cannot_be_scored_reports_that_and_no_reward() -> None:
    nobodys = {"reward/unscorable_data": 0.0, "reward/unscorable_policy": 0.0}
    lost = {"reward/unscorable": 2.0, "reward/unscorable_share": 1.0}
    assert reward_metrics([group([UNSCORABLE] * 2)]) == lost | nobodys
    assert reward_metrics([]) == {}


def test_what_data_and_policy_cause_is_counted_apart_from_the_infrastructure() -> None:
    causes: tuple[Cause, ...] = ("data", "policy", "policy", "infrastructure")
    results = [RewardResult(status="unscorable", total=None, cause=cause) for cause in causes]
    assert reward_metrics([group(results)]) == {
        "reward/unscorable": 1.0,
        "reward/unscorable_share": 0.25,
        "reward/unscorable_data": 1.0,
        "reward/unscorable_policy": 2.0,
    }


def test_lengths_prompts_and_staleness() -> None:
    first = group([scored(1.0, correct=True), scored(0.0)], lengths=[4, 10], version=5)
    second = group([scored(0.0), UNSCORABLE], lengths=[6, 2], version=7)
    lengths = length_metrics([first, second])
    assert lengths["length/completion_mean"] == 5.5
    assert lengths["length/completion_max"] == 10
    assert lengths["length/truncated_share"] == 0.25
    assert lengths["length/completion_right_mean"] == 4
    assert lengths["length/completion_wrong_mean"] == 8
    assert lengths["length/prompt_max"] == 3
    assert prompt_metrics([first, second]) == {"data/prompts_shortened": 2.0, "data/columns_dropped": 2.0}
    assert staleness_metrics([first, second], version=7) == {"async/staleness_mean": 1.0, "async/staleness_max": 2.0}


def test_every_group_metric_is_registered() -> None:
    groups = [group([scored(1.0, correct=True), scored(0.5, kind="timeout")] * 16)]
    metrics = StepMetrics(step=1, version=1)
    for values in (reward_metrics(groups), length_metrics(groups), prompt_metrics(groups)):
        metrics.update(values)
    metrics.update(staleness_metrics(groups, version=1))
    assert metrics.row()["reward/pass_at_32"] == 1.0


def test_the_documentation_lists_exactly_the_registered_keys() -> None:
    listed = re.findall(r"^\| `([a-z]+/[^`]+)` \|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(KEYS)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_each_documented_row_says_what_the_registry_says(name: str) -> None:
    key = KEYS[name]
    assert f"| `{name}` | {key.unit} | {key.reduction} | {key.meaning} |" in DOCS.read_text(encoding="utf-8")


def test_keys_are_unique() -> None:
    assert len(KEYS) == sum(map(len, GROUPS.values()))


class Recorder:
    def __init__(self, *, broken: bool = False) -> None:
        self.rows: list[Row] = []
        self.closed = False
        self._broken = broken

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def close(self) -> None:
        self.closed = True
        if self._broken:
            raise OSError("disk full")


def test_every_sink_gets_the_row_and_is_closed_even_after_a_failure() -> None:
    first, second = Recorder(), Recorder(broken=True)
    sinks = Sinks([first, second])
    sinks.write({"step": 1, "version": 1})
    assert first.rows == second.rows == [{"step": 1, "version": 1}]
    with pytest.raises(OSError, match="disk full"):
        sinks.close()
    assert first.closed
