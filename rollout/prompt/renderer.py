"""Renders a task into the policy's prompt, within a token budget.

Guarantees: the text is the tokenizer's own chat template applied to the messages; whole columns are left out, never
part of a line; plain columns go before primary and foreign keys, less relevant ones first; the number left out is
reported in the Prompt, and so is a <think> that the template opens. It does not shorten the question or the evidence:
where those alone exceed the budget, PromptTooLong is raised.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jinja2 import TemplateError

from conf.errors import QuorumError, first_line
from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rollout.carriers import Prompt
from rollout.prompt.columns import serialise_columns
from rollout.prompt.compact import serialise_compact
from rollout.prompt.ddl import serialise_ddl
from rollout.prompt.described import Described, DescribedColumn, SchemaReader
from rollout.prompt.messages import TEMPLATES, Message
from rollout.prompt.opened import TemplateUnfit, opened_by
from rollout.prompt.relevance import least_relevant_first

SERIALISERS: dict[str, Callable[[Sequence[DescribedColumn]], str]] = {
    "ddl": serialise_ddl,
    "columns": serialise_columns,
    "compact": serialise_compact,
}


class PromptTooLong(QuorumError):
    """The question does not fit the budget with a single column of its schema."""


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rendering needs."""

    chat_template: Any

    def apply_chat_template(
        self, conversation: list[Message], *, tokenize: bool, add_generation_prompt: bool, enable_thinking: bool
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class PromptRenderer:
    """Tasks to prompts; schemas are read once a database."""

    def __init__(self, config: PromptConfig, tokenizer: ChatTokenizer) -> None:
        """Raises QuorumError for a tokenizer without a chat template."""
        if not tokenizer.chat_template:
            raise QuorumError(
                "the policy's tokenizer has no chat template: use an instruct model, or add chat_template.jinja to its "
                "folder"
            )
        self._config = config
        self._tokenizer = tokenizer
        self._schemas = SchemaReader(config.example_values)
        self._serialise = SERIALISERS[config.schema_format]
        self._messages = TEMPLATES[config.template]

    def check(self) -> None:
        """Renders a question without a database, to see early whether the template can serve. Raises TemplateUnfit."""
        probe = SqlTask(id="", db_id="", question="How many?", gold_sqls=(), databases=())
        self._rendered(self._messages(self._config, probe, "CREATE TABLE dog (name TEXT)"))

    def render(self, task: SqlTask) -> Prompt:
        """Raises PromptTooLong, TemplateUnfit, and DatabaseUnreadable where the primary instance cannot be read."""
        columns = self._schemas.read(task.databases[0])
        prompt = self._prompt(task, columns, dropped=0)
        if len(prompt.token_ids) <= self._config.max_tokens:
            return prompt
        return self._shortened(task, columns)

    def _shortened(self, task: SqlTask, columns: Described) -> Prompt:
        """Leaves out as few columns as meet the budget, by bisection: each column left out shortens the prompt."""
        order = least_relevant_first(columns, f"{task.question} {task.evidence}")

        def without(count: int) -> Prompt:
            gone = {id(column) for column in order[:count]}
            return self._prompt(task, [column for column in columns if id(column) not in gone], dropped=count)

        limit = self._config.max_tokens
        too_few, enough = 0, max(len(order) - 1, 0)
        best = without(enough)
        if len(best.token_ids) > limit:
            raise PromptTooLong(
                f"task {task.id}: {len(best.token_ids)} tokens with one column left, "
                f"the budget is prompt.max_tokens={limit}"
            )
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            prompt = without(middle)
            if len(prompt.token_ids) <= limit:
                best, enough = prompt, middle
            else:
                too_few = middle
        return best

    def _prompt(self, task: SqlTask, columns: Sequence[DescribedColumn], *, dropped: int) -> Prompt:
        messages = self._messages(self._config, task, self._serialise(columns))
        text, opened = self._rendered(messages)
        token_ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        return Prompt(task=task, text=text, token_ids=token_ids, dropped_columns=dropped, opened=opened)

    def _rendered(self, messages: list[Message]) -> tuple[str, str]:
        """The text, and what it has opened of the answer."""
        thinking = self._config.thinking
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        except TemplateError as error:  # some know no system message and say so (Gemma 2)
            reason = first_line(error, otherwise="no reason")
            raise TemplateUnfit(
                f"the chat template of the policy's tokenizer refuses the messages ({reason}): "
                "prompt.template=bare has no system message"
            ) from error
        return text, opened_by(text, messages, thinking=thinking)
