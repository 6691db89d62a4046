"""Demo questions as tasks, in three splits that share neither a question's text nor a gold query."""

from collections.abc import Sequence
from typing import Literal

from conf.schema.data import DemoData
from rewards.carriers import SqlTask
from rollout.tasks.carriers import TaskSet
from rollout.tasks.demo.databases import build_databases
from rollout.tasks.demo.questions import distinct_questions
from rollout.tasks.demo.spec import Spec, question, sql
from rollout.tasks.demo.teacher import answer


def load_demo(config: DemoData) -> TaskSet:
    """Builds the databases if needed and generates the questions, from the configuration alone. Raises DataError."""
    databases = build_databases(config.root, config.seed)
    specs = distinct_questions(config.seed, config.warmup_size + config.train_size + config.heldout_size)

    def tasks(split: Literal["warmup", "train", "heldout"], part: Sequence[Spec]) -> tuple[SqlTask, ...]:
        return tuple(
            SqlTask(
                id=f"demo-{split}-{index}",
                db_id=spec.domain.db_id,
                question=question(spec),
                gold_sqls=(sql(spec),),
                databases=databases[spec.domain.db_id],
                denotation=config.denotation,
                split=split,
                difficulty=spec.kind,
            )
            for index, spec in enumerate(part)
        )

    heldout_end = config.heldout_size
    train_end = heldout_end + config.train_size
    warmup = tasks("warmup", specs[train_end:])
    return TaskSet(
        warmup=warmup,
        train=tasks("train", specs[heldout_end:train_end]),
        heldout=tasks("heldout", specs[:heldout_end]),
        traces={task.id: answer(spec, config.seed) for task, spec in zip(warmup, specs[train_end:], strict=True)},
    )
