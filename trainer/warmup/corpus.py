"""Warm-up tasks as token sequences: the prompt exactly as the engine will see it, then the answer to imitate.

The answer is the task's trace where the source has one, the first gold query without reasoning otherwise. With
prompt.thinking a trace is written <think>reasoning</think>SQL, less what the prompt has opened; without, as the SQL
alone. Control tokens that a trace names are text. No loss falls on prompt tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rewards.sql.marks import END_THINK, THINK
from rollout.prompt import ChatTokenizer, PromptRenderer, PromptTooLong
from rollout.prompt.tokens import TextEncoder
from rollout.tasks.carriers import Dropped, TaskSet, Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One sequence: prompt tokens, answer tokens, end token."""

    input_ids: tuple[int, ...]
    prompt_tokens: int
    """Leading tokens without loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


def trace_of(task: SqlTask, tasks: TaskSet) -> Trace:
    """The answer to imitate."""
    return tasks.traces.get(task.id) or Trace(reasoning="", sql=task.gold_sqls[0])


def answer_text(trace: Trace, *, thinking: bool) -> str:
    """The completion as the policy should write it."""
    return "".join(answer_parts(trace, thinking=thinking))


def answer_parts(trace: Trace, *, thinking: bool) -> tuple[str, ...]:
    """The completion in pieces: what is the format's, and what the trace says, in turn."""
    return (THINK, trace.reasoning, END_THINK, trace.sql) if thinking else ("", trace.sql)


def build_corpus(
    tasks: TaskSet, *, prompt: PromptConfig, tokenizer: ChatTokenizer, end_token: int, max_tokens: int
) -> Corpus:
    """One example for each warm-up task; what does not fit is dropped with its reason."""
    renderer, encoder = PromptRenderer(prompt, tokenizer), TextEncoder(tokenizer)
    examples: list[Example] = []
    dropped: list[Dropped] = []
    for task in tasks.warmup:
        try:
            rendered = renderer.render(task)
        except PromptTooLong as error:
            dropped.append(Dropped(id=task.id, reason="prompt too long", detail=str(error)))
            continue
        begins, *rest = answer_parts(trace_of(task, tasks), thinking=prompt.thinking)
        answer = encoder.encode((begins.removeprefix(rendered.opened), *rest))
        ids = (*rendered.token_ids, *answer, end_token)
        if len(ids) > max_tokens:
            detail = f"{len(ids)} tokens, warmup.max_tokens={max_tokens}"
            dropped.append(Dropped(id=task.id, reason="trace too long", detail=detail))
            continue
        examples.append(Example(input_ids=ids, prompt_tokens=len(rendered.token_ids)))
    return Corpus(examples=tuple(examples), dropped=tuple(dropped))


def tokenizer_texts(tasks: TaskSet, schemas: Iterable[str], *, thinking: bool) -> Sequence[str]:
    """What a new tokenizer is trained on: schemas, questions and answers of the warm-up split, in order."""
    texts = list(schemas)
    for task in tasks.warmup:
        texts.extend(part for part in (task.question, task.evidence) if part)
        texts.append(answer_text(trace_of(task, tasks), thinking=thinking))
    return texts
