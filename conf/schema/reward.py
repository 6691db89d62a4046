"""What a completion is worth: components, budgets, combination and the reward server's size."""

import time
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from conf.schema.base import ModelText, PathText, Section, Word

LOST_LIMIT = 3
"""Reward actors that a group may be lost with before it is unscorable."""


PRESENT = "present"
NO_RANKS = (
    "reward.rank_correct_first needs right answers to earn something: set reward.execution.enabled=true and its weight "
    "above the sum of reward.penalties"
)


def _moment(text: str) -> str:
    if text == PRESENT:
        return text
    try:
        zone = datetime.fromisoformat(text).tzinfo
    except ValueError as error:
        raise ValueError(f"{text!r} is no moment: write it as YYYY-MM-DD HH:MM:SS, in UTC, or {PRESENT}") from error
    if zone is not None:
        raise ValueError(f"{text!r} has a time zone: leave that out and give the time in UTC, which SQLite's clock has")
    return text


@cache
def _started_ms() -> int:
    """When this process first asked for the present: one time for all that it executes."""
    return time.time_ns() // 1_000_000


class BudgetConfig(Section):
    """Limits for one query, and its clock. VM steps, rows, bytes and the heap are deterministic; CPU and wall time are
    nets."""

    vm_steps: PositiveInt = 20_000_000
    """SQLite virtual-machine instructions."""
    rows: PositiveInt = 100_000
    bytes: PositiveInt = 32 * 2**20
    """Size of the result in the executor's memory."""
    value_bytes: PositiveInt = 2**20
    """Size of any single value or row that SQLite builds on the way; keeps single opcodes short."""
    heap_mib: PositiveInt = 256
    """SQLite heap of one executor, MiB."""
    sql_chars: PositiveInt = 20_000
    """Longest query in characters; a longer one is `too_large` and no process sees it."""
    cpu_s: PositiveFloat = 5.0
    """CPU seconds of one query, for long opcodes that VM steps do not see; independent of the load."""
    wall_s: PositiveFloat = 30.0
    """Seconds until a silent executor is killed; its query is retried alone, unscorable when lost again."""
    clock: Annotated[Word, AfterValidator(_moment)] = "2026-01-01 00:00:00"
    """The time (UTC) that queries read as the present, so that golds and candidates see the same one, in every run.
    present: the time at which the process first asked, one for all that it executes."""

    @property
    def clock_ms(self) -> int:
        """Milliseconds since 1970 of `clock`."""
        if self.clock == PRESENT:
            return _started_ms()
        return int(datetime.fromisoformat(self.clock).replace(tzinfo=UTC).timestamp() * 1000)


class FormatReward(Section):
    enabled: bool = True
    weight: NonNegativeFloat = 1.0
    min_reasoning_chars: int = Field(default=100, ge=0)
    """Reasoning must be longer than this many characters."""
    thinking: bool = True
    """False: no <think> block is asked for; the answer is the whole completion and the format point needs only SQL."""


class ExecutionReward(Section):
    enabled: bool = True
    weight: NonNegativeFloat = 1.0
    instances: Literal["primary", "all"] = "primary"
    """all: right means right on every instance of the database."""
    order_dependent_gold: Literal["score", "unscorable"] = "score"
    """What to do with a gold query whose rows depend on an order that SQL leaves open, or of which that cannot be found
    out. unscorable: a run leaves such tasks out."""
    constant_answer: Literal["score", "wrong"] = "score"
    """wrong: an answer that reads no table, or uses nothing of its rows, although every gold does, is paid as one that
    runs and differs, whatever its result; the component still says what execution showed."""
    budget: BudgetConfig = BudgetConfig()


class PublishedShaping(Section):
    """FINER-SQL: f(s) = epsilon*s + (1-epsilon)*beta*s**gamma."""

    type: Literal["published"] = "published"
    epsilon: float = Field(default=0.05, ge=0.0, le=1.0)
    beta: NonNegativeFloat = 0.79
    gamma: PositiveFloat = 0.20


class LinearShaping(Section):
    """f(s) = scale * s**power; a power slightly above 1 separates near misses from far ones."""

    type: Literal["linear"] = "linear"
    scale: NonNegativeFloat = 0.8
    power: PositiveFloat = 1.0


class AtomicReward(Section):
    enabled: bool = True
    weight: NonNegativeFloat = 1.0
    shaping: Annotated[PublishedShaping | LinearShaping, Field(discriminator="type")] = PublishedShaping()


class HashingEmbedder(Section):
    """Hashed word and character n-grams, signed and L2-normalised: deterministic, no download."""

    type: Literal["hashing"] = "hashing"
    dimensions: PositiveInt = 512


