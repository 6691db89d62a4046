"""Scored groups become the learner's training sequences: one for each completion, with its advantage and mask."""

from collections.abc import Sequence

from conf.schema.algo import AlgoConfig
from trainer.batch.advantage import group_advantages
from trainer.carriers import ScoredGroup, TrainingSequence


def training_sequences(groups: Sequence[ScoredGroup], algo: AlgoConfig) -> list[TrainingSequence]:
    """One sequence for each completion of `groups`; `group_index` is the group's place in the list.

    Masked: unscorable completions, empty ones, and truncated ones where `algo.mask_truncated`. A truncated
    completion still counts in its group's baseline, as in TRL.
    """
    rewards = [[r.total if r.status == "scored" else None for r in group.results] for group in groups]
    sequences = []
    for index, (group, advantages) in enumerate(zip(groups, group_advantages(rewards, algo.advantage), strict=True)):
        for completion, reward, advantage in zip(group.group.completions, rewards[index], advantages, strict=True):
            truncated = algo.mask_truncated and completion.finish_reason == "length"
            sequences.append(
                TrainingSequence(
                    group_index=index,
                    prompt_ids=group.group.prompt.token_ids,
                    completion_ids=completion.token_ids,
                    logprobs=completion.logprobs,
                    advantage=advantage,
                    masked=reward is None or truncated or not completion.token_ids,
                )
            )
    return sequences
