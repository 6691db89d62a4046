"""Scored groups become the learner's training sequences: one for each completion, with its advantage and mask."""

from collections.abc import Sequence

from rollout.carriers import Completion, ScoredGroup
from trainer.carriers import TrainingSequence


def training_sequences(
    groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]], *, mask_truncated: bool, version: int
) -> list[TrainingSequence]:
    """One sequence for each completion of `groups`; `group_index` is the group's place in the list.

    Masked: unscorable completions, empty ones, and truncated ones where `mask_truncated`. A truncated completion still
    counts in its group's baseline and among the sequences that a loss divides by, as in TRL. `version`: the policy
    version that is about to be trained.
    """
    sequences = []
    for index, (group, of_group) in enumerate(zip(groups, advantages, strict=True)):
        for completion, result, advantage in zip(group.group.completions, group.results, of_group, strict=True):
            usable = result.status == "scored" and result.total is not None and bool(completion.token_ids)
            truncated = mask_truncated and completion.finish_reason == "length"
            sequences.append(
                TrainingSequence(
                    group_index=index,
                    prompt_ids=group.group.prompt.token_ids,
                    completion_ids=completion.token_ids,
                    logprobs=completion.logprobs,
                    lags=_lags(completion, version),
                    advantage=advantage,
                    masked=truncated or not usable,
                    counted=usable,
                )
            )
    return sequences


def _lags(completion: Completion, version: int) -> tuple[tuple[int, int], ...]:
    return tuple((offset, version - sampled) for offset, sampled in completion.version_spans)
