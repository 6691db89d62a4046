"""How far engine and learner may be apart about the same tokens under the same weights. Knows no tensor.

The limit is of the mean over at least ENOUGH tokens (all there are, where a whole batch has fewer). Measured on the
quickstart's policy, a CPU, 2,500 tokens drawn at an entropy of 5.9 nats: 1.5e-6 where both compute in float32; 0.013 to
0.020 (single tokens up to 0.13) where one or both compute in bfloat16. On an H200, 3B of random weights in bfloat16:
0.024. Other weights, or another way from hidden states to logits, are some tenths of a nat to some nats away.
"""

from typing import Literal

from conf.schema.learner import LearnerConfig
from conf.schema.rollout import RolloutConfig
from trainer.learner.errors import WrongWeights

ENOUGH = 100
"""Fresh tokens whose mean tells weights apart: in bfloat16 it moves by 0.002 nats from one such sample to another."""
FLOAT32 = 1e-3
FLOAT32_GPU = 1e-2
"""vLLM's attention kernels for float32 on a GPU multiply with 10 bits of mantissa (TF32)."""
BFLOAT16 = 0.1


def difference_limit(rollout: RolloutConfig, learner: LearnerConfig, accelerator: Literal["cpu", "gpu"]) -> float:
    """rollout.max_logprob_difference, or what the coarser precision of the two needs, nats a token."""
    if rollout.max_logprob_difference is not None:
        return rollout.max_logprob_difference
    if "bfloat16" in (rollout.engine.dtype, learner.dtype):
        return BFLOAT16
    return FLOAT32 if accelerator == "cpu" else FLOAT32_GPU


def check_difference(difference: float, limit: float, *, of: str) -> None:
    """Raises WrongWeights where a mean difference is above the limit, or no number. `of`: which tokens, in words."""
    if not difference <= limit:
        raise WrongWeights(
            f"stale or wrong weights: the engine's log-probabilities differ from the learner's by {difference:.3g} "
            f"nats a token on average, {of} (at most {limit:g}: rollout.max_logprob_difference)"
        )
