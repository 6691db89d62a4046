"""`python -m operate.ask RUN --db FILE "question"`: the voted SQL, its result, and how many candidates agree."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.segment import Segment, Segments

from conf.errors import QuorumError
from conf.schema.prompt import PromptConfig
from conf.terminal import table, tell, visible
from operate.ask.answer import Answer, choose
from operate.trained_run import Trained, trained
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rewards.sql.schema import DatabaseUnreadable, read_schema
from rollout.carriers import Prompt
from rollout.prompt import PromptRenderer
from rollout.prompt.described import quoted
from rollout.prompt.tokenizer import load_tokenizer

SHOWN_ROWS = 20
SHOWN_COLUMNS = 10
"""Names of columns in a sentence."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m operate.ask", description="Ask a trained policy one question.")
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
    from operate.ask.engine import sample

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


def unshown(prompt: Prompt, config: PromptConfig) -> str:
    """A sentence on the columns that the policy does not see; '' where it sees all."""
    if not prompt.cut_columns:
        return ""
    names = ", ".join(f"{quoted(table)}.{quoted(column)}" for table, column in prompt.cut_columns[:SHOWN_COLUMNS])
    more = ", ..." if len(prompt.cut_columns) > SHOWN_COLUMNS else ""
    return visible(
        f"the policy does not see {len(prompt.cut_columns)} columns of this database: the prompt would take "
        f"{prompt.whole_tokens} tokens, and the run was trained with prompt.max_tokens={config.max_tokens} (raise it "
        f"in the next one); left out: {names}{more}"
    )


def show(answer: Answer, console: Console) -> None:
    """The query, the first rows of its result with their values whole, and the agreement."""
    execution = answer.execution
    lines = [visible(answer.sql, lines=True), ""]
    lines += table(execution.columns, execution.rows[:SHOWN_ROWS], width=console.width)
    if not execution.rows:
        lines.append("no rows")
    if len(execution.rows) > SHOWN_ROWS:
        lines.append(f"... {len(execution.rows) - SHOWN_ROWS} more rows")
    lines += ["", f"{answer.agreeing} of {answer.asked} candidates agree on this result; {answer.ran} ran"]
    # Segments are written as they are: nothing in them is markup, and no line is folded, cut or indented anew.
    console.print(Segments([Segment("".join(f"{line}\n" for line in lines))]), end="", crop=False)


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.n is not None and arguments.n < 1:
            raise QuorumError("--n must be at least 1")
        check_database(arguments.db)
        show(ask(trained(arguments.run, arguments.checkpoint), arguments), Console())
    except QuorumError as error:
        return tell(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
