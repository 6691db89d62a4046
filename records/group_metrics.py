"""What a step's scored groups say about reward, length and prompts. Pure: no Ray, no configuration.

Every function takes the groups as they were generated, before any filter, and returns registered keys only. A key whose
value does not exist (no scored completion, no right completion) is left out. Unscorable completions are counted by
their cause and enter no reward statistic.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev

from records.metrics_keys import COMPONENTS, ERROR_KINDS, PASS_AT
from rewards.carriers import RewardResult
from rollout.carriers import ScoredGroup


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased probability that one of k completions drawn without replacement is right: 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1. Needs 1 <= k <= samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= {samples} samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _scored(group: ScoredGroup) -> list[RewardResult]:
    return [result for result in group.results if result.status == "scored"]


def _totals(results: Iterable[RewardResult]) -> list[float]:
    return [result.total for result in results if result.total is not None]


def _spread(prefix: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"{prefix}/mean": fmean(values), f"{prefix}/std": pstdev(values)}


def reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Rewards by component, accuracy, pass@k, zero-variance groups, unscorable completions and error kinds."""
    results = [result for group in groups for result in group.results]
    scored = [result for result in results if result.status == "scored"]
    metrics = _spread("reward/total", _totals(scored))
    for component in COMPONENTS:
        values = [r.components.get(component) for r in scored]
        metrics |= _spread(f"reward/{component}", [v for v in values if v is not None])
    if results:
        lost = sum(result.lost for result in results)
        metrics["reward/unscorable"] = float(lost)
        metrics["reward/unscorable_share"] = lost / len(results)
        metrics["reward/unscorable_data"] = float(sum(result.cause == "data" for result in results))
        metrics["reward/unscorable_policy"] = float(sum(result.cause == "policy" for result in results))
    if scored:
        metrics["reward/no_sql_share"] = fmean(r.sql is None for r in scored)
        for kind in ERROR_KINDS:
            metrics[f"reward/error/{kind}"] = fmean(r.error_kind == kind for r in scored)
    return metrics | _accuracy(groups) | _variance(groups)


def _accuracy(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    counts = [(len(scored), sum(r.correct for r in scored)) for scored in map(_scored, groups) if scored]
    if not counts:
        return {}
    metrics = {"reward/accuracy": fmean(right / n for n, right in counts)}
    for k in PASS_AT:
        estimates = [pass_at_k(n, right, k) for n, right in counts if n >= k]
        if estimates:
            metrics[f"reward/pass_at_{k}"] = fmean(estimates)
    return metrics


def _variance(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    scored_groups = [scored for scored in map(_scored, groups) if scored]
    if not scored_groups:
        return {}
    flat = [scored for scored in scored_groups if len(set(_totals(scored))) == 1]
    count = len(scored_groups)
    return {
        "reward/group_std": fmean(pstdev(_totals(scored)) for scored in scored_groups),
        "reward/zero_variance_share": len(flat) / count,
        "reward/all_right_share": sum(all(r.correct for r in scored) for scored in flat) / count,
        "reward/all_wrong_share": sum(not any(r.correct for r in scored) for scored in flat) / count,
    }


def length_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Prompt and completion lengths in tokens, and the share of completions that hit the token limit."""
    if not groups:
        return {}
    pairs = [pair for group in groups for pair in zip(group.group.completions, group.results, strict=True)]
    lengths = [len(completion.token_ids) for completion, _ in pairs]
    prompts = [len(group.group.prompt.token_ids) for group in groups]
    metrics = {
        "length/completion_mean": fmean(lengths),
        "length/completion_max": float(max(lengths)),
        "length/truncated_share": fmean(c.finish_reason == "length" for c, _ in pairs),
        "length/prompt_mean": fmean(prompts),
        "length/prompt_max": float(max(prompts)),
    }
    for name, wanted in (("right", True), ("wrong", False)):
        chosen = [len(c.token_ids) for c, r in pairs if r.status == "scored" and r.correct is wanted]
        if chosen:
            metrics[f"length/completion_{name}_mean"] = fmean(chosen)
    return metrics


def prompt_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """How many prompts lost columns to their token budget, and how many columns."""
    dropped = [group.group.prompt.dropped_columns for group in groups]
    return {
        "data/prompts_shortened": float(sum(count > 0 for count in dropped)),
        "data/columns_dropped": float(sum(dropped)),
    }


def staleness_metrics(groups: Sequence[ScoredGroup], *, version: int) -> dict[str, float]:
    """Lag of each group's oldest token behind `version`, the policy version that is about to be trained."""
    if not groups:
        return {}
    lags = [version - group.group.oldest_version for group in groups]
    return {"async/staleness_mean": fmean(lags), "async/staleness_max": float(max(lags))}
