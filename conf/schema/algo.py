"""The policy-gradient objective: advantages, loss, KL, importance correction, filtering."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from conf.schema.base import Section


class ClippedLoss(Section):
    """Shared by the clipped token-level losses."""

    epsilon_low: PositiveFloat = 0.2
    epsilon_high: PositiveFloat = 0.2
    delta: PositiveFloat | None = None
    """Upper bound on the ratio for negative advantages too (dual clip); None: off."""


class GrpoLoss(ClippedLoss):
    type: Literal["grpo"] = "grpo"


class DrGrpoLoss(ClippedLoss):
    type: Literal["dr_grpo"] = "dr_grpo"


class DapoLoss(ClippedLoss):
    type: Literal["dapo"] = "dapo"


LossConfig = Annotated[GrpoLoss | DrGrpoLoss | DapoLoss, Field(discriminator="type")]


class AdvantageConfig(Section):
    scale: Literal["group", "batch", "none"] = "group"
    leave_one_out: bool = False


class KlConfig(Section):
    coefficient: NonNegativeFloat = 0.0
    """0: no reference policy is kept."""
    estimator: Literal["k1", "k2", "k3"] = "k3"


class ImportanceConfig(Section):
    """Weights exp(logp_learner - logp_engine) that correct for the engine's slightly different probabilities."""

    mode: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "token_truncate"
    cap: PositiveFloat = 3.0


class AlgoConfig(Section):
    loss: LossConfig = DapoLoss()
    advantage: AdvantageConfig = AdvantageConfig()
    kl: KlConfig = KlConfig()
    importance: ImportanceConfig = ImportanceConfig()
    old_logprobs: Literal["engine", "learner"] = "engine"
    """Behaviour log-probabilities of the ratio: the engine's own, or a second forward pass of the learner."""
    drop_zero_variance: bool = True
    """Groups whose rewards are all equal teach nothing: drop them before any forward pass, and count them."""
    mask_truncated: bool = False
    """Leave completions that hit the token limit out of the loss."""
    updates_per_step: PositiveInt = 1
    """Optimizer updates made from one step's groups."""
