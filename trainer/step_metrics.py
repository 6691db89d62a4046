"""What one step becomes in the records: its outcome and the reward server's state as metrics by registered key, and the
ledger row."""

from collections import Counter

from records.group_metrics import length_metrics, prompt_metrics, reward_metrics, staleness_metrics
from records.run_folder import LedgerRow
from rewards.client import QueuePeak, RewardStats
from trainer.batch.filter import UNSCORABLE
from trainer.pipeline.loop import StepOutcome


def outcome_metrics(outcome: StepOutcome) -> dict[str, float]:
    """Rewards and lengths of every generated group, the learner's and the weight update's own metrics, and drops."""
    groups = outcome.groups
    reasons = Counter(entry.reason for entry in outcome.filtered.dropped)
    completions = [completion for group in groups for completion in group.group.completions]
    unscorable = sum(reasons.pop(reason, 0) for reason in UNSCORABLE)
    return {
        **reward_metrics(groups),
        **length_metrics(groups),
        **prompt_metrics(groups),
        **staleness_metrics(groups, version=outcome.trained_version),
        **outcome.learner,
        **outcome.sync,
        "perf/completions": float(len(completions)),
        "perf/generated_tokens": float(sum(len(completion.token_ids) for completion in completions)),
        "async/queue_s": outcome.queue_s,
        "async/in_flight": float(outcome.in_flight),
        "async/resampled": float(outcome.resampled),
        "async/dropped_stale": float(len(outcome.stale)),
        "async/dropped_zero_variance": float(sum(reasons.values())),
        "async/dropped_unscorable": float(unscorable),
    }


def reward_server_metrics(stats: RewardStats, peak: QueuePeak) -> dict[str, float]:
    """How the reward server is doing; `peak` is of the step."""
    asked = stats.cache_hits + stats.cache_misses
    return {
        "async/reward_queue": float(peak.groups),
        "async/reward_queue_s": peak.age_s,
        "async/reward_restarts": float(stats.actor_restarts),
        "async/executor_restarts": float(stats.executor_restarts),
        "reward/memory_traces": float(stats.memory_traces),
        **({"reward/cache_hit_share": stats.cache_hits / asked} if asked else {}),
    }


NOT_FINITE = "gradient not finite"
"""The group's update was skipped; other groups of the step may have been in another update."""
MASKED = "masked"
"""Every completion of the group was left out of the loss."""


def ledger_row(outcome: StepOutcome) -> LedgerRow:
    """The proof of what was trained on, what was dropped and why."""
    dropped = [(d.group.group.id, d.group.group.prompt.task.id, str(d.reason)) for d in outcome.filtered.dropped]
    in_loss = {sequence.group_index for sequence in outcome.sequences if not sequence.masked}
    kept = []
    for place, entry in enumerate(outcome.filtered.kept):
        group = entry.group
        if place in in_loss and place not in outcome.skipped.groups:
            kept.append(group)
        else:
            reason = NOT_FINITE if place in in_loss else MASKED
            dropped.append((group.id, group.prompt.task.id, reason))
    stale = [(entry.group.id, entry.group.prompt.task.id, "stale") for entry in outcome.stale]
    return LedgerRow(
        step=outcome.step,
        version=outcome.version,
        trained=tuple((group.id, group.prompt.task.id, group.oldest_version) for group in kept),
        dropped=tuple(dropped + stale),
    )