class SentenceTransformersEmbedder(Section):
    type: Literal["sentence_transformers"] = "sentence_transformers"
    model: ModelText
    device: Word = "cpu"
    batch_size: PositiveInt = 64


class VllmEmbedder(Section):
    type: Literal["vllm"] = "vllm"
    model: ModelText = "Qwen/Qwen3-Embedding-0.6B"


class MemoryReward(Section):
    enabled: bool = True
    weight: NonNegativeFloat = 1.0
    store: PathText | None = None
    """SQLite file of verified traces (None: starts empty and lives with the run)."""
    neighbours: PositiveInt = 20
    min_reasoning_chars: int = Field(default=30, ge=0)
    same_database: bool = False
    """False: only traces from other databases are retrieved, as published. Never the same question's own trace."""
    keep_failed: bool = False
    """Also keep traces of wrong answers, for contrast."""
    needs_execution: bool = False
    """True: nothing for an answer that does not run (execution 0)."""
    copy_overlap: float | None = Field(default=None, gt=0.0, le=1.0)
    """Nothing for wrong reasoning that shares at least this much of its runs of four words with its nearest traces
    together, or holds this much of one of theirs (None: copies are paid). 0.7 lets no copy pass that has one word put
    in; other reasoning about the like, even from a template, shares up to 0.6."""
    duplicate_cosine: float = Field(default=0.9, gt=0.0, le=1.0)
    min_words: PositiveInt = 30
    max_words: PositiveInt = 2000
    min_column_mentions: int = Field(default=2, ge=0)
    min_column_density: NonNegativeFloat = 0.05
    min_bigram_ratio: NonNegativeFloat = 0.6
    embedder: Annotated[HashingEmbedder | SentenceTransformersEmbedder | VllmEmbedder, Field(discriminator="type")] = (
        HashingEmbedder()
    )


class PenaltyConfig(Section):
    """Weights of optional deductions, each of a value in [0, 1]; 0 switches one off. One field for each of PENALTIES in
    rewards/components/penalties.py."""

    length: NonNegativeFloat = 0.0
    """Deducted in proportion to the completion's share of its token budget."""
    repetition: NonNegativeFloat = 0.0
    """Deducted in proportion to the share of repeated 4-grams in the reasoning."""


class ServerConfig(Section):
    actors: PositiveInt = 1
    executors: PositiveInt = 1
    """SQLite processes for each reward actor."""
    cache_entries: PositiveInt = 200_000
    max_queue: PositiveInt = 4096
    """Groups waiting before callers are held back."""
    timeout_s: PositiveFloat = 180.0
    """Longest time that an actor may get nothing done (no query answered, none compared, no group aligned), however
    many groups it holds, before it is replaced and they are scored again."""


class RewardConfig(Section):
    format: FormatReward = FormatReward()
    execution: ExecutionReward = ExecutionReward()
    atomic: AtomicReward = AtomicReward()
    memory: MemoryReward = MemoryReward()
    penalties: PenaltyConfig = PenaltyConfig()
    format_gate: bool = True
    """Total is 0 when format is 0, as published; nothing while the format component is off."""
    rank_correct_first: bool = False
    """strict: totals are arranged so that any wrong answer stays strictly below any right one."""
    empty_needs_empty_everywhere: bool = False
    """strict: an empty answer equals an empty gold only where the gold is empty on every instance."""
    max_unscorable_share: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of a step's completions that the infrastructure could not score, above which the run stops. Those that the
    data or the policy made unscorable do not count."""
    server: ServerConfig = ServerConfig()

    @model_validator(mode="after")
    def _ranks_can_be_kept(self) -> "RewardConfig":
        """The sum that rewards/combine.py needs to be positive: the least that a right answer earns."""
        execution, memory = self.execution, self.memory
        earned = 2.0 * execution.weight * execution.enabled + memory.weight * memory.enabled
        deducted: float = sum(self.penalties.model_dump().values())
        if self.rank_correct_first and earned <= deducted:
            raise ValueError(NO_RANKS)
        return self

    @model_validator(mode="after")
    def _notices_executors_first(self) -> "RewardConfig":
        wall_s, timeout_s = self.execution.budget.wall_s, self.server.timeout_s
        if timeout_s <= wall_s:
            raise ValueError(
                f"reward.server.timeout_s={timeout_s:g} would replace a reward actor for one SQL process that may be "
                f"silent for reward.execution.budget.wall_s={wall_s:g}: raise the former above the latter"
            )
        return self
