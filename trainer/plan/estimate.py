"""Memory and time of a run from the model's shape. Pure maths: bytes, tokens, FLOPs and seconds.

Modelled, not measured: the formulas count what must be stored, read and multiplied, and divide by what the settings say
a device does. They leave out the reward server (it overlaps generation), stragglers, fragmentation and evaluation.

Sources: memory by ZeRO stage: Rajbhandari et al. 2020, section 3 and figure 1. Activations: counted tensor by tensor as
in Korthikanti et al. 2022, section 4, for a gated MLP with fused attention (no score matrix). 6 x parameters FLOPs a
trained token: Kaplan et al. 2020, section 2.1.
"""

from dataclasses import dataclass
from math import ceil

from rollout.shape import ModelShape

GIB = 2**30
MASTER_AND_MOMENTS = 12
"""Bytes a parameter: float32 master, first and second moment of Adam."""
LOGIT_COPIES = 3
"""float32 numbers a word of a chunk's vocabulary that live at once in the backward pass (trainer/learner/logprobs.py):
logits that become the gradient in place, and two more where the entropy has a gradient too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """What the estimates need of the learner's settings."""

    ranks: int
    zero_stage: int
    weight_bytes: int
    """2 for bfloat16, 4 for float32."""
    gradient_checkpointing: bool
    micro_batch_tokens: int
    logit_tokens: int
    shared_prefix: bool
    adapter_rank: int
    """LoRA; 0: every parameter is trained."""
    reference: bool
    """A reference policy is kept beside the trained one (KL)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What the estimates need of the engines' settings."""

    workers: int
    tensor_parallel: int
    weight_bytes: int
    max_len: int
    """Prompt plus completion, tokens."""
    max_seqs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One optimizer step."""

    prompts: int
    group: int
    prompt_tokens: float
    completion_tokens: float
    overlapped: bool
    """Generation of the next step runs beside training (max_staleness > 0, on devices of their own)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What one device does; flops and bytes a second are already multiplied by the efficiencies."""

    train_flops: float
    prefill_flops: float
    decode_bytes: float
    link_bytes: float
    dollars_hour: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerMemory:
    """Bytes of one rank."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    """A chunk's logits, and the output layer's gradient in float32."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.reference + self.activations + self.logits


def learner_memory(shape: ModelShape, learner: Learner) -> LearnerMemory:
    """Stage 0 keeps float32 weights and casts as it goes; higher stages keep weights in `weight_bytes` with float32
    masters, sharded over the ranks together with the moments; stage 2 shards gradients too, stage 3 weights too."""
    ranks, stage, adapters = learner.ranks, learner.zero_stage, shape.adapter_parameters(learner.adapter_rank)
    count = shape.parameters + adapters
    trained = adapters or count
    chunk = min(learner.logit_tokens, learner.micro_batch_tokens)
    weights, gradients, optimizer = 4.0 * count, 4.0 * trained, 8.0 * trained
    if stage > 0:
        weights = learner.weight_bytes * count / (ranks if stage == 3 else 1)
        gradients = learner.weight_bytes * trained / (ranks if stage >= 2 else 1)
        optimizer = MASTER_AND_MOMENTS * trained / ranks
    return LearnerMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        reference=learner.weight_bytes * shape.parameters if learner.reference else 0,
        activations=activation_bytes(shape, learner),
        logits=4 * shape.vocabulary * (LOGIT_COPIES * chunk + shape.hidden),
    )


def activation_bytes(shape: ModelShape, learner: Learner) -> float:
    """What the backward pass needs of one forward pass of micro_batch_tokens.

    A layer keeps 6 hidden vectors (two residuals, two norms' inputs and outputs), query and attention output, key and
    value, and 4 vectors of the MLP. With checkpointing every layer keeps its input, and one layer is whole at a time.
    """
    attention = 2 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim
    layer = 6 * shape.hidden + attention + 4 * shape.intermediate
    numbers = shape.layers * shape.hidden + layer if learner.gradient_checkpointing else shape.layers * layer
    return float(learner.micro_batch_tokens * numbers * learner.weight_bytes)


