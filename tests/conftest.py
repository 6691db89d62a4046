"""Shared fixtures: a folder as a training run leaves it, written by the product's own writers."""

import atexit
import gc
import math
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from records.group_metrics import length_metrics, reward_metrics
from records.metrics import StepMetrics
from records.run_folder import LedgerRow, RunFolder
from records.summary import summarise
from rewards.carriers import ErrorKind, RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt, ScoredGroup
from tests.tiny_qwen2 import tiny_qwen2

# CI repeats the same examples, so that a change is judged by itself; everywhere else hypothesis goes on looking.
# No deadline: how long an example takes is the machine's business.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("exploring", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "exploring")


def pytest_collection_finish() -> None:
    """Leaves what was imported out of every later collection of garbage, of which pytest does ten at its end."""
    gc.freeze()
    # Extension modules complain of leaks where the interpreter's own last collection finds nothing.
    atexit.register(gc.unfreeze)


MakeRun = Callable[..., Path]

_SCHEMA = """CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT /* 'Lyon', 'Turin', 'Ghent' */);
CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer_id INTEGER, total REAL, issued TEXT /* '2023-04-01' */);"""
_QUESTIONS = (
    (
        "How many customers live in Lyon?",
        "SELECT COUNT(*) FROM customer WHERE city = 'Lyon'",
        "SELECT COUNT(*) FROM customer",
    ),
    (
        "List the names of customers with an invoice above 500, most expensive first.",
        "SELECT T1.name FROM customer AS T1 JOIN invoice AS T2 ON T1.id = T2.customer_id WHERE T2.total > 500 "
        "ORDER BY T2.total DESC",
        "SELECT name FROM customer JOIN invoice ON customer.id = invoice.customer_id WHERE total > 500",
    ),
    (
        "What is the average invoice total in each city?",
        "SELECT T1.city, AVG(T2.total) FROM customer AS T1 JOIN invoice AS T2 ON T1.id = T2.customer_id "
        "GROUP BY T1.city",
        "SELECT city, AVG(total) FROM customer GROUP BY city",
    ),
)
_ERRORS: tuple[tuple[ErrorKind, str, str], ...] = (
    ("syntax", "SELECT COUNT(*) FORM customer", 'near "FORM": syntax error'),
    ("runtime", "SELECT SUM(9223372036854775807 + id) FROM invoice", "integer overflow"),
    ("timeout", "SELECT COUNT(*) FROM invoice a, invoice b, invoice c", "stopped after 20,000,000 steps"),
)


def _result(choice: random.Random, skill: float, gold: str, wrong: str) -> tuple[str, RewardResult]:
    components: dict[str, float | None]
    if choice.random() < skill:
        components = {"format": 1.0, "execution": 1.0, "atomic": 1.0, "memory": round(choice.random(), 3)}
        return gold, RewardResult(status="scored", total=3.0, components=components, sql=gold, correct=True)
    if choice.random() < 0.4 * (1 - skill):
        kind, sql, message = choice.choice(_ERRORS)
        components = {"format": 1.0, "execution": 0.0, "atomic": 0.2, "memory": None}
        flags = ("atomic_token_fallback",) if kind == "syntax" else ()
        return sql, RewardResult(
            status="scored", total=1.2, components=components, sql=sql, error=message, error_kind=kind, flags=flags
        )
    overlap = round(choice.uniform(0.3, 0.8), 3)
    components = {"format": 1.0, "execution": 0.0, "atomic": overlap, "memory": 0.1}
    return wrong, RewardResult(status="scored", total=1 + overlap, components=components, sql=wrong)


def _group(choice: random.Random, step: int, number: int, skill: float, size: int) -> ScoredGroup:
    question, gold, wrong = _QUESTIONS[(step + number) % len(_QUESTIONS)]
    task = SqlTask(
        id=f"demo-{step * 10 + number}",
        db_id="billing",
        question=question,
        evidence="total is in euros",
        gold_sqls=(gold,),
        databases=("billing.sqlite",),
    )
    text = f"Database Schema:\n{_SCHEMA}\n\nQuestion: {question}"
    prompt = Prompt(task=task, text=text, token_ids=tuple(range(120 + number)))
    completions, results = [], []
    for _ in range(size):
        sql, result = _result(choice, skill, gold, wrong)
        tokens = len(sql) // 2 + (100 if choice.random() < 0.02 else 0)
        completions.append(
            Completion(
                text=f"<think>The question names the tables, so I need to join and filter.</think>\n```sql\n{sql}\n```",
                token_ids=(1,) * tokens,
                logprobs=(-0.1,) * tokens,
                version_spans=((0, step - 1),),
                finish_reason="length" if tokens > 100 else "stop",
            )
        )
        results.append(result)
    group = Group(id=f"0-{step * 10 + number}", prompt=prompt, completions=tuple(completions))
    return ScoredGroup(group=group, results=tuple(results))


