"""The model card: what the policy was trained on and for, what it reached, how to serve it."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.schema.root import TrainConfig
from operate.trained_run import Trained
from records.files import Json
from records.statistics.intervals import share_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    name: str
    value: float
    low: float | None
    high: float | None
    """95 % interval over the scored tasks; None for means that are no share of tasks."""


SHARES = {
    "eval/greedy_ex": "greedy execution accuracy",
    "eval/vote_ex": "execution accuracy of the voted answer",
    "eval/recall_at_n": "tasks with a right answer among the candidates",
}
MEANS = {"eval/mean_at_n": "mean accuracy of a candidate"}


def scored_tasks(evaluation: Json) -> tuple[int, bool]:
    """Tasks that the accuracies are means over, and whether the number is exact.

    Rows of earlier versions count unscorable completions alone: those of a task without a gold come together (n sampled
    and a greedy one), while each that the infrastructure lost may have taken a task of its own along.
    """
    if "eval/scored" in evaluation:
        return int(evaluation["eval/scored"]), True
    lost = int(evaluation.get("eval/unscorable", 0))
    group = int(evaluation.get("eval/n", 0)) + 1
    without_gold = ceil(int(evaluation.get("eval/unscorable_data", 0)) / group)
    return max(0, int(evaluation.get("eval/tasks", 0)) - without_gold - lost), not lost


def scores(trained: Trained) -> list[Score]:
    """Of the evaluation at the checkpoint's step; none when it was not evaluated."""
    found = trained.evaluation()
    tasks, _ = scored_tasks(found)
    result = []
    for key, name in SHARES.items():
        if found.get(key) is not None:
            low, high = share_interval(found[key], tasks)[1:] if tasks else (None, None)
            result.append(Score(name=name, value=found[key], low=low, high=high))
    result += [
        Score(name=name, value=found[key], low=None, high=None)
        for key, name in MEANS.items()
        if found.get(key) is not None
    ]
    return result


def card(trained: Trained, *, code: str, data: dict[str, str]) -> str:
    """The text of README.md. `data`: split -> digest, from the run index."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    config, evaluation = trained.config, trained.evaluation()
    scored, exact = scored_tasks(evaluation)
    return templates.get_template("card.md.j2").render(
        config=config,
        base=_base(config),
        step=trained.step,
        code=code,
        data=data,
        tasks=int(evaluation.get("eval/tasks", 0)),
        scored=scored,
        exact=exact,
        n=int(evaluation.get("eval/n", config.evaluation.n)),
        scores=scores(trained),
        rewards=_rewards(config),
        length=config.prompt.max_tokens + config.rollout.sampling.max_tokens,
    )


def _base(config: TrainConfig) -> str:
    if config.model.type == "tiny":
        return "a small Qwen2 with random weights, warmed up on the task source's own traces"
    return config.model.path if not Path(config.model.path).is_absolute() else Path(config.model.path).name


def _rewards(config: TrainConfig) -> list[str]:
    reward = config.reward
    parts = {
        "format": reward.format.enabled,
        "execution": reward.execution.enabled,
        "atomic SQL operations": reward.atomic.enabled,
        "memory of verified traces": reward.memory.enabled,
    }
    return [name for name, enabled in parts.items() if enabled]
