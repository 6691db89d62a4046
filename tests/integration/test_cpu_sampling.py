"""Sampling by inversion draws what vLLM's own sampler draws; real tensors, no engine."""

import pytest
import torch
from vllm.v1.sample.sampler import Sampler

from rollout.cpu.sampling import gather_logprobs, sample

pytestmark = pytest.mark.integration

DRAWS = 200_000


def frequencies(logits: torch.Tensor, *, k: int | None = None, p: float | None = None) -> torch.Tensor:
    """Of each token in DRAWS draws from one row of logits."""
    rows = logits.expand(DRAWS, -1).clone()
    top_k = None if k is None else torch.full((DRAWS,), k)
    top_p = None if p is None else torch.full((DRAWS,), p)
    tokens, _ = sample(rows, {}, top_k, top_p)
    return torch.bincount(tokens, minlength=len(logits)) / DRAWS


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, -20.0, 2.0, 1.0, -torch.inf, 0.5, -3.0])
    expected = logits.softmax(-1)
    error = (frequencies(logits) - expected).abs()
    assert (error <= 5 * (expected * (1 - expected) / DRAWS).sqrt() + 1e-7).all()


@pytest.mark.parametrize(("limits", "kept"), [({"k": 2}, [2, 3]), ({"p": 0.6}, [2, 3]), ({"k": 1}, [2])])
def test_what_top_k_and_top_p_leave_out_never_comes(limits: dict, kept: list[int]) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, -20.0, 2.0, 1.0, -torch.inf, 0.5, -3.0])
    found = frequencies(logits, **limits)
    assert found.nonzero().flatten().tolist() == kept
    assert found[kept].tolist() == pytest.approx(logits[kept].softmax(-1).tolist(), abs=0.01)


def test_rare_tokens_of_a_large_vocabulary_keep_their_chances() -> None:
    torch.manual_seed(0)
    rows = torch.zeros(64, 151_936)
    tokens = torch.cat([sample(rows, {}, None, None)[0] for _ in range(20)])
    # 1,280 draws from a uniform distribution: in its halves, as often.
    assert abs((tokens < 151_936 // 2).float().mean().item() - 0.5) < 0.07
    assert len(tokens.unique()) > 1200


def test_logprobs_are_those_of_the_distribution_drawn_from() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 50)
    tokens, logprobs = sample(logits.clone(), {}, torch.full((5,), 10), None)
    expected = logits.masked_fill(logits < logits.topk(10).values[:, -1:], -torch.inf).log_softmax(-1)
    torch.testing.assert_close(logprobs, expected)
    for count in (0, 3):
        found, theirs = gather_logprobs(logprobs, count, tokens), Sampler.gather_logprobs(logprobs, count, tokens)
        assert torch.equal(found.logprob_token_ids, theirs.logprob_token_ids)
        assert torch.equal(found.logprobs, theirs.logprobs)
