"""Packing: everything lands once, within budget; shared-prefix rows equal padded rows in loss, gradients,
log-probabilities."""

import random
from dataclasses import replace

import pytest
import torch

from conf.schema.algo import (
    AlgoConfig,
    BnpoLoss,
    CispoLoss,
    DapoLoss,
    DrGrpoLoss,
    GrpoLoss,
    GspoLoss,
    SapoLoss,
)
from tests.tiny_qwen2 import tiny_qwen2
from trainer.batch.plan import SequenceTooLong, divide
from trainer.carriers import TrainingSequence
from trainer.learner.attention import prefix
from trainer.learner.logprobs import token_logprobs
from trainer.learner.packing.batch import PackedBatch
from trainer.learner.packing.padded import pack_padded
from trainer.learner.packing.shared_prefix import pack_shared_prefix
from trainer.learner.policy import Policy
from trainer.learner.uncertain import quantile
from trainer.loss.objective import Objective
from trainer.loss.tokens import LossTokens, LossTotals

VOCABULARY = 50


def make_sequences(groups: int, size: int, seed: int = 0, prompt: int = 12) -> list[TrainingSequence]:
    """The last completion of a group has its first one's tokens, with its own advantage and log-probabilities."""
    rng = random.Random(seed)
    sequences = []
    for group in range(groups):
        prompt_ids = tuple(rng.randrange(VOCABULARY) for _ in range(prompt + rng.randrange(6)))
        completions = [tuple(rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 9))) for _ in range(size - 1)]
        for completion_ids in (*completions, completions[0]):
            sequences.append(
                TrainingSequence(
                    group_index=group,
                    prompt_ids=prompt_ids,
                    completion_ids=completion_ids,
                    logprobs=tuple(-rng.random() - 3 for _ in completion_ids),
                    advantage=rng.uniform(-1, 1),
                )
            )
    return sequences


def tiny_policy(attention: str, dtype: torch.dtype = torch.float32) -> Policy:
    model = tiny_qwen2(vocab_size=VOCABULARY).to(dtype)
    model.set_attn_implementation(attention)
    return Policy(model, temperature=0.9, chunk=7)


