"""The reference's way of scoring, as a baseline: one HTTP request a candidate, pandas, one after the other.

A server process opens the database anew for each request, reads the result with pandas and answers rows as JSON
records; the client asks for one candidate at a time, compares records with the gold's (whose result it caches) and
parses both queries for their overlap. No duplicate is recognised and nothing is batched. Kept as quick as this way can
be: a local server, no journal, no artificial waits. Its verdicts have the reference's defects; only its speed is of
interest here.
"""

import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import sqlglot
from sqlglot.errors import SqlglotError

from benchmarks.reward_speed.throughput import count, score_all
from benchmarks.reward_speed.workload import GROUP, group_jobs
from conf.schema.reward import MemoryReward, RewardConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from rewards.components.format import extract
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool
from rewards.sql.parse import clear_caches

REQUEST_S = 30.0


class _Execute(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        import pandas  # type: ignore[import-untyped]

        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        connection = sqlite3.connect(f"file:{request['database']}?mode=ro", uri=True)
        try:
            frame = pandas.read_sql_query(request["sql"], connection)
            answer = {"rows": frame.astype(object).where(frame.notna(), "").to_dict(orient="records")}
        except (pandas.errors.DatabaseError, TypeError, ValueError) as error:
            answer = {"error": str(error)}
        finally:
            connection.close()
        body = json.dumps(answer, default=str).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


def _serve(pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Execute)
    pipe.send(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        pipe.recv()
    except EOFError:
        pass  # the client is gone
    server.shutdown()


@contextmanager
def _server() -> Iterator[str]:
    """The address of a running executor server."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("the reference's server did not start within 60 s")
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.send("stop")
        process.join(10)
        process.kill()


class ReferenceScorer:
    """Scores one candidate at a time over HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._golds: dict[tuple[str, str], Any] = {}

    def score(self, job: ScoreJob) -> list[float]:
        return [self._one(job, completion) for completion in job.completions]

    def _one(self, job: ScoreJob, completion: str) -> float:
        extraction = extract(completion, RewardConfig().format)
        database, gold = job.task.databases[0], job.task.gold_sqls[0]
        if (database, gold) not in self._golds:
            self._golds[database, gold] = self._execute(database, gold)
        answer = self._execute(database, extraction.sql or "")
        if answer == self._golds[database, gold]:
            return 4.0
        return 1.0 + ("rows" in answer) + _overlap(gold, extraction.sql or "")

    def _execute(self, database: str, sql: str) -> Any:
        body = json.dumps({"database": database, "sql": sql}).encode()
        request = urllib.request.Request(self._address, data=body)
        with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
            return json.loads(response.read())


def _overlap(gold: str, predicted: str) -> float:
    try:
        left, right = (
            {node.sql() for node in sqlglot.parse_one(sql, dialect="sqlite").walk() if node.key != "identifier"}
            for sql in (gold, predicted)
        )
    except SqlglotError:
        return 0.0
    return len(left & right) / len(left | right)


def measure(config: RewardBenchmarkConfig) -> dict[str, float]:
    """Both ways on the same groups with cold caches."""
    groups = max(1, config.reference_completions // GROUP)
    jobs = group_jobs(config.root, "spider", groups, config.seed)
    with _server() as address:
        baseline = ReferenceScorer(address)
        baseline.score(ScoreJob(task=jobs[0].task, completions=jobs[0].completions[:1]))
        start = time.perf_counter()
        for job in jobs:
            baseline.score(job)
        reference = count(jobs) / (time.perf_counter() - start)
    ours = _ours(config, jobs)
    return {"completions": count(jobs), "reference_per_s": reference, "ours_per_s": ours, "ratio": ours / reference}


def _ours(config: RewardBenchmarkConfig, jobs: Sequence[ScoreJob]) -> float:
    settings = RewardConfig(memory=MemoryReward(enabled=False))
    with ExecutorPool(config.executors) as pool:
        Scorer(settings, pool).score_batch(jobs[:1])
        clear_caches()
        return count(jobs) / score_all(Scorer(settings, pool), jobs)
