"""The objective agrees with TRL's own `GRPOTrainer._compute_loss`, run on the same tensors: losses and gradients.

TRL's trainer is made without its constructor (which wants a data set and a processor); the method under comparison,
and the one that makes the importance weights, is TRL's code.
"""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from trl import GRPOTrainer

from conf.schema.algo import (
    AlgoConfig,
    BnpoLoss,
    CispoLoss,
    DapoLoss,
    DrGrpoLoss,
    EntropyConfig,
    GrpoLoss,
    GspoLoss,
    ImportanceConfig,
    KlConfig,
    SapoLoss,
)
from trainer.learner.uncertain import quantile
from trainer.loss.objective import Objective
from trainer.loss.tokens import LossTokens, LossTotals

pytestmark = pytest.mark.integration

LENGTHS = [5, 2, 7, 1]
WIDTH = 7
MAX_COMPLETION = 16
DELTA = 1.4

# our variant, TRL's loss_type, its importance level, epsilon_low, epsilon_high, delta
CASES = [
    (GrpoLoss(), "grpo", "token", 0.2, 0.2, None),
    (GrpoLoss(epsilon_high=0.28, delta=DELTA), "grpo", "token", 0.2, 0.28, DELTA),
    (DrGrpoLoss(), "dr_grpo", "token", 0.2, 0.2, None),
    (DapoLoss(epsilon_high=0.28), "dapo", "token", 0.2, 0.28, None),
    (BnpoLoss(), "bnpo", "token", 0.2, 0.2, None),
    (GspoLoss(epsilon_low=0.05, epsilon_high=0.06), "grpo", "sequence", 0.05, 0.06, None),
    (CispoLoss(ratio_cap=1.2), "cispo", "token", 0.2, 1.2, None),
    (SapoLoss(), "sapo", "token", 0.2, 0.2, None),
]


def trl_trainer(logps: torch.Tensor, entropies: torch.Tensor, case: tuple[Any, ...], algo: AlgoConfig) -> GRPOTrainer:
    _, loss_type, level, low, high, delta = case
    beta = algo.kl.coefficient
    trainer = object.__new__(GRPOTrainer)
    trainer.accelerator = Accelerator(cpu=True)
    trainer.model = torch.nn.Linear(1, 1).train()
    trainer.args = SimpleNamespace(
        delta=delta,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        use_bias_correction_kl=False,
        steps_per_generation=1,
    )
    trainer.loss_type, trainer.importance_sampling_level = loss_type, level
    trainer.epsilon_low, trainer.epsilon_high, trainer.beta = low, high, beta
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = algo.entropy.top_share, None
    trainer.aux_loss_enabled, trainer._entropy_bonus_enabled = False, algo.entropy.bonus > 0
    trainer.use_adaptive_entropy, trainer.entropy_coef = False, algo.entropy.bonus
    trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
    trainer.max_completion_length, trainer.current_gradient_accumulation_steps = MAX_COMPLETION, 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logps, entropies, None)
    return trainer


def padded(values: torch.Tensor) -> torch.Tensor:
    rows = torch.full((len(LENGTHS), WIDTH), -3.0, dtype=values.dtype)
    rows[mask_rows()] = values
    return rows


def mask_rows() -> torch.Tensor:
    return torch.arange(WIDTH)[None, :] < torch.tensor(LENGTHS)[:, None]


def trl_weights(old: torch.Tensor, engine: torch.Tensor, config: ImportanceConfig) -> torch.Tensor:
    """TRL builds the weights inside its generation method; these are its statements for them."""
    difference = (old - engine) * mask_rows()
    ratio = torch.exp(difference.sum(dim=-1, keepdim=True) if config.mode.startswith("sequence") else difference)
    if config.mode.endswith("truncate"):
        return torch.clamp(ratio, min=config.floor, max=config.cap)
    low = -math.inf if config.floor is None else config.floor
    return ratio.masked_fill((ratio < low) | (ratio > config.cap), 0.0)


