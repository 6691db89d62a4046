"""Every metric that a run may log: name, unit, reduction and meaning, defined once.

`docs/metrics.md` shows the same table; a test holds the two together. A key that is not here cannot be logged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from rewards.carriers import ErrorKind

Reduction = Literal["mean", "sum", "max", "min", "last"]
"""How several values of one key within a step become one; mean is weighted by each value's weight."""

COMPONENTS = ("format", "execution", "atomic", "memory")
ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
PASS_AT = (2, 4, 8, 16, 32)
PREPARATION = ("check", "warmup", "render", "start")
"""Stages of a process before its first step."""
STAGES = ("generate", "score", "train", "sync", "evaluate", "checkpoint")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricKey:
    """One loggable quantity."""

    name: str
    """Group and name, such as "reward/accuracy"."""
    unit: str
    reduction: Reduction
    meaning: str


Rows = Iterable[tuple[str, str, Reduction, str]]


def _keys(group: str, rows: Rows) -> list[MetricKey]:
    return [MetricKey(name=f"{group}/{n}", unit=u, reduction=r, meaning=m) for n, u, r, m in rows]


_POLICY = _keys(
    "policy",
    [
        ("loss", "nats", "mean", "Value of the whole objective that was minimised, KL term included."),
        ("entropy", "nats/token", "mean", "Mean entropy of the policy's next-token distribution over trained tokens."),
        ("kl_reference", "nats/token", "mean", "Estimated divergence from the reference policy (k1, k2 or k3 as set)."),
        ("kl_old", "nats/token", "mean", "Estimated divergence (k3) from the behaviour policy of the ratio."),
        (
            "active_share",
            "share",
            "mean",
            "Trained tokens in the policy gradient, not ruled out by weight, age or entropy.",
        ),
        ("ratio_mean", "ratio", "mean", "Mean importance ratio, new over old probability, over active tokens."),
        ("ratio_min", "ratio", "min", "Smallest importance ratio of an active token."),
        ("ratio_max", "ratio", "max", "Largest importance ratio of an active token."),
        ("clip_low_share", "share", "mean", "Tokens whose ratio was clipped at 1 - epsilon_low."),
        ("clip_high_share", "share", "mean", "Tokens whose ratio was clipped at 1 + epsilon_high."),
        ("grad_norm", "norm", "mean", "Global L2 norm of the gradient before clipping."),
        ("learning_rate", "rate", "last", "Learning rate used by the step's last update."),
        ("masked_share", "share", "mean", "Completion tokens left out of the loss."),
        ("advantage_abs_mean", "advantage", "mean", "Mean absolute advantage over trained tokens."),
        ("skipped_updates", "count", "sum", "Updates skipped because a gradient was not finite."),
    ],
)

_MISMATCH = _keys(
    "mismatch",
    [
        (
            "logp_abs_mean",
            "nats",
            "mean",
            "Mean absolute difference of learner and engine log-probabilities per token.",
        ),
        ("logp_abs_max", "nats", "max", "Largest absolute difference of learner and engine log-probabilities."),
        ("weight_mean", "ratio", "mean", "Mean importance weight exp(learner - engine) before it is capped."),
        ("weight_max", "ratio", "max", "Largest importance weight before it is capped."),
        ("truncated_share", "share", "mean", "Tokens (or sequences) whose importance weight was capped or masked."),
        (
            "effective_sample_share",
            "share",
            "mean",
            "Effective sample size of the importance weights over their number.",
        ),
        (
            "after_sync_abs_mean",
            "nats",
            "mean",
            "The check after a weight update: logp_abs_mean of the trained version's own tokens.",
        ),
        (
            "unchecked_steps",
            "steps",
            "last",
            "Steps since that check was made last, in runs ahead of the learner; 0: in this one.",
        ),
    ],
)

