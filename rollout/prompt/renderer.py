"""Renders a task into the policy's prompt, within a token budget.

Guarantees: the text is the tokenizer's own chat template applied to the messages; control tokens that the data names
are text; whole columns are left out, never part of a line; plain columns go before primary and foreign keys, less
relevant ones first; what is left out is reported in the Prompt, and so is a <think> that the template opens. It does
not shorten the question or the evidence: where those alone exceed the budget, PromptTooLong is raised.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from conf.errors import QuorumError
from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rollout.carriers import Prompt
from rollout.prompt.chat import Chat, ChatTokenizer
from rollout.prompt.columns import serialise_columns
from rollout.prompt.compact import serialise_compact
from rollout.prompt.ddl import serialise_ddl
from rollout.prompt.described import Described, DescribedColumn, SchemaReader
from rollout.prompt.messages import TEMPLATES
from rollout.prompt.opened import TemplateUnfit
from rollout.prompt.relevance import least_relevant_first
from rollout.prompt.tokens import ControlTokenInData, TextEncoder

SERIALISERS: dict[str, Callable[[Sequence[DescribedColumn]], str]] = {
    "ddl": serialise_ddl,
    "columns": serialise_columns,
    "compact": serialise_compact,
}


class PromptTooLong(QuorumError):
    """The question does not fit the budget with a single column of its schema."""


class PromptRenderer:
    """Tasks to prompts; schemas are read once a database."""

    def __init__(self, config: PromptConfig, tokenizer: ChatTokenizer) -> None:
        """Raises QuorumError for a tokenizer without a chat template."""
        self._config = config
        self._chat = Chat(tokenizer, thinking=config.thinking)
        self._encoder = TextEncoder(tokenizer)
        self._schemas = SchemaReader(config.example_values)
        self._serialise = SERIALISERS[config.schema_format]
        self._messages = TEMPLATES[config.template]

    def check(self) -> None:
        """Renders a question without a database, to see early whether the template can serve. Raises TemplateUnfit."""
        question = 'How many "dogs" are called <b> & Zoë?'  # what templates escape
        probe = SqlTask(id="", db_id="", question=question, gold_sqls=(), databases=())
        self._chat.render(self._messages(self._config, probe, "CREATE TABLE dog (\n  name TEXT -- e.g. 'Rex'\n);"))

    @property
    def remark(self) -> str:
        """What the chat template made of the messages that a user should know; '' for nothing, or before `check`."""
        return self._chat.remark

    def render(self, task: SqlTask) -> Prompt:
        """Raises PromptTooLong, TemplateUnfit, ControlTokenInData, and DatabaseUnreadable where the primary instance
        cannot be read."""
        columns = self._schemas.read(task.databases[0])
        try:
            return self._within_budget(task, columns)
        except (TemplateUnfit, ControlTokenInData) as error:
            # Some templates refuse certain questions alone.
            raise type(error)(f"task {task.id}: {error}") from error

    def _within_budget(self, task: SqlTask, columns: Described) -> Prompt:
        prompt = self._prompt(task, columns)
        whole = len(prompt.token_ids)
        if whole > self._config.max_tokens:
            prompt = self._shortened(task, columns)
        return replace(prompt, whole_tokens=whole)

    def _shortened(self, task: SqlTask, columns: Described) -> Prompt:
        """Leaves out as few columns as meet the budget, by bisection: each column left out shortens the prompt."""
        order = least_relevant_first(columns, f"{task.question} {task.evidence}")

        def without(count: int) -> Prompt:
            gone = {id(column) for column in order[:count]}
            prompt = self._prompt(task, [column for column in columns if id(column) not in gone])
            cut = tuple((column.table, column.name) for column in columns if id(column) in gone)
            return replace(prompt, dropped_columns=count, cut_columns=cut)

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

    def _prompt(self, task: SqlTask, columns: Sequence[DescribedColumn]) -> Prompt:
        rendered = self._chat.render(self._messages(self._config, task, self._serialise(columns)))
        return Prompt(
            task=task,
            text=rendered.text,
            token_ids=self._encoder.encode(rendered.parts),
            opened=rendered.opened,
        )
