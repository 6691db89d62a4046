"""What can go wrong while completions are made. Every message is one clear sentence for the user.

None of these is ever turned into a score: a group either arrives whole or its caller gets one of these.
"""

from conf.errors import QuorumError


class RolloutError(QuorumError):
    """Base of every failure of the rollout side."""


class ModelFolderMissing(RolloutError):
    """The policy's folder is not there, or it is not a Hugging Face model folder."""


class TokenizerMismatch(RolloutError):
    """The tokenizer can make ids that the model has no embedding for, or has no end-of-text token."""


class NotEnoughMemory(RolloutError):
    """Weights and key-value cache do not fit into the memory that is free."""


class ContextTooSmall(RolloutError):
    """The model cannot hold a prompt and a completion of the sizes asked for."""


class PromptTooLongForEngine(RolloutError):
    """Prompt plus completion budget is longer than the engine's context."""


class EngineStartFailed(RolloutError):
    """vLLM did not start with these settings."""


class StartTimeout(RolloutError):
    """A worker was not ready within rollout.start_timeout_s."""


class WorkerNotStarted(RolloutError):
    """A worker's process cannot be started here: another try would end the same way."""


class WorkerDied(RolloutError):
    """A worker's process ended."""


class WorkerHung(RolloutError):
    """A worker finished no group within rollout.group_timeout_s while groups were waiting."""


class WeightUpdateFailed(RolloutError):
    """New weights did not reach an engine whole. The engine must not generate until a full update succeeds."""


class WeightsSuperseded(WeightUpdateFailed):
    """The handle's weights are gone or being rewritten; the engine was not touched and awaits the next update."""


class GenerationFailed(RolloutError):
    """An engine raised while generating."""


class LogprobsDamaged(RolloutError):
    """An engine gave a log-probability that is no number: the policy's weights or the engine's numbers are damaged."""


class PoolExhausted(RolloutError):
    """No worker is left, or a group was lost with every worker that tried it."""