_REWARD = _keys(
    "reward",
    [
        ("total/mean", "reward", "mean", "Mean combined reward over scored completions."),
        ("total/std", "reward", "mean", "Standard deviation of the combined reward over scored completions."),
        ("group_std", "reward", "mean", "Mean over groups of the combined reward's standard deviation inside a group."),
        ("accuracy", "share", "mean", "Scored completions equal to a gold answer: mean over groups (pass@1)."),
        *[
            (
                f"pass_at_{k}",
                "share",
                "mean",
                f"Unbiased estimate that one of {k} completions is right; groups of >= {k}.",
            )
            for k in PASS_AT
        ],
        (
            "zero_variance_share",
            "share",
            "mean",
            "Groups whose combined rewards are all equal: no advantage tells them apart.",
        ),
        ("all_right_share", "share", "mean", "Groups of zero variance in which every completion is right."),
        ("all_wrong_share", "share", "mean", "Groups of zero variance in which every completion is wrong."),
        ("unscorable", "count", "sum", "Completions the infrastructure could not score; masked out of the loss."),
        (
            "unscorable_share",
            "share",
            "mean",
            "Those over all completions; the run ends above reward.max_unscorable_share.",
        ),
        ("unscorable_data", "count", "sum", "Completions without a reward because no gold counts; masked as well."),
        (
            "unscorable_policy",
            "count",
            "sum",
            "Completions that lose an SQL process or a reward actor each time while others are served; masked as well.",
        ),
        ("no_sql_share", "share", "mean", "Scored completions from which no query could be extracted."),
        ("cache_hit_share", "share", "last", "Queries, golds aside, whose verdict a reward actor knew already."),
        (
            "memory_traces",
            "count",
            "last",
            "Verified traces in the memory that the step's completions were scored with.",
        ),
    ],
)
_REWARD += [
    MetricKey(name=f"reward/{component}/{name}", unit="reward", reduction="mean", meaning=text)
    for component in COMPONENTS
    for name, text in (
        ("mean", f"Mean raw value of the {component} component where it was computed."),
        ("std", f"Standard deviation of the {component} component where it was computed."),
    )
]
_ERROR_MEANINGS = {
    "syntax": "do not parse",
    "not_a_query": "are no query",
    "forbidden": "ask for something a read-only query may not do",
    "timeout": "ran past the step or time budget",
    "too_large": "were too long, or returned more rows or bytes than the budget",
    "runtime": "name unknown tables or columns, or failed while running",
}
_REWARD += [
    MetricKey(
        name=f"reward/error/{kind}",
        unit="share",
        reduction="mean",
        meaning=f"Scored completions whose queries {_ERROR_MEANINGS[kind]}.",
    )
    for kind in ERROR_KINDS
]

_LENGTH = _keys(
    "length",
    [
        ("completion_mean", "tokens", "mean", "Mean completion length."),
        ("completion_max", "tokens", "max", "Longest completion."),
        ("completion_right_mean", "tokens", "mean", "Mean length of right completions."),
        ("completion_wrong_mean", "tokens", "mean", "Mean length of wrong completions."),
        ("truncated_share", "share", "mean", "Completions that hit the token limit."),
        ("prompt_mean", "tokens", "mean", "Mean prompt length, one prompt a group."),
        ("prompt_max", "tokens", "max", "Longest prompt."),
    ],
)

_ASYNC = _keys(
    "async",
    [
        (
            "staleness_mean",
            "versions",
            "mean",
            "Policy versions a group's oldest token lags the trained version; mean.",
        ),
        ("staleness_max", "versions", "max", "Largest such lag in the step."),
        ("token_staleness_mean", "versions", "mean", "Policy versions a trained token lags; mean."),
        ("token_staleness_max", "versions", "max", "Largest such lag of a trained token."),
        ("queue_s", "s", "mean", "Time a scored group waited for the learner."),
        ("in_flight", "groups", "last", "Groups admitted and not yet trained or dropped when the step began."),
        ("dropped_stale", "groups", "sum", "Groups dropped because they were older than max_staleness."),
        ("dropped_zero_variance", "groups", "sum", "Groups dropped because their rewards are all equal."),
        ("dropped_unscorable", "groups", "sum", "Groups dropped because too few completions could be scored."),
        ("continued", "count", "sum", "Completions in flight that went on after a weight update (in_flight=keep)."),
        ("aborted", "count", "sum", "Completions in flight that a weight update began anew (in_flight=abort)."),
        (
            "aborted_tokens_mean",
            "tokens",
            "mean",
            "Mean length that these had reached; above length/completion_mean where short completions are favoured.",
        ),
        ("resampled", "groups", "sum", "Groups drawn in place of others that teach nothing (algo.resample)."),
        ("worker_restarts", "count", "last", "Rollout workers replaced since the engines were last started."),
        ("reward_queue", "groups", "max", "Most groups that waited for a reward actor at once."),
        ("reward_queue_s", "s", "max", "Longest time that a group waited for a reward actor."),
        ("reward_restarts", "count", "last", "Reward actors replaced since the engines were last started."),
        ("executor_restarts", "count", "last", "SQL processes replaced, as told by each reward actor at work."),
    ],
)

