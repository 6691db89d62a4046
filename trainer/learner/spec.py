"""What a learner rank is built from; plain data that travels to another process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from conf.schema.algo import AlgoConfig
from conf.schema.learner import LearnerConfig
from trainer.weights.builder import WeightSender


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerSpec:
    """The same on every rank."""

    policy: str
    """Hugging Face folder of the policy to train; its tokenizer files are copied into checkpoints."""
    learner: LearnerConfig
    algo: AlgoConfig
    completion_budget: int
    """Longest completion that sampling allows, tokens."""
    longest_sequence: int | None = None
    """Tokens of the longest prompt with its completion (None: any)."""
    total_updates: int
    """Optimizer updates of the whole run; the schedule ends there."""
    temperature: float = 1.0
    """Sampling temperature: log-probabilities are those of logits divided by it, as the engine reports them."""
    accelerator: Literal["cpu", "gpu"] = "cpu"
    reference: str | None = None
    """Hugging Face folder of the reference policy (None: `policy`); loaded only when algo.kl.coefficient > 0."""
    sender: Callable[[], WeightSender] | None = None
    """Makes the weight sender, on rank 0; None: this learner publishes nothing."""
    max_logprob_difference: float | None = None
    """Mean |engine - learner| in nats above which a batch is refused (None: never)."""
    seed: int = 0

    @property
    def device(self) -> str:
        return {"cpu": "cpu", "gpu": "cuda"}[self.accelerator]

    @property
    def autocast(self) -> bool:
        """bfloat16 by autocast over float32 weights (ZeRO 0); higher stages keep bfloat16 weights and float32
        masters."""
        return self.learner.dtype == "bfloat16" and self.learner.zero_stage == 0

    @property
    def fused(self) -> bool:
        """Whether trainer/learner/fused serves this learner."""
        learner = self.learner
        plain = learner.dtype == "float32" and learner.zero_stage < 3 and learner.lora.rank == 0
        return self.accelerator == "gpu" or plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendezvous:
    """Where the ranks of one learner meet."""

    rank: int
    world_size: int
    address: str
    """Host of rank 0."""
    port: int
    timeout_s: float
    """Longest wait of one collective operation."""