def assert_agreement(case: tuple[Any, ...], algo: AlgoConfig, *, truncated: tuple[int, ...] = ()) -> None:
    """Loss and gradients in log-probabilities and entropies; sequences in `truncated` are masked as a whole."""
    generator = torch.Generator().manual_seed(3)
    count = sum(LENGTHS)
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    old = -torch.randn(count, generator=generator, dtype=torch.float64).abs()
    logp = (old + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)).requires_grad_()
    engine = old + 0.4 * torch.randn(count, generator=generator, dtype=torch.float64)
    reference = old + 0.4 * torch.randn(count, generator=generator, dtype=torch.float64)
    # TRL looks for its threshold in float32.
    entropy = torch.rand(count, generator=generator).double().requires_grad_()
    advantage = torch.tensor([1.2, -0.7, 0.4, -0.9], dtype=torch.float64)
    keep = ~torch.isin(sequence, torch.tensor(truncated, dtype=torch.int64))
    used = mask_rows().clone()
    used[list(truncated)] = False
    tokens_used = float(keep.sum())

    trainer = trl_trainer(padded(logp), padded(entropy), case, algo)
    inputs = {
        "prompt_ids": torch.ones(len(LENGTHS), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(LENGTHS), 2, dtype=torch.long),
        "completion_ids": torch.ones(len(LENGTHS), WIDTH, dtype=torch.long),
        "completion_mask": used.long(),
        "advantages": advantage,
        "old_per_token_logps": padded(old),
        "ref_per_token_logps": padded(reference),
        "importance_sampling_ratio": trl_weights(padded(old), padded(engine), algo.importance),
        "num_items_in_batch": keep.sum(),
    }
    expected = trainer._compute_loss(None, inputs)
    expected_gradients = torch.autograd.grad(expected, (logp, entropy), allow_unused=True, materialize_grads=True)

    uncertain = None
    if algo.entropy.top_share < 1:
        uncertain = entropy.detach() >= quantile(entropy.detach()[keep], 1 - algo.entropy.top_share)
    tokens = LossTokens(
        logp=logp,
        old_logp=old,
        engine_logp=engine,
        advantage=advantage[sequence],
        sequence=sequence,
        sequences=len(LENGTHS),
        entropy=entropy,
        reference_logp=reference,
        uncertain=uncertain,
    )
    totals = LossTotals(
        sequences=float(len(LENGTHS)),
        tokens=tokens_used,
        step_tokens=tokens_used,
        completion_budget=MAX_COMPLETION,
        uncertain_tokens=None if uncertain is None else float((uncertain & keep).sum()),
    )
    part = Objective(algo)(tokens, keep, totals)
    gradients = torch.autograd.grad(part.loss, (logp, entropy), allow_unused=True, materialize_grads=True)
    assert part.loss.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-12)


MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].type}-{c[5]}")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_loss_and_gradient_agree_with_trl(case: tuple[Any, ...], mode: Any, beta: float) -> None:
    importance = ImportanceConfig(mode=mode, cap=1.3)
    assert_agreement(case, AlgoConfig(loss=case[0], kl=KlConfig(coefficient=beta), importance=importance))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].type}-{c[5]}")
@pytest.mark.parametrize("mode", MODES)
def test_bounds_on_both_sides_and_truncated_completions_agree_with_trl(case: tuple[Any, ...], mode: Any) -> None:
    algo = AlgoConfig(
        loss=case[0], kl=KlConfig(coefficient=0.05), importance=ImportanceConfig(mode=mode, cap=1.3, floor=0.8)
    )
    assert_agreement(case, algo, truncated=(1,))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].type}-{c[5]}")
@pytest.mark.parametrize("top_share", [1.0, 0.3])
@pytest.mark.parametrize("bonus", [0.0, 0.02])
def test_entropy_options_agree_with_trl(case: tuple[Any, ...], top_share: float, bonus: float) -> None:
    algo = AlgoConfig(
        loss=case[0], kl=KlConfig(coefficient=0.05), entropy=EntropyConfig(bonus=bonus, top_share=top_share)
    )
    assert_agreement(case, algo, truncated=(3,))
