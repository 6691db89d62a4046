"""What the stages cost, in seconds: fitted to the rows of measured runs, or taken from a plan's assumptions. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rollout.shape import ModelShape
from trainer.plan.estimate import (
    Device,
    Learner,
    Rollout,
    Work,
    kv_bytes_per_token,
    train_seconds,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCosts:
    """One rollout worker."""

    fixed_s: float
    """Of one decoding step."""
    each_s: float
    """Of one decoding step, for each running sequence."""
    prompt_token_s: float
    slots: int
    """Sequences that run at once."""
    cores: float
    """Cores that it asks for while it generates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    engine: EngineCosts
    train_fixed_s: float
    train_token_s: float
    """For each completion token that is trained on, all ranks together: prompts are in it, and that equal completions
    are forwarded once."""
    learner_cores: float
    score_group_s: float
    scorers: int
    """Groups that are scored at once."""
    sync_s: float
    completion_s: float
    """The driver's own time for each completion of a step, between stages."""
    lengths: tuple[int, ...]
    """Completion lengths to draw from, tokens."""
    prompt_tokens: int
    equal_share: float
    """Groups whose rewards are all equal."""


Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How the measured runs used their cores."""

    engine_threads: int
    learner_threads: int
    max_num_seqs: int
    scorers: int


def measured(steps: Sequence[tuple[Row, float]], lengths: Sequence[int], machine: Machine) -> Costs:
    """Fitted to (metrics row, wall seconds) of steps in which generation and training took turns.

    Engine: generate_s = fixed x longest completion + each x tokens. Learner: train_s = fixed + token x trained.
    Both by least squares with coefficients that are not negative; runs of several batch sizes make them definite.
    Scores: a step ends with one call of the reward server, whose groups share its time. Prompts are counted into the
    engine's tokens, for at this scale one decoding step reads them all.
    """
    rows = [row for row, _ in steps]
    fixed, each = _fit(rows, lambda row: row["length/completion_max"], _generated, lambda row: row["perf/generate_s"])
    trained = [row for row in rows if row.get("perf/tokens_trained")]
    base, token = _fit(
        trained, lambda row: 1.0, lambda row: row["perf/tokens_trained"], lambda row: row["perf/train_s"]
    )
    rest = fmean(max(0.0, wall - sum(row.get(f"perf/{s}_s") or 0.0 for s in _STAGES)) for row, wall in steps)
    return Costs(
        engine=EngineCosts(
            fixed_s=fixed,
            each_s=each,
            prompt_token_s=0.0,
            slots=machine.max_num_seqs,
            cores=machine.engine_threads,
        ),
        train_fixed_s=base,
        train_token_s=token,
        learner_cores=machine.learner_threads,
        score_group_s=fmean(row["perf/score_s"] for row in rows) / CALL_GROUPS,
        scorers=machine.scorers,
        sync_s=fmean(row["perf/sync_s"] for row in rows),
        completion_s=rest / fmean(_completions(row) for row in rows),
        lengths=tuple(lengths),
        prompt_tokens=round(fmean(row["length/prompt_mean"] for row in rows)),
        equal_share=fmean(row["reward/zero_variance_share"] for row in rows),
    )


CALL_GROUPS = 8
"""Groups that a reward actor gets at once (rewards/client.py): the wait for scores at a step's end is one such call."""
_STAGES = ("generate", "score", "train", "sync")


def _completions(row: Row) -> float:
    return float(row["perf/completions"])


def _generated(row: Row) -> float:
    return float(row["perf/generated_tokens"])


def _fit(
    rows: Sequence[Row], first: Callable[[Row], float], second: Callable[[Row], float], value: Callable[[Row], float]
) -> tuple[float, float]:
    """(a, b) >= 0 that minimise the sum of (a first + b second - value)^2."""
    x, y, z = ([of(row) for row in rows] for of in (first, second, value))
    xx, xy, yy = (sum(p * q for p, q in zip(*pair, strict=True)) for pair in ((x, x), (x, y), (y, y)))
    xz, yz = (sum(p * q for p, q in zip(side, z, strict=True)) for side in (x, y))
    determinant = xx * yy - xy * xy
    if determinant > 1e-9 * xx * yy:
        a, b = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
        if a >= 0 and b >= 0:
            return a, b
    # One of the two alone: the one that leaves less.
    alone_a, alone_b = xz / xx, yz / yy
    left_a = sum((alone_a * p - r) ** 2 for p, r in zip(x, z, strict=True))
    left_b = sum((alone_b * q - r) ** 2 for q, r in zip(y, z, strict=True))
    return (alone_a, 0.0) if left_a < left_b else (0.0, alone_b)


def assumed(
    shape: ModelShape,
    learner: Learner,
    rollout: Rollout,
    work: Work,
    device: Device,
    *,
    fits: int,
    lengths: Sequence[int],
    score_group_s: float,
    scorers: int,
    completion_s: float,
    equal_share: float,
) -> Costs:
    """From the formulas of trainer/plan/estimate.py, for devices of their own.

    `fits`: sequences that an engine holds. A decoding step reads all weights, and each sequence's keys and values at
    half of its completion or computes its products, whichever takes longer.
    """
    width = rollout.tensor_parallel
    held = work.prompt_tokens + work.completion_tokens / 2
    read = held * kv_bytes_per_token(shape, rollout.weight_bytes) / (device.decode_bytes * width)
    compute = 2 * shape.parameters / (device.prefill_flops * width)
    whole = train_seconds(shape, learner, work, device)
    moved = 2 * learner.weight_bytes * shape.parameters * (learner.ranks - 1) / learner.ranks / device.link_bytes
    return Costs(
        engine=EngineCosts(
            fixed_s=shape.parameters * rollout.weight_bytes / (device.decode_bytes * width),
            each_s=max(read, compute),
            prompt_token_s=2 * shape.parameters / (device.prefill_flops * width),
            slots=fits,
            cores=1.0,
        ),
        train_fixed_s=moved,
        train_token_s=(whole - moved) / (work.prompts * work.group * work.completion_tokens),
        learner_cores=1.0,
        score_group_s=score_group_s,
        scorers=scorers,
        sync_s=shape.parameters * rollout.weight_bytes / device.link_bytes,
        completion_s=completion_s,
        lengths=tuple(lengths),
        prompt_tokens=round(work.prompt_tokens),
        equal_share=equal_share,
    )
