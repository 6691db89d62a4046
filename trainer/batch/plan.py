"""Who forwards what: whole groups over optimizer updates and ranks, sequences over forward passes.

Guarantees: pure and deterministic; every sequence lands in exactly one place; groups stay together on one rank, and a
sequence is never divided.
"""

from collections.abc import Sequence

from conf.errors import QuorumError
from trainer.carriers import TrainingSequence


class SequenceTooLong(QuorumError):
    """One sequence alone exceeds the token budget of a forward pass."""


def by_group(sequences: Sequence[TrainingSequence]) -> list[list[int]]:
    """Indices into `sequences`, one list for each group, groups in rising `group_index`."""
    groups: dict[int, list[int]] = {}
    for index, sequence in enumerate(sequences):
        groups.setdefault(sequence.group_index, []).append(index)
    return [groups[key] for key in sorted(groups)]


def divide(sequences: Sequence[TrainingSequence], *, updates: int, ranks: int) -> list[list[list[int]]]:
    """[rank][update] -> indices. Updates take consecutive groups; within one, groups go to the rank with the
    fewest tokens.

    An update or a rank may stay empty when there are fewer groups than places.
    """
    groups = by_group(sequences)
    places: list[list[list[int]]] = [[[] for _ in range(updates)] for _ in range(ranks)]
    for update in range(updates):
        chosen = groups[update * len(groups) // updates : (update + 1) * len(groups) // updates]
        load = [0] * ranks
        for members in sorted(chosen, key=lambda m: (-shared_tokens(sequences, m), m[0])):
            rank = load.index(min(load))
            load[rank] += shared_tokens(sequences, members)
            places[rank][update] += members
    return places


def equal_completions(sequences: Sequence[TrainingSequence]) -> list[list[int]]:
    """Indices of equal completions of a group together, in the order of the first of each."""
    copies: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for index, sequence in enumerate(sequences):
        copies.setdefault((sequence.group_index, sequence.completion_ids), []).append(index)
    return list(copies.values())


def shared_tokens(sequences: Sequence[TrainingSequence], members: Sequence[int]) -> int:
    """Tokens of one group whose prompt, and each distinct completion, is forwarded once."""
    distinct = {sequences[i].completion_ids for i in members}
    return len(sequences[members[0]].prompt_ids) + sum(map(len, distinct))


def padded_rows(sequences: Sequence[TrainingSequence], *, budget: int) -> list[list[int]]:
    """Forward passes of one row a sequence, of similar lengths: rows x longest row <= budget tokens.

    Raises SequenceTooLong.
    """
    lengths = [len(s.prompt_ids) + len(s.completion_ids) for s in sequences]
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(sequences)), key=lambda i: (-lengths[i], i)):
        _check_budget(lengths[index], budget)
        if batches and (len(batches[-1]) + 1) * width <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            width = lengths[index]
    return batches


def shared_rows(sequences: Sequence[TrainingSequence], *, budget: int) -> list[list[list[int]]]:
    """Forward passes of several groups, those of similar score matrices together: [pass][group] -> indices, for
    completions that are distinct within their group.

    Attention on the CPU pads every group of a pass to its longest prompt and its longest completion. A group whose
    prompt and completions exceed the budget is cut into parts that repeat the prompt. Raises SequenceTooLong.
    """
    parts = [part for members in by_group(sequences) for part in _parts(sequences, members, budget)]
    passes: list[list[list[int]]] = []
    room = 0
    for part in sorted(parts, key=lambda p: (-_scores(sequences, p), p[0])):
        cost = shared_tokens(sequences, part)
        if not passes or cost > room:
            passes.append([])
            room = budget
        passes[-1].append(part)
        room -= cost
    return passes


def _scores(sequences: Sequence[TrainingSequence], part: Sequence[int]) -> int:
    """Attention scores of the longest completion over its prompt and itself."""
    longest = max(len(sequences[i].completion_ids) for i in part)
    return longest * (len(sequences[part[0]].prompt_ids) + longest)


def _parts(sequences: Sequence[TrainingSequence], members: Sequence[int], budget: int) -> list[list[int]]:
    prompt = len(sequences[members[0]].prompt_ids)
    parts: list[list[int]] = []
    room = 0
    for index in members:
        length = len(sequences[index].completion_ids)
        _check_budget(prompt + length, budget)
        if not parts or length > room:
            parts.append([])
            room = budget - prompt
        parts[-1].append(index)
        room -= length
    return parts


def _check_budget(length: int, budget: int) -> None:
    if length > budget:
        raise SequenceTooLong(
            f"a sequence of {length} tokens exceeds learner.micro_batch_tokens={budget}: raise it to at least {length}"
        )