_PERF = _keys(
    "perf",
    [
        ("step_s", "s", "sum", "Wall time of the step; evaluation and checkpoint are not in it."),
        ("elapsed_s", "s", "last", "Wall time since the run began; a resumed run goes on from its checkpoint's value."),
        ("generate_s", "s", "sum", "Time the driver waited for generation; what overlaps training is not in it."),
        ("score_s", "s", "sum", "Time the driver waited for scores once the last group was generated."),
        ("train_s", "s", "sum", "Time of log-probabilities, loss and optimizer."),
        (
            "sync_s",
            "s",
            "sum",
            "Wall time of the weight update: publishing by the learner, loading by the engines.",
        ),
        ("sync_pause_s", "s", "sum", "Weight update: the longest that an engine took to pause."),
        ("sync_transfer_s", "s", "sum", "Weight update: the longest that an engine took to load."),
        ("sync_resume_s", "s", "sum", "Weight update: the longest that an engine took to reset its cache and resume."),
        ("check_s", "s", "sum", "Time of checking the data; like the next three in the first row of a process."),
        ("warmup_s", "s", "sum", "Time of the warm-up, or of finding it in its cache."),
        ("render_s", "s", "sum", "Time of rendering the prompts."),
        ("start_s", "s", "sum", "Time of starting Ray, engines, reward actors and learner, restarts included."),
        ("evaluate_s", "s", "sum", "Time of evaluation."),
        ("checkpoint_s", "s", "sum", "Time of writing a checkpoint."),
        ("completions", "count", "sum", "Completions sampled for training."),
        ("completions_per_s", "1/s", "last", "Completions sampled for training over the step's wall time."),
        ("generated_tokens", "tokens", "sum", "Completion tokens sampled for training."),
        ("tokens_trained", "tokens", "sum", "Completion tokens that entered the loss."),
        ("tokens_forwarded", "tokens", "sum", "Tokens the learner forwarded: prompts and padding included."),
        (
            "packing_ratio",
            "share",
            "mean",
            "Trained over forwarded tokens; above 1 where equal completions are forwarded once.",
        ),
        ("rss_gib", "GiB", "max", "Memory of the driver and its descendants; pages that they share count once."),
        ("gpu_memory_gib", "GiB", "max", "Peak device memory of a learner rank."),
        ("nonfinite_metrics", "count", "sum", "Values of this row that were NaN or infinite; they are logged as null."),
    ],
)

_EVAL = _keys(
    "eval",
    [
        ("greedy_ex", "share", "last", "Greedy execution accuracy on the held-out tasks."),
        ("mean_at_n", "share", "last", "Mean accuracy of n sampled candidates."),
        ("recall_at_n", "share", "last", "Tasks for which at least one of n candidates is right."),
        ("vote_ex", "share", "last", "Accuracy of the candidate chosen by voting over n candidates."),
        ("tasks", "count", "last", "Held-out tasks evaluated."),
        ("scored", "count", "last", "Those of them that could be scored, over which the accuracies are means."),
        ("n", "count", "last", "Candidates sampled for each task."),
        (
            "unscorable",
            "count",
            "last",
            "Candidates the infrastructure could not score; their tasks leave the accuracies.",
        ),
        ("unscorable_data", "count", "last", "Candidates of tasks without a gold that counts, which leave them too."),
        (
            "unscorable_policy",
            "count",
            "last",
            "Candidates that lose an SQL process or a reward actor each time; they count as wrong.",
        ),
        ("tokens_mean", "tokens", "last", "Mean length of the sampled candidates."),
    ],
)

_DATA = _keys(
    "data",
    [
        ("position", "count", "last", "Positions of the task stream consumed since the run began."),
        ("epoch", "epochs", "last", "Passes over the training tasks, as a fraction."),
        ("prompts_shortened", "count", "sum", "Prompts that lost columns to meet their token budget."),
        ("columns_dropped", "count", "sum", "Columns left out of those prompts."),
    ],
)

GROUPS: Mapping[str, tuple[MetricKey, ...]] = MappingProxyType(
    {
        "policy": tuple(_POLICY),
        "mismatch": tuple(_MISMATCH),
        "reward": tuple(_REWARD),
        "length": tuple(_LENGTH),
        "async": tuple(_ASYNC),
        "perf": tuple(_PERF),
        "eval": tuple(_EVAL),
        "data": tuple(_DATA),
    }
)
KEYS: Mapping[str, MetricKey] = MappingProxyType({key.name: key for group in GROUPS.values() for key in group})
