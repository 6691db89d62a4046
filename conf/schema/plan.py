"""What the plan assumes of devices, links and prices: settings of the reader's own machines, not facts about any."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from conf.schema.base import Section


class PlanConfig(Section):
    """Assumptions of `python -m trainer.plan`, and of the check before a run starts."""

    refuse: bool = True
    """Do not start a run that finds no place; false: only say so, where you know better than the estimates."""
    gpu_memory_gib: PositiveFloat = 80.0
    """Memory of one device (a local run asks its own devices)."""
    node_memory_gib: PositiveFloat = 512.0
    """Host memory of one machine (a local run asks its own)."""
    peak_tflops: PositiveFloat = 989.0
    """bf16 matrix products of one device, 10^12 a second."""
    memory_gb_s: PositiveFloat = 3350.0
    """Memory bandwidth of one device, 10^9 bytes a second."""
    link_gb_s: PositiveFloat = 50.0
    """Bandwidth between two devices, 10^9 bytes a second and direction."""
    price_gpu_hour: NonNegativeFloat = 3.0
    """Dollars for one device and hour."""
    train_efficiency: float = Field(default=0.35, gt=0.0, le=1.0)
    """Share of peak_tflops that training reaches."""
    prefill_efficiency: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of peak_tflops that reading prompts reaches."""
    decode_efficiency: float = Field(default=0.6, gt=0.0, le=1.0)
    """Share of memory_gb_s that writing tokens reaches."""
    prompt_tokens: PositiveInt | None = None
    """Mean prompt (None: the budget, prompt.max_tokens, an upper bound)."""
    completion_tokens: PositiveInt | None = None
    """Mean completion (None: the budget, rollout.sampling.max_tokens, an upper bound)."""
    device_overhead_gib: NonNegativeFloat = 1.5
    """What a process takes of a device before any tensor."""
    process_gib: NonNegativeFloat = 1.0
    """Host memory of an actor before any tensor."""
