"""One benchmark run: questions in, answers from their source, judgement block by block, files out."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.carriers import Answer, Answers, Judged, Question, QuestionSet
from benchmarks.folder import SCORES, held, refuse_results, write_whole
from benchmarks.predictions import candidate_lines
from benchmarks.report.page import write_report
from benchmarks.scores import Summary, summarise
from conf.load import to_yaml
from conf.schema.benchmark import BenchmarkConfig
from conf.schema.data import Denotation
from conf.terminal import visible

BLOCK_CANDIDATES = 2000
"""Candidates judged together: enough to keep the executors busy, few enough to hold their results in memory."""


class Judge(Protocol):
    def judge(self, questions: Sequence[Question], answers: Sequence[Answer]) -> Iterator[Judged]: ...


class Benchmark(Protocol):
    """What Spider and BIRD tell the common run."""

    name: Denotation
    metrics: tuple[str, ...]
    """Verdict fields that are averaged; the first is the headline."""
    levels: tuple[str, ...]

    def judging(self, questions: QuestionSet) -> AbstractContextManager[Judge]: ...

    def write_official(self, output: Path, questions: Sequence[Question], chosen: Sequence[str]) -> None: ...


def run(
    config: BenchmarkConfig,
    benchmark: Benchmark,
    questions: QuestionSet,
    answer: Callable[[Path], Answers],
) -> int:
    """Writes all files of the run into config.output and prints the scores; returns the exit code.

    `answer` yields one answer a question and may keep its own progress in the output folder. Raises BenchmarkError.
    """
    with held(config.output) as output:
        refuse_results(config.output, generates=config.predictions is None)
        return _run(config, benchmark, questions, answer, output)


def _run(
    config: BenchmarkConfig,
    benchmark: Benchmark,
    questions: QuestionSet,
    answer: Callable[[Path], Answers],
    output: Path,
) -> int:
    started = time.perf_counter()
    answers = answer(output)
    scoring = time.perf_counter()
    with benchmark.judging(questions) as judge:
        judged = list(_blocks(judge, questions.questions, answers.answers))
    summary: Summary = {
        "benchmark": benchmark.name,
        "data": questions.name,
        "source": answers.source,
        "selection": config.selection,
        "limit": config.limit,
    }
    summary |= summarise(judged, answers, benchmark.metrics, benchmark.levels)
    benchmark.write_official(output, questions.questions, [j.verdict["sql"] for j in judged])
    _write_lines(output / "verdicts.jsonl", [j.verdict for j in judged])
    key = next(iter(judged[0].verdict))
    candidates = candidate_lines(key, questions.questions, answers.answers, benchmark.name)
    _write_lines(output / "candidates.jsonl", candidates)
    write_whole(output / "config.yaml", to_yaml(config))
    summary["seconds"] = {
        "start": round(answers.start_s, 3),
        "generate": round(answers.seconds, 3),
        "score": round(time.perf_counter() - scoring, 3),
        "all": round(time.perf_counter() - started, 3),
    }
    write_report(output / "report.html", summary, judged, benchmark.metrics)
    # Written last: a folder with scores.json holds one whole run.
    write_whole(output / SCORES, json.dumps(summary, indent=1) + "\n")
    _print(summary, benchmark.metrics, output)
    return 0


def _blocks(judge: Judge, questions: Sequence[Question], answers: Sequence[Answer]) -> Iterator[Judged]:
    start = 0
    while start < len(questions):
        end, candidates = start, 0
        while end < len(questions) and (end == start or candidates < BLOCK_CANDIDATES):
            candidates += len(answers[end].candidates)
            end += 1
        yield from judge.judge(questions[start:end], answers[start:end])
        start = end


def _write_lines(file: Path, lines: Iterable[dict[str, Any]]) -> None:
    write_whole(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _print(summary: Summary, metrics: Sequence[str], output: Path) -> None:
    """The few numbers that matter, one a line."""
    parts = {"all": summary["totals"], **summary["by_level"]}
    width = max(map(len, metrics))
    head = "".join(f"{name} ({part['questions']})".rjust(20) for name, part in parts.items())
    lines = [
        f"{summary['data']}: {summary['questions']} questions, selection {summary['selection']}, n={summary['n']}",
        " " * width + head,
    ]
    for metric in metrics:
        cells = (f"{100 * part[metric]['mean']:.2f}" if part[metric] else "-" for part in parts.values())
        lines.append(metric.ljust(width) + "".join(cell.rjust(20) for cell in cells))
    if summary["n"] > 1:
        recall, mean = 100 * summary["recall_at"][-1], 100 * summary["mean_at_n"]["mean"]
        lines.append(f"recall@{summary['n']} {recall:.2f}, mean@n {mean:.2f}")
    if summary["unscorable"] == summary["questions"]:
        lines.append("no question could be scored: there is no accuracy")
    elif summary["unscorable"]:
        lines.append(f"{summary['unscorable']} questions could not be scored and are left out of every mean")
    if summary["incomplete"]:
        lines.append(f"{summary['incomplete']} questions lost answers: left out of recall, pass, mean@n and voters")
    if summary["gold_errors"]:
        lines.append(f"{len(summary['gold_errors'])} gold queries failed: {summary['gold_errors'][:10]}")
    tokens = summary["tokens"]
    if any(tokens.values()):
        requests = f" in {summary['requests']} requests" if summary["requests"] else ""
        lines.append(f"{tokens['prompt']} prompt tokens and {tokens['completion']} completion tokens{requests}")
    lines.append(f"{summary['seconds']['all']:.1f} s; {output / 'report.html'}")
    sys.stdout.writelines(f"{visible(line)}\n" for line in lines)
