"""Evaluation's figures where some candidates have no score, by whose doing that is."""

import asyncio
from collections.abc import Sequence

import pytest

from conf.schema.rollout import SamplingConfig
from conf.schema.stages import EvaluationConfig
from records.metrics import StepMetrics
from rewards.carriers import Cause, RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt
from trainer.evaluate import evaluate, nothing_scored

RIGHT = RewardResult(status="scored", total=1.0, correct=True, result_digest="a")
WRONG = RewardResult(status="scored", total=0.0, result_digest="b")


def unscorable(cause: Cause | None) -> RewardResult:
    return RewardResult(status="unscorable", total=None, cause=cause)


class Source:
    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        one = Completion(
            text="SELECT 1", token_ids=(1, 2), logprobs=(0.0, 0.0), version_spans=((0, 0),), finish_reason="stop"
        )
        return Group(id=group_id, prompt=prompt, completions=(one,) * n)


class Judge:
    """The greedy answer's result and those of two candidates, by task."""

    def __init__(self, results: dict[str, tuple[RewardResult, ...]]) -> None:
        self._results = results

    async def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        return self._results[task.id]


def figures(**results: tuple[RewardResult, ...]) -> dict[str, float]:
    tasks = [
        SqlTask(id=name, db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",)) for name in results
    ]
    found = asyncio.run(
        evaluate(
            [Prompt(task=task, text="?", token_ids=(1,)) for task in tasks],
            source=Source(),
            judge=Judge(results),
            config=EvaluationConfig(n=2),
            sampling=SamplingConfig(),
        )
    )
    StepMetrics(step=1, version=1).update(found)  # registered, all of them
    return found


@pytest.mark.parametrize(("cause", "key"), [("infrastructure", ""), (None, ""), ("data", "_data")])
def test_a_task_that_could_not_be_judged_leaves_the_accuracies(cause: Cause | None, key: str) -> None:
    found = figures(one=(RIGHT, RIGHT, WRONG), lost=(WRONG, unscorable(cause), WRONG))
    assert (found["eval/greedy_ex"], found["eval/mean_at_n"], found["eval/recall_at_n"]) == (1.0, 0.5, 1.0)
    counts = {name: found[f"eval/unscorable{name}"] for name in ("", "_data", "_policy")}
    assert counts == {"": 0.0, "_data": 0.0, "_policy": 0.0} | {key: 1.0}


def test_a_candidate_that_no_process_survives_is_wrong() -> None:
    found = figures(one=(RIGHT, RIGHT, WRONG), bomb=(unscorable("policy"), unscorable("policy"), RIGHT))
    assert (found["eval/greedy_ex"], found["eval/mean_at_n"], found["eval/recall_at_n"]) == (0.5, 0.5, 1.0)
    assert (found["eval/unscorable"], found["eval/unscorable_policy"]) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (
            (unscorable(None), RIGHT, RIGHT),
            "held-out tasks could score none: the infrastructure lost 2 candidates",
        ),
        ((RIGHT, unscorable("data"), RIGHT), "could score none: 2 candidates are of tasks without a gold that counts"),
    ],
)
def test_an_evaluation_that_could_score_nothing_says_so_and_has_no_accuracy(results, told: str) -> None:
    found = figures(one=results, two=results)
    assert not {"eval/greedy_ex", "eval/mean_at_n", "eval/recall_at_n", "eval/vote_ex"} & found.keys()
    said = nothing_scored(found)
    assert said is not None
    assert said.endswith(told)
    assert nothing_scored(figures(one=(RIGHT, RIGHT, RIGHT), two=results)) is None
    assert nothing_scored(figures(one=(unscorable("policy"),) * 3)) is None


def test_an_evaluation_of_no_task_says_so() -> None:
    assert nothing_scored(figures()) == "the evaluation of 0 held-out tasks could score none: there are no tasks"
