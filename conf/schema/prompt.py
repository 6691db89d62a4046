"""How a task becomes a prompt: schema serialiser, message template, chat rendering, token budget."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from conf.schema.base import Section


class PromptConfig(Section):
    schema_format: Literal["ddl", "columns", "compact"] = "ddl"
    """ddl: CREATE TABLE with examples. columns: FINER-SQL's table.column list. compact: a line a table."""
    template: Literal["finer", "bare"] = "finer"
    """finer: FINER-SQL's messages. bare: schema and question alone, for tiny policies."""
    example_values: NonNegativeInt = 3
    """Example values shown for each column (0: none)."""
    aggregate_rule: bool = False
    """Adds the Spider rule "with GROUP BY, list aggregates before the grouping columns" to the system message."""
    thinking: bool = True
    """Ask for <think>reasoning</think> before the SQL, and pass enable_thinking to the chat template."""
    max_tokens: PositiveInt = 1500
    """Prompt budget in tokens; the least relevant columns are left out first; one that cannot fit is dropped."""
