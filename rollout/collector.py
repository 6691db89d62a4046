"""Gathers what an engine samples, step by step, into finished groups.

Takes the place of vLLM's own output processor, whose work for text streaming (incremental detokenization, a
dictionary for each token's log-probability) is a tenth of the cost of generation for a small policy. It also knows
how many tokens each completion had when weights changed, so the policy version of every token is exact for updates in
mid-generation.

It imports nothing of vLLM: it sees engine outputs through the attributes named in CoreOutput.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rollout.errors import GenerationFailed, LogprobsDamaged


class CoreOutput(Protocol):
    """One sequence's part of an engine step (vLLM's EngineCoreOutput)."""

    request_id: str
    new_token_ids: list[int]
    new_logprobs: Any
    """None, or an object whose `logprobs` is an array [new tokens, candidates] with the sampled token first."""
    finish_reason: Any
    """None while running; its text is "stop", "length", or a failure."""


class Processed(NamedTuple):
    """What vLLM's engine expects back from a step; groups are taken from the collector instead."""

    request_outputs: tuple[Any, ...] = ()
    reqs_to_abort: tuple[str, ...] = ()


@dataclass(slots=True)
class Sampled:
    """One completion in the making."""

    group: str
    index: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    """One array for each step."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    finish_reason: str = ""

    def token_logprobs(self) -> tuple[float, ...]:
        """Of each sampled token, nats. Raises LogprobsDamaged: a sampler that reads NaN takes some token all the
        same."""
        if not self.logprobs:
            return ()
        values = np.concatenate(self.logprobs)[:, 0]
        finite = np.isfinite(values)
        if not finite.all():
            place = int(finite.argmin())
            raise LogprobsDamaged(
                f"an engine sampled token {place + 1} of a completion of group {self.group} with the log-probability "
                f"{values[place]}: the policy's weights are damaged, or its dtype is too small for it"
            )
        return tuple(values.tolist())


@dataclass(slots=True)
class _Open:
    waiting: int
    sequences: list[Sampled | None]


class Collector:
    """Drop-in for the output processor of vLLM's LLMEngine."""

    def __init__(self, version: int = 0) -> None:
        self.version = version
        """Policy version of the tokens that the next step brings."""
        self._sequences: dict[str, Sampled] = {}
        self._groups: dict[str, _Open] = {}
        self._finished: list[tuple[str, list[Sampled]]] = []

    @property
    def running(self) -> int:
        """Completions not finished yet."""
        return len(self._sequences)

    @property
    def running_tokens(self) -> int:
        """Tokens that those have."""
        return sum(len(sequence.token_ids) for sequence in self._sequences.values())

    @property
    def groups(self) -> int:
        """Groups not finished yet."""
        return len(self._groups)

    def take(self) -> list[tuple[str, list[Sampled]]]:
        """Groups finished since the last call, as (id, completions by index)."""
        finished, self._finished = self._finished, []
        return finished

    # The methods below are called by vLLM's LLMEngine.

    def add_request(self, request: Any, prompt: str | None, parent_req: Any = None, request_index: int = 0) -> None:
        group = request.external_req_id
        n = parent_req.n if parent_req is not None else 1
        self._groups.setdefault(group, _Open(waiting=n, sequences=[None] * n))
        self._sequences[request.request_id] = Sampled(group=group, index=request_index)

    def has_unfinished_requests(self) -> bool:
        return bool(self._sequences)

    def get_num_unfinished_requests(self) -> int:
        return len(self._sequences)

    def update_scheduler_stats(self, scheduler_stats: Any) -> None:
        """Statistics are off."""

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        """Forget whole groups and return the engine's names of their running completions."""
        dropped = set(request_ids)
        names = [name for name, sequence in self._sequences.items() if sequence.group in dropped]
        for name in names:
            del self._sequences[name]
        for group in dropped:
            self._groups.pop(group, None)
        return names

    def process_outputs(self, engine_core_outputs: Sequence[CoreOutput], *_: Any, **__: Any) -> Processed:
        """Take in one step's tokens.

        Raises:
            GenerationFailed: a completion ended for another reason than an end token or its budget.
        """
        sequences, version = self._sequences, self.version
        for output in engine_core_outputs:
            sequence = sequences.get(output.request_id)
            if sequence is None:
                continue
            tokens = output.new_token_ids
            if tokens:
                if not sequence.spans or sequence.spans[-1][1] != version:
                    sequence.spans.append((len(sequence.token_ids), version))
                sequence.token_ids.extend(tokens)
                if output.new_logprobs is not None:
                    sequence.logprobs.append(output.new_logprobs.logprobs)
            if output.finish_reason is not None:
                self._finish(output.request_id, sequence, str(output.finish_reason))
        return Processed()

    def _finish(self, name: str, sequence: Sampled, reason: str) -> None:
        if reason not in ("stop", "length"):
            raise GenerationFailed(f"the engine ended a completion of group {sequence.group} with {reason!r}")
        sequence.finish_reason = reason
        del self._sequences[name]
        group = self._groups[sequence.group]
        group.sequences[sequence.index] = sequence
        group.waiting -= 1
        if group.waiting == 0:
            del self._groups[sequence.group]
            self._finished.append((sequence.group, [s for s in group.sequences if s is not None]))