def logprobs(policy: Policy, batches: list[PackedBatch]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in batches:
            for member, values in zip(batch.members, policy(batch)[0].split(batch.lengths), strict=True):
                found[member] = values.tolist()
    return found


def test_division_keeps_groups_whole_and_loses_nothing():
    sequences = make_sequences(7, 4)
    places = divide(sequences, updates=2, ranks=3)
    assert sorted(i for rank in places for update in rank for i in update) == list(range(28))
    owners = {}
    for rank, updates in enumerate(places):
        for update, members in enumerate(updates):
            for i in members:
                assert owners.setdefault(sequences[i].group_index, (rank, update)) == (rank, update)
    assert [owners[g][1] for g in range(7)] == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("pack", [pack_padded, pack_shared_prefix])
@pytest.mark.parametrize("budget", [40, 100, 10_000])
def test_every_sequence_is_packed_once_within_the_budget(pack, budget):
    sequences = make_sequences(5, 6)
    batches = pack(sequences, budget=budget)
    assert sorted(m for b in batches for m in b.members) == list(range(30))
    for batch in batches:
        assert batch.forwarded <= budget
        targets = batch.targets if batch.source is None else batch.targets[batch.source]
        assert targets.tolist() == [t for m in batch.members for t in sequences[m].completion_ids]
        place = batch.predict[0]
        assert batch.input_ids.flatten()[place] == sequences[batch.members[0]].prompt_ids[-1]


def test_shared_rows_forward_a_prompt_and_equal_completions_once():
    sequences = make_sequences(3, 8)
    (batch,) = pack_shared_prefix(sequences, budget=10_000)
    once = {(s.group_index, part) for s in sequences for part in (s.prompt_ids, s.completion_ids)}
    assert batch.forwarded == sum(len(tokens) for _, tokens in once)
    assert len(batch.targets) == batch.forwarded - sum(len(p) for p in {s.prompt_ids for s in sequences})
    assert len(batch.engine_logp) == sum(len(s.completion_ids) for s in sequences)


def test_equal_completions_of_different_groups_are_forwarded_each():
    first, *_ = make_sequences(1, 2)
    (batch,) = pack_shared_prefix([first, replace(first, group_index=1)], budget=1000)
    assert batch.forwarded == 2 * (len(first.prompt_ids) + len(first.completion_ids))


def test_ranks_get_the_same_share_of_what_is_forwarded():
    def group(index: int, completions: list[tuple[int, ...]]) -> list[TrainingSequence]:
        return [
            TrainingSequence(group_index=index, prompt_ids=(1,), completion_ids=c, logprobs=(0.0,) * 9, advantage=0.0)
            for c in completions
        ]

    sequences = [s for g in range(3) for s in group(g, [(7,) * 9] * 4)] + group(3, [(c,) * 9 for c in range(3)])
    places = divide(sequences, updates=1, ranks=2)
    owners = [{sequences[i].group_index for i in updates[0]} for updates in places]
    assert owners == [{3}, {0, 1, 2}]


def test_groups_of_similar_completions_share_a_pass():
    sequences = [
        TrainingSequence(group_index=g, prompt_ids=(1,) * 10, completion_ids=(c,) * n, logprobs=(0.0,) * n, advantage=0)
        for g, n in enumerate((20, 2, 20, 2))
        for c in range(2)
    ]
    batches = pack_shared_prefix(sequences, budget=100)
    assert [batch.layout.completion.shape for batch in batches] == [(2, 2, 20), (2, 2, 2)]


def test_a_long_prompt_is_forwarded_once_for_its_thirty_two_completions():
    prompt, rest = tuple(range(1500)), tuple(range(299))
    sequences = [
        TrainingSequence(
            group_index=0, prompt_ids=prompt, completion_ids=(c, *rest), logprobs=(-1.0,) * 300, advantage=0.0
        )
        for c in range(32)
    ]
    assert [batch.forwarded for batch in pack_shared_prefix(sequences, budget=16384)] == [11_100]
    assert sum(batch.forwarded for batch in pack_padded(sequences, budget=16384)) == 57_600


def test_a_sequence_over_the_budget_is_refused_with_the_setting_to_change():
    for pack in (pack_padded, pack_shared_prefix):
        with pytest.raises(SequenceTooLong, match="learner.micro_batch_tokens=10"):
            pack(make_sequences(1, 2), budget=10)


@pytest.mark.parametrize("merge_from", [1, 10_000], ids=["merged", "joint"])
@pytest.mark.parametrize("budget", [60, 400])
def test_shared_prefix_logprobs_equal_padded(monkeypatch, merge_from, budget):
    monkeypatch.setattr(prefix, "MERGE_FROM", merge_from)
    sequences = make_sequences(4, 5)
    expected = logprobs(tiny_policy("sdpa"), pack_padded(sequences, budget=100))
    found = logprobs(tiny_policy(prefix.NAME), pack_shared_prefix(sequences, budget=budget))
    for index in range(len(sequences)):
        assert found[index] == pytest.approx(expected[index], rel=1e-5)


LOSSES = [GrpoLoss(), DrGrpoLoss(), DapoLoss(), BnpoLoss(), GspoLoss(), CispoLoss(), SapoLoss()]


def loss_and_gradients(policy: Policy, batches: list[PackedBatch], algo: AlgoConfig) -> tuple[float, dict]:
    totals = LossTotals(sequences=20.0, tokens=90.0, step_tokens=90.0, completion_budget=8)
    objective = Objective(algo)
    value = 0.0
    for batch in batches:
        logp, entropy = policy(batch)
        tokens = LossTokens(
            logp=logp,
            old_logp=batch.engine_logp,
            engine_logp=batch.engine_logp,
            advantage=batch.advantage,
            sequence=batch.sequence,
            sequences=len(batch.members),
            entropy=entropy.detach(),
        )
        part = objective(tokens, torch.ones_like(batch.sequence, dtype=torch.bool), totals)
        part.loss.backward()
        value += part.loss.item()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters()}
    return value, gradients


