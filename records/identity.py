"""What a run was made from: the facts that decide what its token ids, task positions, adapters and rows mean.

A run's folder keeps them in identity.json before its first step, and each checkpoint its own copy. A run goes on only
where they are the same; every other setting may change on the way (docs/operations.md lists which). Paths are no facts,
what lies there is: a model or a database that has moved is the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.schema.root import TrainConfig
from conf.schema.stages import WARMUP_IRRELEVANT
from records.digests import SplitDigest, digest_of, files_digest, split_digest, weights_digest
from records.files import write_atomically
from rollout.prompt.tokenizer import tokenizer_files
from rollout.tasks import TaskSet

FILE = "identity.json"
MODEL_REMEDY = "set model.path and model.revision to the model that the run began with"
DATA_REMEDY = "give back the data that the run began with"
WARM_REMEDY = "give back the folder of warmup.cache that the run began with, or the machine and libraries that made it"
WARM_TOKENIZER = "the tokenizer of the warmed-up policy"
WARM_WEIGHTS = "the weights of the warmed-up policy"


@dataclass(frozen=True, slots=True)
class Fact:
    value: str
    """What is compared: a setting's value, or a digest."""
    shown: str
    """How a person knows it."""
    remedy: str
    """What to do where it differs."""


Facts = Mapping[str, Fact]
"""By name: a setting, or a part of what the run is made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    facts: dict[str, Fact]

    def write(self, folder: Path) -> None:
        """As identity.json, by rename."""
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")


def identity_of(config: TrainConfig, tasks: TaskSet, model: Path | None) -> Identity:
    """`model`: the pretrained model's folder; None for a policy that the warm-up builds. Raises WeightsUnreadable."""
    facts = setting_facts(config)
    if model is not None:
        facts |= _model_facts(config, model)
    facts |= _split_facts("training", split_digest(tasks.train)) | _split_facts("held-out", split_digest(tasks.heldout))
    if config.warmup.enabled:
        if tasks.warmup != tasks.train:
            facts |= _split_facts("warm-up", split_digest(tasks.warmup))
        traces = [[name, trace.reasoning, trace.sql] for name, trace in sorted(tasks.traces.items())]
        facts["the traces to imitate"] = _digest_fact(digest_of(traces), f"{len(traces)} traces", DATA_REMEDY)
    return Identity(facts=facts)


def warm_facts(policy: Path) -> dict[str, Fact]:
    """Of a policy that the warm-up has made."""
    return {
        WARM_TOKENIZER: _digest_fact(_tokenizer_digest(policy), str(policy), WARM_REMEDY),
        WARM_WEIGHTS: _digest_fact(weights_digest(policy), str(policy), WARM_REMEDY),
    }


def setting_facts(config: TrainConfig) -> dict[str, Fact]:
    """The settings that must stay as they are."""
    fixed: dict[str, object] = {"seed": config.seed, "algo.sampler.type": config.algo.sampler.type}
    fixed["data.denotation"] = config.data.denotation
    fixed |= _section("model", config.model.model_dump(exclude={"path", "revision"}))
    fixed |= _section("prompt", config.prompt.model_dump())
    fixed["learner.lora.rank"] = config.learner.lora.rank
    if config.learner.lora.rank:
        fixed["learner.lora.alpha"] = config.learner.lora.alpha
    fixed["warmup.enabled"] = config.warmup.enabled
    if config.warmup.enabled:
        fixed |= _section("warmup", config.warmup.model_dump(exclude={*WARMUP_IRRELEVANT}))
    if config.reward.memory.enabled:
        # Vectors of another embedder are no neighbours of the checkpoint's.
        embedder = config.reward.memory.embedder.model_dump(exclude={"device", "batch_size"})
        fixed |= _section("reward.memory.embedder", embedder)
    return {name: setting_fact(name, value) for name, value in fixed.items()}


def setting_fact(name: str, value: object) -> Fact:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return Fact(text, text, f"set {name}={text}")


def differences(saved: Facts, now: Facts) -> list[str]:
    """A sentence for each fact that both know and that differs: what was, what is, and what to do."""
    changed = [name for name in saved.keys() & now.keys() if saved[name].value != now[name].value]
    # Other tasks have other contents and databases too: once is enough.
    implied = {name for split in _SPLITS if _ids(split) in changed for name in (_contents(split), _databases(split))}
    return [
        f"{name} was {saved[name].shown} when the run began, and is {now[name].shown}: {saved[name].remedy}"
        for name in sorted(changed)
        if name not in implied
    ]


def _section(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _model_facts(config: TrainConfig, folder: Path) -> dict[str, Fact]:
    assert config.model.type == "pretrained"
    revision = f" at {config.model.revision}" if config.model.revision else ""
    path = f"{config.model.path}{revision}"
    facts = {
        "the model's config.json": _digest_fact(files_digest(folder, ["config.json"]), path, MODEL_REMEDY),
        "the model's tokenizer": _digest_fact(_tokenizer_digest(folder), path, MODEL_REMEDY),
    }
    if not config.model.random_weights:
        facts["the model's weights"] = _digest_fact(weights_digest(folder), path, MODEL_REMEDY)
    return facts


def _tokenizer_digest(folder: Path) -> str:
    return files_digest(folder, tokenizer_files(folder))


_SPLITS = ("training", "held-out", "warm-up")


def _ids(split: str) -> str:
    return f"the list of {split} tasks"


def _contents(split: str) -> str:
    return f"what the {split} tasks ask and take for right"


def _databases(split: str) -> str:
    return f"the content of the {split} databases"


def _split_facts(split: str, found: SplitDigest) -> dict[str, Fact]:
    return {
        _ids(split): _digest_fact(found.ids, f"{found.tasks} tasks", DATA_REMEDY),
        _contents(split): _digest_fact(found.contents, "", DATA_REMEDY),
        _databases(split): _digest_fact(found.databases, "", DATA_REMEDY),
    }


def _digest_fact(digest: str, shown: str, remedy: str) -> Fact:
    return Fact(digest, f"{shown} (digest {digest})" if shown else f"of digest {digest}", remedy)