def _step_metrics(choice: random.Random, step: int, groups: list[ScoredGroup], steps: int) -> StepMetrics:
    metrics = StepMetrics(step=step, version=step)
    metrics.update(reward_metrics(groups))
    metrics.update(length_metrics(groups))
    drift = choice.uniform(0.9, 1.1)
    metrics.update(
        {
            "policy/loss": -0.02 * drift,
            "policy/entropy": 0.9 * math.exp(-1.5 * step / steps) * drift,
            "policy/kl_old": 0.001 * drift,
            "policy/grad_norm": 0.8 * drift,
            "policy/learning_rate": 3e-4,
            "policy/ratio_mean": 1.0 + 0.002 * (drift - 1),
            "policy/clip_high_share": 0.01 * drift,
            "policy/clip_low_share": 0.006 * drift,
            "mismatch/logp_abs_mean": 0.004 * drift,
            "mismatch/logp_abs_max": 0.12 * drift,
            "mismatch/effective_sample_share": 0.99,
            "perf/generate_s": 2.4 * drift,
            "perf/score_s": 0.3,
            "perf/train_s": 1.9 * drift,
            "perf/sync_s": 0.2,
            "perf/step_s": 5.1 * drift,
            "perf/elapsed_s": 5.1 * step + 20,
            "perf/completions": 256.0,
            "perf/completions_per_s": 50 * drift,
            "perf/tokens_trained": 9000.0,
            "perf/rss_gib": 4.2,
            "async/staleness_mean": 0.0,
            "async/dropped_zero_variance": 3.0,
        }
    )
    return metrics


def _evaluation(progress: float) -> dict[str, float]:
    return {
        "eval/greedy_ex": 0.41 + 0.24 * progress,
        "eval/mean_at_n": 0.33 + 0.29 * progress,
        "eval/recall_at_n": 0.78 + 0.05 * progress,
        "eval/vote_ex": 0.47 + 0.21 * progress,
        "eval/tasks": 320.0,
        "eval/scored": 320.0,
        "eval/n": 30.0,
        "perf/evaluate_s": 18.0,
    }


def write_run(
    path: Path, *, steps: int = 60, asked: int | None = None, samples: bool = True, finished: bool = True, seed: int = 0
) -> Path:
    """A run of `steps` steps that learns; `asked` steps were asked for; unfinished runs have no summary."""
    choice = random.Random(seed)
    with RunFolder(path) as folder:
        folder.write_config(
            f"run:\n  name: {path.name}\nseed: {seed}\nmodel:\n  type: tiny\n  layers: 4\ndata:\n  type: demo\n"
            f"pipeline:\n  steps: {asked or steps}\nalgo:\n  loss:\n    type: dapo\nevaluation:\n  n: 30\n"
        )
        start = StepMetrics(step=0, version=0)
        start.update(_evaluation(0.0))
        folder.write(start.row())
        for step in range(1, steps + 1):
            progress = 1 - math.exp(-2.5 * step / steps)
            groups = [_group(choice, step, number, 0.3 + 0.5 * progress, 8) for number in range(8)]
            metrics = _step_metrics(choice, step, groups, steps)
            if step % 20 == 0 or step == steps:
                metrics.update(_evaluation(progress))
            folder.write(metrics.row())
            folder.write_ledger(LedgerRow(step=step, version=step, trained=(), dropped=()))
            if samples and (step % 10 == 0 or step == 1):
                folder.write_samples(groups[:2], step=step, version=step)
        if finished:
            summary = summarise(
                folder.metrics(),
                status="finished",
                wall_s=5.1 * steps + 60,
                n=30,
                selection="value_aware",
                seed=seed,
                versions={"python": "3.11", "vllm": "0.32.0", "ray": "2.60.0"},
            )
            folder.finish(summary)
    return path


@pytest.fixture
def make_run() -> MakeRun:
    """Writes a realistic run folder: make_run(path, steps=60, asked=None, samples=True, finished=True, seed=0)."""
    return write_run


def write_tiny_policy(folder: Path) -> Path:
    """A Qwen2 with random weights (hidden 128, 4 layers, 2 heads of 64, tied embeddings) and a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"word{index}" for index in range(441))):
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.save_pretrained(folder)
    shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
    tokens = {"eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id, "bos_token_id": None}
    model = tiny_qwen2(vocab_size=len(vocabulary), initializer_range=0.05, **shape, **tokens)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face folder of a tiny random policy of 700 tokens, for tests with real engines."""
    return write_tiny_policy(tmp_path_factory.mktemp("policy"))
