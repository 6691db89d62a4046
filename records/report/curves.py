"""Which charts a run's metrics rows make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from records.metrics_keys import COMPONENTS, ERROR_KINDS, KEYS, STAGES
from records.report.chart import Chart, Drawn, Series, draw

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One chart to be drawn from the rows that hold its keys."""

    title: str
    keys: tuple[tuple[str, str], ...]
    """(metric key, label); all of one unit."""
    note: str = ""
    kind: Literal["line", "stack"] = "line"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    title: str
    charts: tuple[Drawn, ...]


_PLANS: tuple[tuple[str, tuple[Plan, ...]], ...] = (
    (
        "Accuracy",
        (
            Plan(
                title="Held-out accuracy",
                note="Execution accuracy on questions never trained on",
                keys=(
                    ("eval/greedy_ex", "greedy"),
                    ("eval/vote_ex", "voting"),
                    ("eval/mean_at_n", "mean@n"),
                    ("eval/recall_at_n", "recall@n"),
                ),
            ),
            Plan(
                title="Training accuracy",
                note="Sampled completions of training questions",
                keys=(
                    ("reward/accuracy", "pass@1"),
                    ("reward/pass_at_4", "pass@4"),
                    ("reward/pass_at_8", "pass@8"),
                    ("reward/pass_at_32", "pass@32"),
                ),
            ),
            Plan(
                title="Groups that teach nothing",
                note="Every completion earned the same reward",
                keys=(("reward/all_right_share", "all right"), ("reward/all_wrong_share", "all wrong")),
                kind="stack",
            ),
        ),
    ),
    (
        "Reward",
        (
            Plan(
                title="Combined reward", keys=(("reward/total/mean", "mean"), ("reward/group_std", "spread in a group"))
            ),
            Plan(
                title="Reward by component",
                note="Raw values, before weights",
                keys=tuple((f"reward/{name}/mean", name) for name in COMPONENTS),
            ),
            Plan(
                title="Errors by kind",
                note="Share of completions",
                keys=(*((f"reward/error/{kind}", kind.replace("_", " ")) for kind in ERROR_KINDS),),
                kind="stack",
            ),
        ),
    ),
    (
        "Policy",
        (
            Plan(title="Entropy", note="Nats per token", keys=(("policy/entropy", "entropy"),)),
            Plan(
                title="KL divergence",
                note="Nats per token",
                keys=(("policy/kl_reference", "to the reference"), ("policy/kl_old", "to the behaviour policy")),
            ),
            Plan(title="Gradient norm", note="Before clipping", keys=(("policy/grad_norm", "norm"),)),
            Plan(
                title="Clipped tokens",
                keys=(("policy/clip_low_share", "below"), ("policy/clip_high_share", "above")),
            ),
            Plan(
                title="Engine and learner disagree by",
                note="Absolute difference of log-probabilities, nats",
                keys=(("mismatch/logp_abs_mean", "mean"), ("mismatch/after_sync_abs_mean", "of fresh tokens")),
            ),
            Plan(
                title="Importance weights",
                note="Effective sample size and capped share",
                keys=(
                    ("mismatch/effective_sample_share", "effective samples"),
                    ("mismatch/truncated_share", "capped"),
                ),
            ),
        ),
    ),
    (
        "Lengths",
        (
            Plan(
                title="Completion length",
                note="Tokens",
                keys=(
                    ("length/completion_mean", "mean"),
                    ("length/completion_right_mean", "right"),
                    ("length/completion_wrong_mean", "wrong"),
                ),
            ),
            Plan(title="Hit the token limit", keys=(("length/truncated_share", "completions"),)),
            Plan(
                title="Prompt length",
                note="Tokens",
                keys=(("length/prompt_mean", "mean"), ("length/prompt_max", "longest")),
            ),
        ),
    ),
    (
        "Time and memory",
        (
            Plan(
                title="Time by stage",
                note="Seconds of each step, evaluation and checkpoints aside",
                keys=tuple((f"perf/{stage}_s", stage) for stage in STAGES if stage not in ("evaluate", "checkpoint")),
                kind="stack",
            ),
            Plan(title="Completions per second", keys=(("perf/completions_per_s", "completions/s"),)),
            Plan(
                title="Staleness",
                note="Policy versions behind",
                keys=(("async/staleness_mean", "mean"), ("async/staleness_max", "largest")),
            ),
            Plan(
                title="Waiting for a reward actor",
                note="Longest wait of a group in the step",
                keys=(("async/reward_queue_s", "wait"),),
            ),
            Plan(
                title="Replaced processes",
                note="Since the engines were last started",
                keys=(
                    ("async/worker_restarts", "rollout workers"),
                    ("async/reward_restarts", "reward actors"),
                    ("async/executor_restarts", "SQL processes"),
                ),
                kind="stack",
            ),
            Plan(title="Resident memory", note="GiB, driver and descendants", keys=(("perf/rss_gib", "memory"),)),
        ),
    ),
)


def merged(rows: Rows) -> list[dict[str, Any]]:
    """One row a step, in rising order; later rows of the same step add to and replace earlier ones."""
    by_step: dict[int, dict[str, Any]] = {}
    for row in rows:
        by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def _series(rows: Rows, key: str, label: str) -> Series:
    points = tuple((row["step"], row[key]) for row in rows if row.get(key) is not None)
    return Series(label=label, points=points)


def _chart(rows: Rows, plan: Plan) -> Drawn | None:
    found = [series for key, label in plan.keys if (series := _series(rows, key, label)).points]
    if plan.kind == "stack":
        # Parts that are zero throughout would only lengthen the legend.
        found = [one for one in found if any(value for _, value in one.points)]
    if not found:
        return None
    unit = KEYS[plan.keys[0][0]].unit
    return draw(Chart(title=plan.title, note=plan.note, unit=unit, series=tuple(found), kind=plan.kind))


def sections(rows: Rows) -> tuple[Section, ...]:
    """The charts that the rows have data for, by section; empty sections are left out."""
    steps = merged(rows)
    drawn = ((title, tuple(c for plan in plans if (c := _chart(steps, plan)) is not None)) for title, plans in _PLANS)
    return tuple(Section(title=title, charts=charts) for title, charts in drawn if charts)