def kv_bytes_per_token(shape: ModelShape, weight_bytes: int) -> int:
    """Keys and values of all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * weight_bytes


def engine_weights(shape: ModelShape, rollout: Rollout) -> float:
    """Bytes of the weights on each of an engine's devices."""
    return shape.parameters * rollout.weight_bytes / rollout.tensor_parallel


def sequences_that_fit(shape: ModelShape, rollout: Rollout, bytes_per_device: float) -> int:
    """Sequences of full length that an engine can hold at once in `bytes_per_device`, weights included."""
    left = (bytes_per_device - engine_weights(shape, rollout)) * rollout.tensor_parallel
    one = kv_bytes_per_token(shape, rollout.weight_bytes) * rollout.max_len
    return max(0, min(rollout.max_seqs, int(left // one)))


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """Seconds of one optimizer step by stage, and its price."""

    generate_s: float
    train_s: float
    sync_s: float
    step_s: float
    dollars: float


def step_cost(
    shape: ModelShape, learner: Learner, rollout: Rollout, work: Work, device: Device, *, fits: int, devices: int
) -> StepCost:
    """`fits`: sequences that an engine holds at once. `devices`: all that are paid for."""
    generate = generate_seconds(shape, rollout, work, device, fits=fits)
    train = train_seconds(shape, learner, work, device)
    sync = shape.parameters * rollout.weight_bytes / device.link_bytes
    step = (max(generate, train) if work.overlapped else generate + train) + sync
    return StepCost(
        generate_s=generate,
        train_s=train,
        sync_s=sync,
        step_s=step,
        dollars=step * devices * device.dollars_hour / 3600,
    )


def generate_seconds(shape: ModelShape, rollout: Rollout, work: Work, device: Device, *, fits: int) -> float:
    """Prompts are read once a group; a decoding step reads all weights and the keys and values of every running
    sequence, at half of its completion on average, and computes 2 x parameters FLOPs a sequence."""
    sequences = ceil(work.prompts * work.group / rollout.workers)
    running = max(1, min(sequences, fits))
    width = rollout.tensor_parallel
    prompts = ceil(work.prompts / rollout.workers)
    prefill = 2 * shape.parameters * prompts * work.prompt_tokens / (device.prefill_flops * width)
    held = work.prompt_tokens + work.completion_tokens / 2
    read = float(shape.parameters * rollout.weight_bytes)
    read += running * held * kv_bytes_per_token(shape, rollout.weight_bytes)
    one = max(read / (device.decode_bytes * width), 2 * shape.parameters * running / (device.prefill_flops * width))
    return prefill + ceil(sequences / running) * work.completion_tokens * one


def forwarded_tokens(learner: Learner, work: Work) -> float:
    """Tokens that one step forwards: a shared prompt once for its group, or once for every completion."""
    prompts = 1 if learner.shared_prefix else work.group
    return work.prompts * (prompts * work.prompt_tokens + work.group * work.completion_tokens)


def train_seconds(shape: ModelShape, learner: Learner, work: Work, device: Device) -> float:
    """6 x parameters FLOPs a token (4 with adapters: no gradients of the weights), 2 more for recomputing and for a
    reference policy each; then gradients are summed and sharded weights gathered: twice the trained over the link."""
    trained = shape.adapter_parameters(learner.adapter_rank) or shape.parameters
    flops = (
        (4 if learner.adapter_rank else 6)
        + (2 if learner.gradient_checkpointing else 0)
        + (2 if learner.reference else 0)
    )
    compute = flops * shape.parameters * forwarded_tokens(learner, work) / (learner.ranks * device.train_flops)
    moved = 2 * learner.weight_bytes * trained * (learner.ranks - 1) / learner.ranks
    return compute + moved / device.link_bytes
