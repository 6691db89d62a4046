"""The objective agrees with TRL's own `GRPOTrainer._compute_loss`, run on the same tensors: losses and gradients.

TRL's trainer is made without its constructor (which wants a data set and a processor); the method under comparison,
and the one that makes the importance weights, is TRL's code.
"""

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
    GrpoLoss,
    GspoLoss,
    ImportanceConfig,
    KlConfig,
    SapoLoss,
)
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


def trl_trainer(logps: torch.Tensor, entropies: torch.Tensor, case: tuple[Any, ...], beta: float) -> GRPOTrainer:
    _, loss_type, level, low, high, delta = case
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
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = 1.0, None
    trainer.aux_loss_enabled, trainer._entropy_bonus_enabled = False, False
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


def trl_weights(old: torch.Tensor, engine: torch.Tensor, mode: str, cap: float) -> torch.Tensor:
    """TRL builds the weights inside its generation method; these are its three statements for them."""
    difference = (old - engine) * mask_rows()
    ratio = torch.exp(difference.sum(dim=-1, keepdim=True) if mode.startswith("sequence") else difference)
    return ratio.clamp(max=cap) if mode.endswith("truncate") else ratio.masked_fill(ratio > cap, 0.0)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].type}-{c[5]}")
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_loss_and_gradient_agree_with_trl(case: tuple[Any, ...], mode: str, beta: float) -> None:
    generator = torch.Generator().manual_seed(3)
    count = sum(LENGTHS)
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    old = -torch.randn(count, generator=generator, dtype=torch.float64).abs()
    logp = (old + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)).requires_grad_()
    engine = old + 0.4 * torch.randn(count, generator=generator, dtype=torch.float64)
    reference = old + 0.4 * torch.randn(count, generator=generator, dtype=torch.float64)
    advantage = torch.tensor([1.2, -0.7, 0.4, -0.9], dtype=torch.float64)
    cap = 1.3

    trainer = trl_trainer(padded(logp), torch.zeros(len(LENGTHS), WIDTH, dtype=torch.float64), case, beta)
    inputs = {
        "prompt_ids": torch.ones(len(LENGTHS), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(LENGTHS), 2, dtype=torch.long),
        "completion_ids": torch.ones(len(LENGTHS), WIDTH, dtype=torch.long),
        "completion_mask": mask_rows().long(),
        "advantages": advantage,
        "old_per_token_logps": padded(old),
        "ref_per_token_logps": padded(reference),
        "importance_sampling_ratio": trl_weights(padded(old), padded(engine), mode, cap),
        "num_items_in_batch": torch.tensor(count),
    }
    expected = trainer._compute_loss(None, inputs)
    (expected_gradient,) = torch.autograd.grad(expected, logp)

    algo = AlgoConfig(
        loss=case[0],
        kl=KlConfig(coefficient=beta),
        importance=ImportanceConfig(mode=mode, cap=cap),  # type: ignore[arg-type]
    )
    tokens = LossTokens(
        logp=logp,
        old_logp=old,
        engine_logp=engine,
        advantage=advantage[sequence],
        sequence=sequence,
        sequences=len(LENGTHS),
        reference_logp=reference,
    )
    totals = LossTotals(
        sequences=float(len(LENGTHS)), tokens=float(count), step_tokens=float(count), completion_budget=MAX_COMPLETION
    )
    part = Objective(algo)(tokens, torch.ones(count, dtype=torch.bool), totals)
    (gradient,) = torch.autograd.grad(part.loss, logp)
    assert part.loss.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
