"""`python -m trainer.ask RUN --db FILE "question"`: the voted SQL, its result, and how many candidates agree."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import QuorumError
from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt import PromptRenderer
from rollout.prompt.cut import printable
from rollout.prompt.described import quoted
from rollout.prompt.tokenizer import load_tokenizer
from trainer.ask.answer import Answer, choose
from trainer.finished import Trained, trained

SHOWN_ROWS = 20
SHOWN_COLUMNS = 10
"""Names of columns in a sentence."""


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
    renderer = PromptRenderer(config.prompt, load_tokenizer(chosen.policy))
    prompt = renderer.render(task)
    sys.stderr.write("".join(f"{line}\n" for line in (renderer.remark, unshown(prompt, config.prompt)) if line))
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


def unshown(prompt: Prompt, config: PromptConfig) -> str:
    """A sentence on the columns that the policy does not see; '' where it sees all."""
    if not prompt.cut_columns:
        return ""
    names = ", ".join(f"{quoted(table)}.{quoted(column)}" for table, column in prompt.cut_columns[:SHOWN_COLUMNS])
    more = ", ..." if len(prompt.cut_columns) > SHOWN_COLUMNS else ""
    return printable(
        f"the policy does not see {len(prompt.cut_columns)} columns of this database: the prompt would take "
        f"{prompt.whole_tokens} tokens, and the run was trained with prompt.max_tokens={config.max_tokens} (raise it "
        f"in the next one); left out: {names}{more}"
    )


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
        show(ask(trained(arguments.run, arguments.checkpoint), arguments), Console())
    except QuorumError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
