"""The files that the official scripts take, so that anyone can check a run."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.carriers import Question
from benchmarks.folder import write_whole
from benchmarks.metrics.spider.text import PIECES
from benchmarks.pairing import BIRD_MARK
from benchmarks.predictions import NO_ANSWER


def one_line(sql: str) -> str:
    """The same query without comments, tabs and line ends, as a line of a prediction file needs it."""
    if not re.search(r"[\n\r\t]", sql):
        return sql.strip() or NO_ANSWER
    pieces = (" " if piece.startswith(("--", "/*")) else piece for piece in PIECES.findall(sql))
    return re.sub(r"[\n\r\t]+", " ", "".join(pieces)).strip() or NO_ANSWER


def write_spider(output: Path, questions: Sequence[Question], chosen: Sequence[str]) -> None:
    """`official/predict.txt` and `official/gold.txt` for evaluation.py of test-suite-sql-eval."""
    folder = output / "official"
    folder.mkdir(exist_ok=True)
    write_whole(folder / "predict.txt", "".join(f"{one_line(sql)}\n" for sql in chosen))
    write_whole(folder / "gold.txt", "".join(f"{one_line(q.gold)}\t{q.db_id}\n" for q in questions))


def write_bird(output: Path, questions: Sequence[Question], chosen: Sequence[str]) -> None:
    """`official/predict_dev.json`, `official/gold.sql` and `official/questions.jsonl` for mini_dev's evaluation
    scripts.
    """
    folder = output / "official"
    folder.mkdir(exist_ok=True)
    # The official scripts take the entries in their order; mini-dev's ids repeat, so its entries are named by place.
    by_id = len({str(q.key) for q in questions}) == len(questions)
    names = [str(q.key if by_id else q.position) for q in questions]
    predictions = {n: f"{sql}{BIRD_MARK}{q.db_id}" for n, q, sql in zip(names, questions, chosen, strict=True)}
    write_whole(folder / "predict_dev.json", json.dumps(predictions, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "gold.sql", "".join(f"{one_line(q.gold)}\t{q.db_id}\n" for q in questions))
    lines = (
        json.dumps({"question_id": q.key, "db_id": q.db_id, "question": q.question, "difficulty": q.difficulty})
        for q in questions
    )
    write_whole(folder / "questions.jsonl", "".join(f"{line}\n" for line in lines))
