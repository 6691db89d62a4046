"""Whether the learner computes what a model computes: before a run, on a small random copy of its architecture.

What is compared, in float32 on the CPU: log-probabilities and entropies of the learner's packed pass, in evaluation
and in training, and the gradients of all parameters, with transformers' own forward of each sequence alone; and the
names under which weights are sent and saved with those that checkpoints have.
Not looked at: the weights themselves, a device's kernels, what the engine computes (rollout.max_logprob_difference).
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from conf.errors import first_line
from conf.schema.learner import LoraConfig
from trainer.carriers import TrainingSequence
from trainer.learner.errors import LearnerError, PolicyNotLoadable
from trainer.learner.fused import cpu
from trainer.learner.gather import gathered_weights, persistent_buffers
from trainer.learner.lora import add_adapters
from trainer.learner.packing.padded import pack_padded
from trainer.learner.packing.shared_prefix import pack_shared_prefix
from trainer.learner.policy import Packing, Policy, attention_name, load_config, without_noise
from trainer.learner.small_copy import BEYOND, VOCABULARY, built, randomise, randomise_adapters, reach, small_config

LIMIT = 1e-4
"""Nats; rounding moves a log-probability by some 1e-6."""
GRADIENT_LIMIT = 1e-3
"""Of a parameter's gradient, as a share of its norm, or of a thousandth of all where it has next to none."""

ADAPTER_LIMIT = 1e-3
"""Nats; adapters that are ten times what training makes of them move a log-probability by nats, rounding by some
1e-5 (1e-4 where logits are multiplied)."""

_TEMPERATURE = 0.8
_PACKERS = {"padded": pack_padded, "shared_prefix": pack_shared_prefix}
_RAISED = (
    TypeError,
    ValueError,
    RuntimeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    NotImplementedError,
)
"""What an architecture's code raises where it is built or forwarded in a way that it does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Values:
    """Of the completions' T tokens, in the order of the sequences."""

    logp: torch.Tensor
    entropy: torch.Tensor
    gradients: dict[str, torch.Tensor]
    """Of a fixed mixture of both, by parameter."""


def check_model(
    folder: str,
    *,
    packing: Packing,
    longest: int | None = None,
    checkpointing: bool = False,
    lora: LoraConfig | None = None,
) -> None:
    """Raises PolicyNotLoadable, in one sentence with the setting that serves the model, if there is one.

    Args:
        longest: tokens of the longest prompt with its completion; None: any.
        checkpointing: learner.gradient_checkpointing.
        lora: learner.lora; None: no adapters.
    """
    config = load_config(Path(folder))
    fault = fault_of(config, packing=packing, longest=longest, checkpointing=checkpointing)
    if fault is None:
        if lora is not None and lora.rank and (fault := adapter_fault(config, lora, packing=packing, longest=longest)):
            raise PolicyNotLoadable(
                f"the model at {folder} ({config.model_type}) cannot be trained with learner.lora.rank={lora.rank}: "
                f"{fault}; choose learner.lora.rank=0"
            )
        return
    told = f"the model at {folder} ({config.model_type}) cannot be trained with learner.packing={packing}: {fault}"
    remedies = []
    if packing == "shared_prefix":
        other = fault_of(config, packing="padded", longest=longest, checkpointing=checkpointing)
        if other is None:
            remedies.append("choose learner.packing=padded, which computes this model exactly")
        elif other != fault:
            told = f"{told}; nor with learner.packing=padded: {other}"
    within = reach(config)
    if within is not None and fault_of(config, packing=packing, longest=within, checkpointing=checkpointing) is None:
        remedies.append(f"let prompt.max_tokens and rollout.sampling.max_tokens be {within} together at most")
    raise PolicyNotLoadable(f"{told}; {', or '.join(remedies)}" if remedies else told)


