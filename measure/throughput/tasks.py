"""The data of a comparison: prompts in the order in which the trainer takes them, and a job of long prompts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from conf.schema.data import DemoData
from conf.schema.prompt import PromptConfig
from conf.schema.root import TrainConfig
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt import ChatTokenizer, PromptRenderer
from rollout.tasks import TaskStream, load_tasks
from rollout.tasks.check import check_golds, check_prompts


def prompts_of(config: TrainConfig, tokenizer: ChatTokenizer, pool: ExecutorPool, *, count: int) -> list[Prompt]:
    """The first `count` prompts that a run of `config` trains on. Raises DataError."""
    renderer = PromptRenderer(config.prompt, tokenizer)
    checked = check_golds(load_tasks(config.data).train, pool=pool, reward=config.reward)
    prompts, _ = check_prompts(checked.tasks, renderer.render)
    by_id = {prompt.task.id: prompt for prompt in prompts}
    stream = TaskStream([prompt.task for prompt in prompts], config.seed)
    return [by_id[stream.task_at(position).id] for position in range(count)]


def write_long_tasks(
    file: Path, tokenizer: ChatTokenizer, prompt: PromptConfig, data: DemoData, *, tokens: int, count: int
) -> None:
    """Demo questions whose evidence is long enough for prompts of `tokens` tokens, or a few less.

    The evidence is made of other questions, so that it consists of words which the tokenizer knows.
    """
    tasks = load_tasks(data).train
    # No budget: what is too long is seen by its length, not by columns left out.
    renderer = PromptRenderer(prompt.model_copy(update={"max_tokens": 2**20}), tokenizer)
    with file.open("w", encoding="utf-8") as out:
        for index, task in enumerate(tasks[:count]):
            words = _words(tasks, index)
            evidence = _fitting(renderer, task, [next(words) for _ in range(tokens)], tokens)
            row = {
                "id": f"{task.id}-long",
                "databases": [str(Path(database).resolve()) for database in task.databases],
                "question": task.question,
                "evidence": evidence,
                "sql": list(task.gold_sqls),
            }
            out.write(json.dumps(row) + "\n")


def _words(tasks: Sequence[SqlTask], start: int) -> Iterator[str]:
    """Words of the questions after `start`, round and round."""
    while True:
        start += 1
        yield from tasks[start % len(tasks)].question.split()


def _fitting(renderer: PromptRenderer, task: SqlTask, words: Sequence[str], tokens: int) -> str:
    """As many of `words` as keep the prompt within `tokens`, by bisection."""
    few, many = 0, len(words) + 1
    while many - few > 1:
        middle = (few + many) // 2
        longer = SqlTask(
            id=task.id,
            db_id=task.db_id,
            question=task.question,
            evidence=" ".join(words[:middle]),
            gold_sqls=task.gold_sqls,
            databases=task.databases,
        )
        if len(renderer.render(longer).token_ids) <= tokens:
            few = middle
        else:
            many = middle
    return " ".join(words[:few])
