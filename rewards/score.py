"""Offline scoring: python -m rewards.score input=CASES.jsonl databases=ROOT output=SCORES.jsonl [reward=finer|strict]

Reads {"id", "db_id", "gold_sqls": [..], "completion", "denotation": "bird"|"spider"} a line, with "thinking_opened":
true where the prompt ended in an open <think>, and "thinking": false where it asks for none, so that plain SQL is not
0. Writes one line for each, in order: {"id", "status", "components", "total", "sql", "error", "error_kind"}, "flags"
where there are remarks, "form" where the completion's form costs it its total, and "cause" (data, policy or
infrastructure) of an unscorable one. How many lost their total by their form is printed. A line that is not valid JSON
or lacks a field is reported on stderr with its number, the others are scored, and the exit code is 1. The memory store
is empty unless reward.memory.store=FILE is given, and is never changed here.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from conf.cli import run_entrypoint
from conf.errors import QuorumError
from conf.output import refuse_input
from conf.schema.score import ScoreConfig
from conf.terminal import visible
from rewards.builder import open_scorer
from rewards.carriers import RewardResult
from rewards.cases import BadLine, Case, read_cases
from rewards.preflight import check_rewards
from rewards.scorer import ScoreJob, Scorer

ADVICE = 'where the prompt asks for no <think>, give lines "thinking": false, or set reward.format.thinking=false'
STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def as_record(identity: object, result: RewardResult) -> dict[str, object]:
    """The JSON object of one scored completion."""
    record: dict[str, object] = {
        "id": identity,
        "status": result.status,
        "components": {name: _plain(value) for name, value in result.components.items()},
        "total": result.total,
        "sql": result.sql,
        "error": result.error,
        "error_kind": result.error_kind,
    }
    if result.cause is not None:
        record["cause"] = result.cause
    if result.form is not None:
        record["form"] = result.form
    return record | ({"flags": list(result.flags)} if result.flags else {})


def run(config: ScoreConfig) -> int:
    """Scores the file; 0, or 1 when lines were left out."""
    source, root = Path(config.input), Path(config.databases)
    if not source.is_file():
        raise QuorumError(f"input={source}: no such file")
    if not root.is_dir():
        raise QuorumError(f"databases={root}: no such folder")
    refuse_input("output", Path(config.output), {"input": source, "reward.memory.store": config.reward.memory.store})
    check_rewards(config.reward)
    try:
        # The scorer first: what it refuses costs no file that is there already.
        with open_scorer(config.reward) as scorer, source.open("rb") as lines:
            with open(config.output, "w", encoding="utf-8") as out:
                bad, forms = _score(read_cases(lines, root), scorer, config.batch_lines, out)
    except OSError as error:
        raise QuorumError(f"{error.filename or config.output}: {error.strerror}") from error
    told = sys.stderr if config.output in STDOUT else sys.stdout
    told.writelines(f"{line}\n" for line in _summary(forms))
    return 1 if bad else 0


def _score(
    items: Iterable[Case | BadLine], scorer: Scorer, batch_lines: int, out: TextIO
) -> tuple[int, Counter[tuple[str, bool]]]:
    """Lines left out, and how often each fault of the form cost a total, apart for right answers."""
    bad, forms = 0, Counter[tuple[str, bool]]()
    for batch in _batches(items, batch_lines):
        cases = [item for item in batch if isinstance(item, Case)]
        for item in batch:
            if isinstance(item, BadLine):
                bad += 1
                sys.stderr.write(f"line {item.number}: {visible(item.reason)}\n")
        results = scorer.score_batch([ScoreJob(task=case.task, completions=[case.completion]) for case in cases])
        for case, (result,) in zip(cases, results, strict=True):
            out.write(json.dumps(as_record(case.id, result)) + "\n")
            if result.form is not None:
                forms[result.form, result.correct] += 1
    return bad, forms


def _summary(forms: Counter[tuple[str, bool]]) -> list[str]:
    """A line for each fault of the form, and what to do about it."""
    lines = [
        f"{count} completions{', right ones,' if right else ''} lost their total by their form: {fault}"
        for (fault, right), count in forms.most_common()
    ]
    return [*lines, ADVICE] if lines else []


def _batches(items: Iterable[Case | BadLine], size: int) -> Iterator[list[Case | BadLine]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _plain(value: float | None) -> float | int | None:
    """Whole numbers without a fraction: execution is 2, not 2.0."""
    return int(value) if value is not None and value.is_integer() else value


if __name__ == "__main__":
    sys.exit(run_entrypoint(ScoreConfig, "score", run, __doc__ or "", sys.argv[1:]))
