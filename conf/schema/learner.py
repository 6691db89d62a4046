"""The DeepSpeed learner: ranks, ZeRO, precision, optimizer, schedule, packing."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from conf.schema.base import Section


class LoraConfig(Section):
    """Adapters of low rank on every linear layer but the output layer (arXiv 2106.09685); the rest stays as it is.

    Engines and checkpoints get merged weights. Learning rates are usually ten times those of full fine-tuning.
    """

    rank: NonNegativeInt = 0
    """0: full fine-tuning."""
    alpha: PositiveFloat = 32.0
    """The product of the two matrices is scaled by alpha / rank."""


class LearnerConfig(Section):
    ranks: PositiveInt = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    learning_rate: PositiveFloat = 8e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    max_grad_norm: PositiveFloat = 1.0
    gradient_checkpointing: bool = False
    lora: LoraConfig = LoraConfig()
    packing: Literal["shared_prefix", "padded"] = "padded"
    """shared_prefix: a prompt is forwarded once for its group; on a GPU in bfloat16 only. padded: one row a
    completion."""
    micro_batch_tokens: PositiveInt = 16384
    """Token budget of one forward pass."""
    logprob_chunk_tokens: PositiveInt = 512
    """Tokens whose vocabulary logits exist at a time. At a vocabulary of 151,936 one float32 buffer is 0.3 GB, and up
    to three live at once; a small policy's stay in a CPU's cache."""
    threads: PositiveInt = 1
    """CPU only: torch threads of each rank."""
    max_skipped_steps: NonNegativeInt = 5
    """Steps in a row with an update that is skipped, because its gradient is not finite, before the run ends."""
    max_restarts: NonNegativeInt = 2
    """Times that a run goes on from its last checkpoint by itself, with fresh engines: after a rank was lost or did not
    answer, or after engines were found with other weights than the learner's."""
    start_timeout_s: PositiveFloat = 600.0
    step_timeout_s: PositiveFloat = 1800.0
