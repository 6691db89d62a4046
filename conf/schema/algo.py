"""The policy-gradient objective: advantages, loss, KL, importance correction, filtering."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from conf.schema.base import Section


class ClippedLoss(Section):
    """Shared by the clipped losses; clip-higher is an epsilon_high above epsilon_low."""

    epsilon_low: PositiveFloat = 0.2
    epsilon_high: PositiveFloat = 0.2
    delta: PositiveFloat | None = None
    """Upper bound on the ratio for negative advantages too (dual clip); None: off."""

    @model_validator(mode="after")
    def _delta_above_the_clip(self) -> "ClippedLoss":
        if self.delta is not None and self.delta <= 1.0 + self.epsilon_high:
            raise ValueError(f"delta={self.delta:g} must be greater than 1 + epsilon_high = {1 + self.epsilon_high:g}")
        return self


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
    rewards: Literal["total", "normalised_components"] = "total"
    """What a group's completions are compared by. normalised_components: each raw component is normalised inside its
    group before they are added with their reward weights, so that none drowns the others; the total's gate, shaping,
    ranks and penalties then do not count. Usually with scale=batch."""


class OverlongConfig(Section):
    """DAPO's soft punishment of long completions, deducted from the reward."""

    buffer_tokens: NonNegativeInt = 0
    """The deduction grows from 0 to `factor` over the last tokens of the completion budget; 0: off."""
    factor: PositiveFloat = 1.0


class KlConfig(Section):
    coefficient: NonNegativeFloat = 0.0
    """0: no reference policy is kept."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    place: Literal["loss", "reward"] = "loss"
    """loss: a term of every trained token, whatever its advantage; groups of equal rewards are then trained too.
    reward: the sum over a completion's tokens is deducted from its reward, in every group of the step, before groups
    are dropped and advantages formed; usually with k1."""


class ImportanceConfig(Section):
    """Weights exp(logp_learner - logp_engine) that correct for the engine's slightly different probabilities."""

    mode: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "token_truncate"
    cap: PositiveFloat = 3.0
    floor: PositiveFloat | None = None
    """Lower bound, truncated or masked as the upper one (None: off)."""
    max_token_staleness: NonNegativeInt | None = None
    """Tokens sampled by a policy more versions behind than this stay out of the policy gradient (None: all enter)."""

    @model_validator(mode="after")
    def _floor_below_cap(self) -> "ImportanceConfig":
        if self.floor is not None and self.floor >= self.cap:
            raise ValueError(f"floor={self.floor:g} must be smaller than cap={self.cap:g}")
        return self


class EntropyConfig(Section):
    bonus: NonNegativeFloat = 0.0
    """Times the mean entropy of the tokens in the policy gradient, deducted from the loss; 0: off."""
    top_share: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the update's tokens, those of highest entropy, that the policy gradient is restricted to (arXiv
    2506.01939 takes 0.2). Below 1 costs one more forward pass."""


class UniformSampler(Section):
    """Every task once an epoch."""

    type: Literal["uniform"] = "uniform"


class DifficultySampler(Section):
    """Tasks that are solved sometimes come more often than those that are solved always or never."""

    type: Literal["difficulty"] = "difficulty"
    floor: float = Field(default=0.05, gt=0.0, le=1.0)
    """Least weight of a task, where one that is sure to teach has 1."""
    memory: float = Field(default=0.5, ge=0.0, le=1.0)
    """What a task's earlier completions still count whenever it is tried again."""


SamplerConfig = Annotated[UniformSampler | DifficultySampler, Field(discriminator="type")]


class AlgoConfig(Section):
    loss: LossConfig = DapoLoss()
    advantage: AdvantageConfig = AdvantageConfig()
    kl: KlConfig = KlConfig()
    importance: ImportanceConfig = ImportanceConfig()
    entropy: EntropyConfig = EntropyConfig()
    overlong: OverlongConfig = OverlongConfig()
    old_logprobs: Literal["engine", "learner"] = "engine"
    """What the ratio compares with when updates_per_step > 1: the engine's log-probabilities (the ratio then is the
    whole correction, importance.mode is not applied), or the learner's own before the first update (one more forward
    pass; the importance weights then correct for the engine). With one update both are the policy itself and nothing
    more is forwarded."""
    drop_zero_variance: bool = True
    """Groups that teach nothing are dropped before any forward pass of the policy, and counted: those whose rewards are
    all equal, a KL term in the reward deducted. With a KL term in the loss, or an entropy bonus, such groups teach and
    stay. A dropped group is as if it had not been drawn: no normaliser of the loss counts it (as in DAPO's dynamic
    sampling, arXiv 2503.14476, section 3.2; TRL, which drops none, divides by all, and so does false). Only
    advantage.scale=batch still counts its rewards."""
    sampler: SamplerConfig = UniformSampler()
    resample: bool = False
    """Draw further groups in place of those of equal rewards, until pipeline.prompts_per_step of them differ. What is
    replaced is dropped, its KL or entropy term with it: the groups in its place have theirs."""
    resample_limit: PositiveFloat = 2.0
    """Groups that one step draws in addition, at most, as a multiple of pipeline.prompts_per_step."""
    mask_truncated: bool = False
    """Leave completions that hit the token limit out of the loss; they stay in their group's baseline and in the number
    of sequences that a loss divides by."""
    updates_per_step: PositiveInt = 1
    """Optimizer updates made from one step's groups."""

    @property
    def drops_equal_groups(self) -> bool:
        """Whether groups of equal rewards are left out: nothing in the loss but the advantage concerns them, or others
        were drawn in their place."""
        beside = self.entropy.bonus > 0 or (self.kl.coefficient > 0 and self.kl.place == "loss")
        return self.drop_zero_variance and (self.resample or not beside)

    @model_validator(mode="after")
    def _resample_what_is_dropped(self) -> "AlgoConfig":
        if self.resample and not self.drop_zero_variance:
            raise ValueError("resample=true replaces the groups that drop_zero_variance drops: set it to true")
        return self
