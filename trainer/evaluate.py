"""Evaluation inside the job: greedy accuracy, mean@n, recall@n and the accuracy of voting, on held-out tasks.

A candidate is right when it equals a gold answer as in training (rewards/sql/denotation); the official scorers live in
benchmarks. A task of which the infrastructure lost a candidate, or of which no gold counts, leaves the accuracies and
is counted: neither is a score. That a candidate loses a process each time is the policy's doing: it is wrong, and
counted.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from conf.schema.reward import RewardConfig
from conf.schema.rollout import SamplingConfig
from conf.schema.stages import EvaluationConfig
from rewards.carriers import Cause, RewardResult
from rollout.carriers import Group, Prompt
from selection.candidate import Candidate
from selection.voters import VOTERS
from trainer.pipeline.producer import GroupSource, Scoring

CONCURRENT_TASKS = 64
"""Tasks whose groups are with the engines at a time; enough to fill them, few enough to score as they come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    greedy: bool
    right: int
    voted: bool
    causes: Counter[Cause]
    """Candidates without a reward, by whose doing it is."""
    tokens: int


def judging(config: RewardConfig, instances: Literal["primary", "all"] | None = None) -> RewardConfig:
    """The rewards' configuration for evaluation: right or wrong, nothing learned.

    Golds and constants are judged by one rule, whatever the reward does with them. Budgets stay as configured, and so
    do the instances where `instances` does not say which ones: name them where policies trained with `finer` and with
    `strict` are compared.
    """
    execution = {"order_dependent_gold": "score", "constant_answer": "score"}
    if instances is not None:
        execution["instances"] = instances
    return config.model_copy(
        update={
            "execution": config.execution.model_copy(update=execution),
            "empty_needs_empty_everywhere": False,
            "atomic": config.atomic.model_copy(update={"enabled": False}),
            "memory": config.memory.model_copy(update={"enabled": False}),
            "rank_correct_first": False,
        }
    )


def candidates_of(group: Group, results: Sequence[RewardResult]) -> list[Candidate]:
    """What a voter sees of a scored group."""
    return [
        Candidate(
            index=index,
            sql=result.sql or "",
            digest=result.result_digest,
            trivial=result.result_trivial,
            failed=result.result_digest is None,
            logprob=completion.logprob,
        )
        for index, (completion, result) in enumerate(zip(group.completions, results, strict=True))
    ]


async def evaluate(
    prompts: Sequence[Prompt],
    *,
    source: GroupSource,
    judge: Scoring,
    config: EvaluationConfig,
    sampling: SamplingConfig,
) -> dict[str, float]:
    """Metrics by registered key (eval/...). `sampling` gives the token budget; temperatures come from `config`."""
    slots = asyncio.Semaphore(CONCURRENT_TASKS)
    greedy_sampling = sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0, "top_k": 0})
    candidate_sampling = sampling.model_copy(update={"temperature": config.temperature})

    async def one(number: int, prompt: Prompt) -> _Outcome:
        async with slots:
            greedy, group = await asyncio.gather(
                source.generate(prompt, group_id=f"greedy-{number}", n=1, sampling=greedy_sampling),
                source.generate(prompt, group_id=f"eval-{number}", n=config.n, sampling=candidate_sampling),
            )
            results = await judge.score(prompt.task, [*greedy.answers, *group.answers])
        sampled = results[1:]
        chosen = VOTERS[config.selection](candidates_of(group, sampled))
        return _Outcome(
            greedy=results[0].correct,
            right=sum(result.correct for result in sampled),
            voted=sampled[chosen].correct,
            causes=Counter(result.cause or "infrastructure" for result in results if result.status == "unscorable"),
            tokens=sum(len(c.token_ids) for c in group.completions),
        )

    outcomes = await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts)))
    return _summarise(outcomes, config.n)


def nothing_scored(metrics: Mapping[str, float]) -> str | None:
    """Why an evaluation has no accuracies, which are then absent and not 0; None where it has."""
    if "eval/greedy_ex" in metrics:
        return None
    causes = {
        "the infrastructure lost {:.0f} candidates": metrics["eval/unscorable"],
        "{:.0f} candidates are of tasks without a gold that counts": metrics["eval/unscorable_data"],
    }
    why = " and ".join(text.format(count) for text, count in causes.items() if count)
    return (
        f"the evaluation of {metrics['eval/tasks']:.0f} held-out tasks could score none: {why or 'there are no tasks'}"
    )


def _summarise(outcomes: Sequence[_Outcome], n: int) -> dict[str, float]:
    scored = [outcome for outcome in outcomes if not (outcome.causes["infrastructure"] or outcome.causes["data"])]
    causes = sum((outcome.causes for outcome in outcomes), start=Counter[Cause]())
    counts = {
        "eval/tasks": float(len(outcomes)),
        "eval/scored": float(len(scored)),
        "eval/n": float(n),
        "eval/unscorable": float(causes["infrastructure"]),
        "eval/unscorable_data": float(causes["data"]),
        "eval/unscorable_policy": float(causes["policy"]),
    }
    if outcomes:
        counts["eval/tokens_mean"] = fmean(outcome.tokens for outcome in outcomes) / n
    if not scored:
        return counts
    return counts | {
        "eval/greedy_ex": fmean(outcome.greedy for outcome in scored),
        "eval/mean_at_n": fmean(outcome.right / n for outcome in scored),
        "eval/recall_at_n": fmean(outcome.right > 0 for outcome in scored),
        "eval/vote_ex": fmean(outcome.voted for outcome in scored),
    }
