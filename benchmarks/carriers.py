"""What travels inside a benchmark run: questions, answers, judgements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conf.errors import QuorumError
from rewards.carriers import SqlTask

Key = int | str
"""What a question file calls a question."""


class BenchmarkError(QuorumError):
    """A benchmark cannot start or go on; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One benchmark question, in dataset order."""

    position: int
    """0-based place in the question file: no other question has it."""
    key: Key
    """What verdicts and predictions call it: `index` (its place) in Spider, `question_id` in BIRD, which questions may
    share (mini-dev)."""
    db_id: str
    question: str
    evidence: str = ""
    gold: str
    databases: tuple[str, ...]
    """Database files; the first is the primary instance."""
    difficulty: str | None = None
    """As the dataset says it (BIRD). Spider's hardness follows from the gold query instead."""

    def task(self, denotation: Literal["spider", "bird"]) -> SqlTask:
        """The question as rollout and prompts see it."""
        return SqlTask(
            id=f"{denotation}-{self.key}",
            db_id=self.db_id,
            question=self.question,
            evidence=self.evidence,
            gold_sqls=(self.gold,),
            databases=self.databases,
            denotation=denotation,
            split="heldout",
            difficulty=self.difficulty,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionSet:
    """A whole question file."""

    name: str
    """For titles: "Spider dev", "BIRD mini_dev"."""
    questions: tuple[Question, ...]
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """db_id -> entry of tables.json (Spider)."""
    whole: int
    """Number of questions in the set; more than those here when a limit cuts it."""
    keys: tuple[Key, ...] = ()
    """The keys of the whole set, in order; empty where those of `questions` are all that is known."""
    shared: frozenset[str] = frozenset()
    """Keys, as text, that stand for different questions of the whole set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one source answered to one question."""

    candidates: tuple[str, ...]
    """SQL texts in sampling order; at least one."""
    logprobs: tuple[float, ...] | None = None
    """Sequence log-probabilities of the candidates, natural log."""
    greedy: str | None = None
    """The greedily decoded query, where the source made one beside the sampled candidates."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The different queries."""
        greedy = () if self.greedy is None else (self.greedy,)
        return tuple(dict.fromkeys((*self.candidates, *greedy)))

    def text(self, choice: int) -> str:
        """The query that a voter chose: len(candidates) stands for the greedy one."""
        if choice < len(self.candidates):
            return self.candidates[choice]
        assert self.greedy is not None
        return self.greedy


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """One answer a question, in order, and what they cost."""

    source: str
    """Where they come from, for reports."""
    answers: tuple[Answer, ...]
    start_s: float = 0.0
    """Wall clock until the engines were ready, imports and Ray included; 0 where none was needed."""
    seconds: float = 0.0
    """Wall clock from then until the last answer, of this process alone; 0 for predictions that were read."""
    requests: int = 0
    """Requests to a hosted model, repetitions included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One question after scoring."""

    verdict: dict[str, Any]
    """The line of verdicts.jsonl, keys in order."""
    level: str
    """Hardness or difficulty."""
    rights: tuple[bool, ...]
    """Execution verdict of each candidate, in sampling order; without those that were lost."""
    greedy_right: bool | None
    """None: not sampled, or lost."""
    voters: Mapping[str, bool]
    """Whether each voter's choice is right."""
    error_kinds: tuple[str, ...]
    """Kinds of the candidates that did not run."""
    gold_error: str | None = None
    unscorable: bool = False
    """The infrastructure lost the gold or the chosen query."""
    lost: int = 0
    """Candidates that the infrastructure lost."""
    incomplete: bool = False
    """An answer's verdict or vote was lost, the greedy one's included."""
    exhibit: dict[str, Any] = field(default_factory=dict)
    """What the report shows of a failure."""