def fault_of(
    config: PreTrainedConfig, *, packing: Packing, longest: int | None = None, checkpointing: bool = False
) -> str | None:
    """What is wrong with training the model of `config`, in words; None: nothing was found."""
    if fault := _kind_fault(config):
        return fault
    try:
        plain, expected = _small_copy(config, longest)
    except _RAISED as error:
        return f"transformers computes no small copy of it ({_told(error)})"
    if fault := _class_fault(config, plain) or _names_fault(plain):
        return fault
    try:
        model = built(plain.config, attention=attention_name(packing, "cpu", plain.config))
        model.load_state_dict(plain.state_dict())
        without_noise(model)
        cpu.fuse(model)
        policy = Policy(model, temperature=_TEMPERATURE, chunk=5)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.no_grad():
            tested = _packed_values(policy.eval(), packing)
        trained = _packed_values(policy.train(), packing)
    except LearnerError as error:
        return str(error)
    except _RAISED as error:
        return f"transformers cannot compute it so ({_told(error)})"
    return _difference(tested, trained, expected)


def adapter_fault(config: PreTrainedConfig, lora: LoraConfig, *, packing: Packing, longest: int | None) -> str | None:
    """What is wrong with training adapters in a model that `fault_of` finds nothing wrong with: whether they can be put
    into it, and whether the weights that engines are sent are what the learner computes with."""
    try:
        plain, _ = _small_copy(config, longest)
        # A model's configuration keeps the name of its attention: each has its own.
        adapted = built(deepcopy(plain.config), attention=attention_name(packing, "cpu", plain.config))
        adapted.load_state_dict(plain.state_dict())
        without_noise(adapted)
        # Whatever factor a run has, rounding is to stay small.
        add_adapters(adapted, lora.model_copy(update={"alpha": 4.0 * lora.rank}), seed=0)
        randomise_adapters(adapted)
        with torch.no_grad():
            found = _packed_values(Policy(adapted, temperature=_TEMPERATURE, chunk=5).eval(), packing)
            plain.load_state_dict(dict(gathered_weights(adapted, sharded=False)), strict=False)
            farthest = _farthest(found.logp, _plain_values(plain).logp)
    except _RAISED as error:
        return f"its layers take no adapters ({_told(error)})"
    return (
        None
        if farthest <= ADAPTER_LIMIT
        else (
            f"with adapters its log-probabilities differ from those of the merged weights by up to {farthest:.2g} nats"
        )
    )


def _small_copy(config: PreTrainedConfig, longest: int | None) -> tuple[PreTrainedModel, _Values]:
    """With random weights, and what transformers computes of it."""
    for narrow in (True, False):
        try:
            model = built(small_config(config, longest, narrow=narrow), attention="eager")
            randomise(model)
            return model, _plain_values(model)
        except _RAISED:
            if not narrow:
                raise
    raise AssertionError("the last try returns or raises")


def _difference(tested: _Values, trained: _Values, expected: _Values) -> str | None:
    found = max(_farthest(tested.logp, expected.logp), _farthest(tested.entropy, expected.entropy))
    if not found <= LIMIT:
        return f"its log-probabilities differ from the model's own by up to {found:.2g} nats"
    found = max(_farthest(trained.logp, expected.logp), _farthest(trained.entropy, expected.entropy))
    if not found <= LIMIT:
        return f"its log-probabilities in training differ from those in sampling by up to {found:.2g} nats"
    name, share = _farthest_gradient(trained.gradients, expected.gradients)
    if not share <= GRADIENT_LIMIT:
        return f"the gradient of {name} differs from the model's own by {share:.2g} of its size"
    return None


