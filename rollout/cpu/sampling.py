"""Sampling on a CPU by one random number a row, where vLLM draws one for each token of the vocabulary.

A row's cumulative probabilities are searched for a uniform number (inverse transform sampling, Devroye 1986, section
III.2). They are summed in double precision, so that rare tokens of a large vocabulary keep their chances; a token that
top-k or top-p left out has an empty interval. Greedy rows are vLLM's, as are logits processors and temperatures.
"""

from collections.abc import Mapping
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.sample.sampler import Sampler

ELEMENTS = 2**22
"""Probabilities that are summed at a time: 32 MiB in double precision."""


def install(worker: Any) -> None:
    """Give a worker's sampler the two functions below; an argument of vLLM's `collective_rpc`."""
    sampler = worker.model_runner.sampler
    sampler.topk_topp_sampler.forward = sample
    sampler.gather_logprobs = gather_logprobs


def sample(
    logits: torch.Tensor, generators: Mapping[int, torch.Generator], k: torch.Tensor | None, p: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token of each row [N] int64, and the log-probabilities that it was drawn by, [N, V] float32."""
    assert not generators, "requests have no seeds of their own (rollout/vllm_backend.py)"
    logprobs = apply_top_k_top_p(logits, k, p).log_softmax(dim=-1, dtype=torch.float32)
    parts = logprobs.split(max(1, ELEMENTS // logprobs.shape[1]))
    return torch.cat([_draw(part) for part in parts]), logprobs


def _draw(logprobs: torch.Tensor) -> torch.Tensor:
    cumulative = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
    point = torch.rand(len(logprobs), 1, dtype=torch.float64) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, point, right=True).squeeze(1)
    return tokens.clamp_(max=logprobs.shape[1] - 1)


def gather_logprobs(logprobs: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor) -> LogprobsTensors:
    """As vLLM's, but where only the sampled token's log-probability is asked for, its rank, which nobody reads, is not
    counted."""
    if num_logprobs:
        return Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)
    tokens = token_ids.unsqueeze(-1)
    return LogprobsTensors(tokens.to(torch.int32), logprobs.gather(-1, tokens), torch.zeros_like(token_ids))
