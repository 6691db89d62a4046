"""What can be told of a reward configuration before anything is started: whether its parts agree, and whether what it
names is there. Loads no embedding model."""

from importlib.util import find_spec

from conf.errors import QuorumError
from conf.schema.reward import MemoryReward, RewardConfig
from rewards.combine import Combiner
from rewards.memory_store import check_store

PACKAGES = {"sentence_transformers": "sentence_transformers", "vllm": "vllm"}
"""By reward.memory.embedder.type: what it needs beyond what is always installed."""


class EmbedderMissing(QuorumError):
    """The package of reward.memory.embedder.type is not installed."""


def check_rewards(config: RewardConfig) -> None:
    """Raises ConfigError, EmbedderMissing, MemoryStoreInvalid."""
    Combiner(config)
    if config.memory.enabled:
        _check_memory(config.memory)


def _check_memory(config: MemoryReward) -> None:
    kind = config.embedder.type
    if kind in PACKAGES and find_spec(PACKAGES[kind]) is None:
        raise EmbedderMissing(
            f"reward.memory.embedder.type={kind} needs the package {PACKAGES[kind]}, which is not installed: install "
            "it, or use the type hashing"
        )
    if config.store is not None:
        check_store(config.store)
