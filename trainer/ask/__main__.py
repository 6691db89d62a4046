"""`python -m trainer.ask RUN --db FILE "question"`: the voted SQL, its result, and how many candidates agree."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import QuorumError
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rewards.sql.schema import DatabaseUnreadable, read_schema
from rollout.prompt import PromptRenderer
from rollout.prompt.tokenizer import load_tokenizer
from trainer.ask.answer import Answer, choose
from trainer.finished import Trained, trained

SHOWN_ROWS = 20


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.ask", description="Ask a trained policy one question.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    parser.add_argument("question")
    parser.add_argument("--db", type=Path, required=True, help="SQLite file; it is only read")
    parser.add_argument("--evidence", default="", help="external knowledge, as in BIRD")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--n", type=int, help="candidates (default: as in the run's evaluation)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def ask(chosen: Trained, arguments: argparse.Namespace) -> Answer:
    """Raises QuorumError."""
    config = chosen.config
    task = SqlTask(
        id="ask",
        db_id=arguments.db.stem,
        question=arguments.question,
        evidence=arguments.evidence,
        gold_sqls=(),
        databases=(str(arguments.db.resolve()),),
    )
    prompt = PromptRenderer(config.prompt, load_tokenizer(chosen.policy)).render(task)
    from trainer.ask.engine import sample

    n = arguments.n or config.evaluation.n
    completions = sample(chosen, prompt, n=n, seed=arguments.seed, log=None)
    with ExecutorPool(config.reward.server.executors) as executors:
        return choose(
            completions,
            database=task.databases[0],
            question=task.question,
            voter=config.evaluation.selection,
            denotation=config.data.denotation,
            reward=config.reward,
            executors=executors,
            opened=prompt.opened,
        )


def check_database(file: Path) -> None:
    """Raises QuorumError for what no question can be asked about, before an engine starts."""
    if not file.is_file():
        raise QuorumError(f"--db {file}: no such file")
    try:
        schema = read_schema(file)
    except DatabaseUnreadable as error:
        raise QuorumError(f"--db: {error}") from error
    if not schema.tables:
        raise QuorumError(f"--db {file} holds no table that can be read")


def show(answer: Answer, console: Console) -> None:
    """The query, the first rows of its result, and the agreement."""
    console.print(answer.sql, markup=False, highlight=False, soft_wrap=True)
    execution = answer.execution
    table = Table(*execution.columns)
    for row in execution.rows[:SHOWN_ROWS]:
        table.add_row(*("NULL" if value is None else str(value) for value in row))
    console.print(table)
    if len(execution.rows) > SHOWN_ROWS:
        console.print(f"... {len(execution.rows) - SHOWN_ROWS} more rows")
    console.print(
        f"{answer.agreeing} of {answer.asked} candidates agree on this result; {answer.ran} ran", highlight=False
    )


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.n is not None and arguments.n < 1:
            raise QuorumError("--n must be at least 1")
        check_database(arguments.db)
        show(ask(trained(arguments.run, arguments.checkpoint), arguments), Console())
    except QuorumError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
