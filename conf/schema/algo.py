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


class BnpoLoss(ClippedLoss):
    type: Literal["bnpo"] = "bnpo"


class GspoLoss(ClippedLoss):
    """One ratio a sequence; its clip range is much narrower than a token's."""

    type: Literal["gspo"] = "gspo"
    epsilon_low: PositiveFloat = 3e-4
    epsilon_high: PositiveFloat = 4e-4


class CispoLoss(Section):
    type: Literal["cispo"] = "cispo"
    ratio_cap: PositiveFloat = 5.0
    """Largest weight a token's gradient may get (TRL's epsilon_high for this loss)."""


class SapoLoss(Section):
    type: Literal["sapo"] = "sapo"
    temperature_positive: PositiveFloat = 1.0
    """Sharpness of the soft gate for tokens with a positive advantage."""
    temperature_negative: PositiveFloat = 1.05


LossConfig = Annotated[
    GrpoLoss | DrGrpoLoss | DapoLoss | BnpoLoss | GspoLoss | CispoLoss | SapoLoss, Field(discriminator="type")
]


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
    """What the ratio compares with when updates_per_step > 1: the engine's log-probabilities (the ratio then is the
    whole correction, importance.mode is not applied), or the learner's own before the first update (one more forward
    pass; the importance weights then correct for the engine). With one update both are the policy itself and nothing
    more is forwarded."""
    drop_zero_variance: bool = True
    """Groups whose rewards are all equal teach nothing: drop them before any forward pass, and count them."""
    mask_truncated: bool = False
    """Leave completions that hit the token limit out of the loss."""
    updates_per_step: PositiveInt = 1
    """Optimizer updates made from one step's groups."""
