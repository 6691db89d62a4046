"""From loaded tasks to what a run trains and evaluates on: golds checked, prompts rendered, a stream of the rest."""

from dataclasses import dataclass
from pathlib import Path

from conf.schema.root import TrainConfig
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt import PromptRenderer
from rollout.prompt.tokenizer import load_tokenizer
from rollout.tasks import DataError, Dropped, Stream, TaskSet, build_stream
from rollout.tasks.check import check_golds, check_prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    stream: Stream
    prompts: dict[str, Prompt]
    """Rendered training prompts by task id."""
    heldout: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...]
    """Tasks and single golds that were left out, with the reason."""

    def prompt_at(self, position: int) -> Prompt:
        """The prompt of a position of the stream."""
        return self.prompts[self.stream.task_at(position).id]


def prepare(config: TrainConfig, tasks: TaskSet, policy: Path) -> PreparedData:
    """Raises DataError when no training task remains, QuorumError for an unusable tokenizer."""
    renderer = PromptRenderer(config.prompt, load_tokenizer(policy))
    execution = config.reward.execution
    dropped = list(tasks.dropped)
    usable: list[list[Prompt]] = []
    with ExecutorPool(config.reward.server.executors) as pool:
        for split in (tasks.train, tasks.heldout):
            checked = check_golds(split, pool=pool, budget=execution.budget, instances=execution.instances)
            prompts, too_long = check_prompts(checked.tasks, renderer.render)
            dropped += [*checked.dropped, *too_long]
            usable.append(prompts)
    train, heldout = usable
    if not train:
        raise DataError(
            f"no training task remains of {len(tasks.train)}; first: {dropped[0].reason} ({dropped[0].detail})"
        )
    return PreparedData(
        stream=build_stream(
            config.algo.sampler,
            [prompt.task for prompt in train],
            seed=config.seed,
            group_size=config.rollout.group_size,
        ),
        prompts={prompt.task.id: prompt for prompt in train},
        heldout=tuple(heldout),
        dropped=tuple(dropped),
    )
