"""From the configured source to what a run trains and evaluates on: checked, rendered tasks and their stream."""

from dataclasses import dataclass
from functools import cached_property

from conf.schema.root import TrainConfig
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt.renderer import PromptRenderer, PromptTooLong
from rollout.tasks.carriers import DataError, Dropped, TaskSet
from rollout.tasks.check import check_golds
from rollout.tasks.stream import TaskStream


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    stream: TaskStream
    heldout: tuple[Prompt, ...]
    prompts: dict[str, Prompt]
    """Rendered training prompts by task id."""
    dropped: tuple[Dropped, ...]

    def prompt_at(self, position: int) -> Prompt:
        """The prompt of any position of the stream."""
        return self.prompts[self.stream.task_at(position).id]

    @cached_property
    def longest_prompt(self) -> int:
        """Tokens."""
        return max(len(prompt.token_ids) for prompt in (*self.prompts.values(), *self.heldout))
