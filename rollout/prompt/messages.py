"""Message templates: what is said around the schema and the question, before the model's own chat template."""

from collections.abc import Callable

from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask

Message = dict[str, str]
"""{"role": "system" | "user", "content": ...}"""

_TASK = (
    "You translate questions into SQL for SQLite. Answer with exactly one SQLite statement that reads the database and "
    "returns what the question asks for."
)
_PLAIN_ANSWER = "Write the statement alone: no explanation, no comments, no code fences."
_THINKING_ANSWER = (
    "First reason between <think> and </think> about the tables, columns and conditions that the question needs. "
    "After </think> write the statement alone: no explanation, no comments, no code fences."
)
_AGGREGATE_RULE = "When the statement uses GROUP BY, list aggregates before the grouping columns in the SELECT clause."


def finer_messages(config: PromptConfig, task: SqlTask, schema: str) -> list[Message]:
    """FINER-SQL's shape: a system message, then schema, evidence where there is any, and question."""
    rules = [_TASK, _THINKING_ANSWER if config.thinking else _PLAIN_ANSWER]
    if config.aggregate_rule:
        rules.append(_AGGREGATE_RULE)
    parts = [f"Database Schema:\n{schema}"]
    if task.evidence:
        parts.append(f"Evidence: {task.evidence}")
    parts.append(f"Question: {task.question}")
    return [{"role": "system", "content": "\n".join(rules)}, {"role": "user", "content": "\n\n".join(parts)}]


def bare_messages(config: PromptConfig, task: SqlTask, schema: str) -> list[Message]:
    """Schema, evidence where there is any, and question, one after the other, without a word around them."""
    del config
    return [{"role": "user", "content": "\n".join(part for part in (schema, task.evidence, task.question) if part)}]


TEMPLATES: dict[str, Callable[[PromptConfig, SqlTask, str], list[Message]]] = {
    "finer": finer_messages,
    "bare": bare_messages,
}