def _farthest(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def _farthest_gradient(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> tuple[str, float]:
    whole = float(torch.stack([gradient.norm() for gradient in expected.values()]).norm())
    shares = {
        name: float((found[name] - gradient).norm() / (gradient.norm() + 1e-3 * whole))
        for name, gradient in expected.items()
    }
    # One that is not a number is the worst.
    return max(shares.items(), key=lambda item: float("inf") if item[1] != item[1] else item[1])


def _sequences() -> list[TrainingSequence]:
    """Two prompts, of two completions and of one; sequences of many lengths, most of more than BEYOND tokens."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, VOCABULARY - 1, (100,), generator=draw).tolist()
    parts = ((0, (0, 7), (7, 3)), (0, (0, 7), (10, BEYOND + 4)), (1, (30, 11), (41, 6)))
    return [
        TrainingSequence(
            group_index=group,
            prompt_ids=tuple(tokens[start : start + prompt]),
            completion_ids=tuple(tokens[first : first + length]),
            logprobs=(0.0,) * length,
            advantage=0.0,
        )
        for group, (start, prompt), (first, length) in parts
    ]


def _packed_values(policy: Policy, packing: Packing) -> _Values:
    sequences = _sequences()
    logps: dict[int, torch.Tensor] = {}
    entropies: dict[int, torch.Tensor] = {}
    for batch in _PACKERS[packing](sequences, budget=1000):
        logp, entropy = policy(batch)
        logps |= dict(zip(batch.members, logp.split(batch.lengths), strict=True))
        entropies |= dict(zip(batch.members, entropy.split(batch.lengths), strict=True))
    order = range(len(sequences))
    return _values(policy.language_model, [logps[i] for i in order], [entropies[i] for i in order])


def _plain_values(model: PreTrainedModel) -> _Values:
    """By transformers alone: each sequence for itself, in evaluation mode."""
    logps, entropies = [], []
    for sequence in _sequences():
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        logits = model(input_ids=ids, use_cache=False).logits[0] / _TEMPERATURE
        log_p = logits[len(sequence.prompt_ids) - 1 : -1].log_softmax(-1)
        logps.append(log_p.gather(1, torch.tensor(sequence.completion_ids)[:, None]).squeeze(1))
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return _values(model, logps, entropies)


def _values(model: PreTrainedModel, logps: Sequence[torch.Tensor], entropies: Sequence[torch.Tensor]) -> _Values:
    logp, entropy = torch.cat(list(logps)), torch.cat(list(entropies))
    gradients: dict[str, torch.Tensor] = {}
    if logp.requires_grad:
        weights = torch.linspace(-1.0, 2.0, len(logp))
        mixture = (weights * logp + weights.flip(0) * entropy).sum()
        named = dict(model.named_parameters())
        found = torch.autograd.grad(mixture, list(named.values()), allow_unused=True, materialize_grads=True)
        gradients = dict(zip(named, found, strict=True))
    return _Values(logp=logp.detach(), entropy=entropy.detach(), gradients=gradients)


def _kind_fault(config: PreTrainedConfig) -> str | None:
    """What config.json says before anything is built."""
    quantised = config.to_dict().get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method", "no method named")
        return (
            f"its weights are quantised ({method}), and what is trained are whole ones: give the model's plain folder"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "transformers has no causal language model of this kind"
    if config.attribute_map.get("num_hidden_layers", "num_hidden_layers") not in config.to_dict():
        return "it is more than a language model (of images, sound or an encoder too), and only those are trained"
    return None


def _class_fault(config: PreTrainedConfig, model: PreTrainedModel) -> str | None:
    """Engines follow the class that the folder names, transformers the kind of model."""
    named = config.architectures or []
    own = type(model).__name__
    if not named or own in named:
        return None
    return f"its config.json names {', '.join(named)}, and what can be trained of it is {own}, with other weights"


def _names_fault(model: PreTrainedModel) -> str | None:
    held = {name: torch.empty(tensor.shape, device="meta") for name, tensor in _sent(model)}
    saved = revert_weight_conversion(model, dict(held))
    if saved.keys() == held.keys():
        return None
    example = min(held.keys() - saved.keys())
    return f"transformers holds its weights under names that engines and checkpoints do not know, such as {example}"


def _sent(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from persistent_buffers(model)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, otherwise='no reason given')}"