@pytest.mark.parametrize("loss", LOSSES, ids=lambda v: v.type)
@pytest.mark.parametrize("merge_from", [1, 10_000], ids=["merged", "joint"])
def test_shared_prefix_loss_and_gradients_equal_padded(monkeypatch, loss, merge_from):
    monkeypatch.setattr(prefix, "MERGE_FROM", merge_from)
    algo = AlgoConfig(loss=loss)
    sequences = make_sequences(4, 5, seed=1)
    expected, expected_gradients = loss_and_gradients(tiny_policy("sdpa"), pack_padded(sequences, budget=80), algo)
    shared = pack_shared_prefix(sequences, budget=90)
    assert len(shared) > 1
    found, gradients = loss_and_gradients(tiny_policy(prefix.NAME), shared, algo)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    for name, gradient in expected_gradients.items():
        error = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-8)
        assert error < 1e-5, name


@pytest.mark.parametrize("pack", [pack_padded, pack_shared_prefix])
def test_every_token_carries_its_own_age(pack):
    sequences = [replace(s, completion_ids=(1, 2, 3, 4), logprobs=(-1.0,) * 4) for s in make_sequences(1, 2)]
    sequences[0] = replace(sequences[0], lags=((0, 3), (1, 2), (3, 0)))
    (batch,) = pack(sequences, budget=1000)
    ages = dict(zip(batch.members, batch.staleness.split(batch.lengths), strict=True))
    assert ages[0].tolist() == [3.0, 2.0, 2.0, 0.0]
    assert ages[1].tolist() == [0.0] * 4


def test_the_quantile_is_that_of_torch():
    values = torch.rand(101, generator=torch.Generator().manual_seed(0))
    for q in (0.0, 0.2, 0.333, 0.8, 1.0):
        assert quantile(values, q) == pytest.approx(torch.quantile(values.double(), q).item(), rel=1e-12)
    assert quantile(values[:1], 0.8) == pytest.approx(values[0].item())


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_chunked_logprobs_spare_what_is_frozen(frozen):
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(size, 6, generator=generator) for name, size in (("hidden", 11), ("weight", 9))}
    targets = torch.randint(0, 9, (11,), generator=generator)

    def gradient(*names: str) -> list[torch.Tensor]:
        leaves = {name: value.clone().requires_grad_(name in names) for name, value in tensors.items()}
        logp, _ = token_logprobs(leaves["hidden"], leaves["weight"], targets, temperature=1.0, chunk=4)
        return list(torch.autograd.grad(logp.sum(), [leaves[name] for name in names]))

    trained = "weight" if frozen == "hidden" else "hidden"
    both = dict(zip(("hidden", "weight"), gradient("hidden", "weight"), strict=True))
    torch.testing.assert_close(gradient(trained), [both[trained]])


def test_chunked_logprobs_and_entropy_have_exact_gradients():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 9, (11,), generator=generator)
    upstream = torch.randn(2, 11, generator=generator, dtype=torch.float64)

    log_p = torch.log_softmax(hidden @ weight.T / 0.7, dim=-1)
    plain = log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(-1)
    expected = torch.autograd.grad((upstream[0] * plain[0] + upstream[1] * plain[1]).sum(), (hidden, weight))
    for chunk in (1, 4, 100):
        logp, entropy = token_logprobs(hidden, weight, targets, temperature=0.7, chunk=chunk)
        torch.testing.assert_close(logp, plain[0])
        torch.testing.assert_close(entropy, plain[1])
        found = torch.autograd.grad((upstream[0] * logp + upstream[1] * entropy).sum(), (hidden, weight))
        torch.testing.assert_close(found, expected)
