"""From loaded tasks to what a run trains and evaluates on, in two steps around the warm-up: databases and golds checked
before anything is imitated, then prompts rendered with the policy's tokenizer and a stream of the rest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from conf.schema.reward import RewardConfig
from conf.schema.root import TrainConfig
from conf.schema.stages import EvaluationConfig
from records.checkpoint import Checkpoint, damaged
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt import PromptRenderer
from rollout.prompt.cut import CutPrompt, cut_prompts, cut_sentence
from rollout.prompt.described import SchemaReader
from rollout.prompt.tokenizer import load_tokenizer
from rollout.tasks import DataError, Dropped, Stream, StreamDamaged, TaskSet, build_stream
from rollout.tasks.check import Checked, check_databases, check_golds, check_prompts
from trainer.evaluate import judging

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    stream: Stream
    prompts: dict[str, Prompt]
    """Rendered training prompts by task id."""
    heldout: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...]
    """Tasks and single golds that were left out, with the reason."""
    cut: Mapping[str, tuple[CutPrompt, ...]] = field(default_factory=dict)
    """Prompts that show a part of their schema, of "training" and of "held-out" tasks."""

    def cut_sentences(self, limit: int, file: Path) -> Iterator[str]:
        """What the budget prompt.max_tokens=`limit` leaves out, a sentence a split; `file` lists it all."""
        for of, prompts in (("training", tuple(self.prompts.values())), ("held-out", self.heldout)):
            if cut := self.cut.get(of):
                yield cut_sentence(cut, prompts=prompts, of=of, limit=limit, file=file)

    def prompt_at(self, position: int) -> Prompt:
        """The prompt of a position of the stream."""
        return self.prompts[self.stream.task_at(position).id]


def checked(config: TrainConfig, tasks: TaskSet) -> TaskSet:
    """The tasks whose database can be read and whose golds count, and what is left out with the reason. Training tasks
    are asked under the run's reward, held-out tasks under the rule that evaluations judge by.

    A warm-up task that is no training task and has a trace is imitated through that, so its gold need not run. Raises
    DataError when no training task remains.
    """
    imitated = [task for task in tasks.warmup if task.id not in tasks.traces]
    learned = {task.id: task for task in (*tasks.train, *imitated)}
    with ExecutorPool(config.reward.server.executors) as pool:
        train = _check(tuple(learned.values()), config, config.reward, pool)
        heldout = _check(tasks.heldout, config, judging(config.reward, config.evaluation.instances), pool)
    dropped = (*tasks.dropped, *train.dropped, *heldout.dropped)
    good = {task.id: task for task in train.tasks}
    usable = {task.id: task for task in tasks.warmup if task.id not in learned} | good
    return replace(
        tasks,
        warmup=tuple(usable[task.id] for task in tasks.warmup if task.id in usable),
        train=_remaining([good[task.id] for task in tasks.train if task.id in good], len(tasks.train), dropped),
        heldout=heldout.tasks,
        dropped=dropped,
    )


def check_heldout(config: EvaluationConfig, heldout: Sequence[object]) -> None:
    """Raises DataError when evaluations are asked for and nothing is held out."""
    if not heldout and (config.before or config.after or config.every):
        raise DataError(
            "evaluation needs held-out tasks and none remains: name a held-out file, or train without with "
            "evaluation=none evaluation.every=0"
        )


def rendered(config: TrainConfig, tasks: TaskSet, policy: Path) -> PreparedData:
    """The stream and the prompts of checked tasks. Raises DataError when nothing remains to train or evaluate on,
    QuorumError for an unusable tokenizer."""
    renderer = PromptRenderer(config.prompt, load_tokenizer(policy))
    train, too_long = check_prompts(tasks.train, renderer.render)
    heldout, heldout_too_long = check_prompts(tasks.heldout, renderer.render)
    dropped = (*tasks.dropped, *too_long, *heldout_too_long)
    remaining = _remaining(train, len(tasks.train), dropped)
    check_heldout(config.evaluation, heldout)
    return PreparedData(
        stream=build_stream(
            config.algo.sampler,
            [prompt.task for prompt in remaining],
            seed=config.seed,
            group_size=config.rollout.group_size,
        ),
        prompts={prompt.task.id: prompt for prompt in train},
        heldout=tuple(heldout),
        dropped=dropped,
        cut={"training": cut_prompts(train), "held-out": cut_prompts(heldout)},
    )


def restore(stream: Stream, checkpoint: Checkpoint) -> None:
    """Lets the stream go on where the checkpoint left it. Raises StreamMismatch for one of other tasks,
    CheckpointInvalid for one that is damaged."""
    state = checkpoint.stream_state()
    if state is None:
        return
    try:
        stream.load_state_dict(state)
    except StreamDamaged as error:
        raise damaged(checkpoint.stream, checkpoint.folder, str(error)) from error


def _check(tasks: Sequence[SqlTask], config: TrainConfig, reward: RewardConfig, pool: ExecutorPool) -> Checked:
    readable = check_databases(tasks, SchemaReader(config.prompt.example_values).read)
    golds = check_golds(readable.tasks, pool=pool, reward=reward)
    return Checked(tasks=golds.tasks, dropped=readable.dropped + golds.dropped)


def _remaining(train: Sequence[T], asked: int, dropped: Sequence[Dropped]) -> tuple[T, ...]:
    if not train:
        raise DataError(f"no training task remains of {asked}; first: {dropped[0].reason} ({dropped[0].detail})")
    return tuple(train)
