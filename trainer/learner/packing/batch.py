"""What one forward pass reads: token tensors, where predictions are made, and the loss's per-token inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from trainer.carriers import TrainingSequence


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixLayout:
    """Where the tokens of a shared-prefix row belong. B groups, P longest prompt, G most completions of a group, C
    longest completion, N tokens of the row. The padded blocks exist for attention only.
    """

    lengths: tuple[tuple[int, ...], ...]
    """[B] tokens of (prompt, first completion, second, ...), in the order of the row."""
    prompt: torch.Tensor
    """[B, P] int64, row position of each prompt token."""
    prompt_lengths: torch.Tensor
    """[B] int64."""
    completion: torch.Tensor
    """[B, G, C] int64, row position of each completion token."""
    restore: torch.Tensor
    """[N] int64, place of each row token in the concatenation of the flattened prompt and completion blocks."""
    padding: torch.Tensor
    """int64, places of that concatenation that hold no token."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with a completion."""
        return max(prompt + max(completions) for prompt, *completions in self.lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """R rows of L positions with T completion tokens of S sequences, U of them forwarded: equal completions of a group
    share theirs."""

    input_ids: torch.Tensor
    """[R, L] int64."""
    position_ids: torch.Tensor
    """[R, L] int64; a completion continues its prompt's positions."""
    predict: torch.Tensor
    """[U] int64 into the R*L flattened positions: where each forwarded completion token is predicted."""
    targets: torch.Tensor
    """[U] int64, the forwarded completion tokens."""
    source: torch.Tensor | None = None
    """[T] int64 into U: the forwarded token that stands for each completion token; None: each for itself."""
    engine_logp: torch.Tensor
    """[T] float32."""
    advantage: torch.Tensor
    """[T] float32."""
    staleness: torch.Tensor
    """[T] float32, policy versions between the one that sampled the token and the one that is trained."""
    sequence: torch.Tensor
    """[T] int64 in 0..S-1."""
    members: tuple[int, ...]
    """[S] index of each sequence in the list that was packed."""
    lengths: tuple[int, ...]
    """[S] completion tokens of each."""
    layout: PrefixLayout | None = None
    """None: ordinary causal rows, padded on the right."""

    def to(self, device: str) -> "PackedBatch":
        """The same batch on another device ("cpu" or "cuda"); the layout's tensors, which only a CPU reads, stay."""
        tensors = {
            field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})

    @property
    def forwarded(self) -> int:
        """Tokens that the model's layers see, padding included."""
        return self.input_ids.numel()


def completion_tensors(sequences: Sequence[TrainingSequence], members: Sequence[int]) -> dict[str, torch.Tensor]:
    """engine_logp, advantage, staleness, sequence: of the completions of `members`, concatenated; each [T]."""
    chosen = [sequences[i] for i in members]
    lengths = torch.tensor([len(s.completion_ids) for s in chosen])
    return {
        "engine_logp": torch.tensor([p for s in chosen for p in s.logprobs], dtype=torch.float32),
        "advantage": torch.tensor([s.advantage for s in chosen], dtype=torch.float32).repeat_interleave(lengths),
        "staleness": torch.tensor([lag for s in chosen for lag in _lags(s)], dtype=torch.float32),
        "sequence": torch.arange(len(chosen)).repeat_interleave(lengths),
    }


def completion_tokens(sequences: Sequence[TrainingSequence], members: Sequence[int]) -> torch.Tensor:
    """The completions of `members`, concatenated, int64."""
    return torch.tensor([t for i in members for t in sequences[i].completion_ids], dtype=torch.int64)


def _lags(sequence: TrainingSequence) -> list[int]:
    """Of each completion token."""
    spans = sequence.lags or ((0, 0),)
    ends = [*(start for start, _ in spans[1:]), len(sequence.completion_ids)]
    return [lag for (start, lag), end in zip(spans, ends, strict=True) for _ in range(start, end)]
