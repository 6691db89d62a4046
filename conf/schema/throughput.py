"""How fast a training step is (python -m measure.throughput)."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from conf.schema.base import PathText, Section, Word
from conf.schema.model import ModelConfig

Variant = Literal["synchronous", "dropping", "one_step_ahead", "dropping_one_step_ahead"]
"""synchronous: all groups trained, generation waits for training: the peer's own algorithm, always measured.
dropping: groups that teach nothing are left out before any forward pass. one_step_ahead: max_staleness=1."""


class PeerConfig(Section):
    """TRL's GRPOTrainer."""

    micro_batch: PositiveInt | None = None
    """Completions of one forward pass (None: the job's, the fastest found)."""
    generation: Literal["transformers", "continuous_batching", "vllm"] = "transformers"
    """transformers: the fastest that works on the CPU. vllm: colocated, needs a GPU."""


class LearningConfig(Section):
    """Reward against samples, for both trainers."""

    enabled: bool = False
    seeds: tuple[NonNegativeInt, ...] = (0, 1, 2)
    steps: PositiveInt = 30
    """Optimizer steps of every run."""


class DeviceConfig(Section):
    """Sizes of the measurement without a peer."""

    prompts_per_step: PositiveInt = 16
    group_size: PositiveInt = 32
    prompt_tokens: PositiveInt = 1500
    max_tokens: PositiveInt = 1024
    """Completion budget; recorded lengths beyond it are cut to it."""
    lengths: PathText | None = None
    """Recorded completion lengths: the samples.jsonl of a run (None: the spread of the quickstart's completions, with
    `completion_tokens` as their mean)."""
    completion_tokens: PositiveInt = 300
    micro_batch_tokens: PositiveInt = 32768
    peak_tflops: PositiveFloat | None = None
    """Matrix products of the device, 10^12 a second, that utilisation is a share of (None: measured beside)."""


class ThroughputConfig(Section):
    against: Literal["trl"] | None = None
    """None: this trainer alone."""
    job: Literal["short", "long", "both"] = "both"
    """Of weights=trained. short: the demo's questions, 32 prompts x 16 completions. long: 600 prompt tokens, 100
    completion tokens, 32 completions a prompt."""
    steps: PositiveInt = 8
    """Measured optimizer steps of every block."""
    rounds: PositiveInt = 2
    """Blocks of every variant and of the peer, in turn."""
    warmup_steps: PositiveInt = 2
    """Steps at the start of every block that are not measured."""
    variants: tuple[Variant, ...] = ("dropping", "one_step_ahead")
    """What is measured beside `synchronous`."""
    learning: LearningConfig = LearningConfig()
    trl: PeerConfig = PeerConfig()
    model: ModelConfig
    policy: PathText | None = None
    """Folder of a warmed-up policy (None: the quickstart's of `seed`, from the trainer's cache or made now)."""
    weights: Literal["trained", "random"] = "trained"
    """random: of the model's shape, nothing is downloaded. Completions get recorded lengths; with against=trl all of
    them have measure.completion_tokens, and `job` is not read."""
    device: Literal["cpu", "gpu"] = "cpu"
    measure: DeviceConfig = DeviceConfig()
    cores: PositiveInt = 2
    """CPU cores that every process is bound to."""
    seed: NonNegativeInt = 0
    settings: tuple[Word, ...] = ()
    """More settings of the trainer, name=value, for every block; the peer reads its sizes and options from them too."""
    folder: PathText = "runs/throughput"
    """Receives a folder with runs and logs for every call."""
    output: PathText | None = None
    """JSON file for the figures."""
    block_timeout_s: PositiveFloat = 3600.0
    """Longest time for one block."""

    @model_validator(mode="after")
    def _something_to_compare(self) -> "ThroughputConfig":
        if self.against is None and self.weights == "trained":
            raise ValueError("give against=trl, or weights=random to measure this trainer alone")
        if self.trl.generation == "vllm" and self.device == "cpu":
            raise ValueError("trl.generation=vllm needs device=gpu: its weight updates do not work on the CPU")
        return self
