"""The model card: what the policy was trained on and for, what it reached, how to serve it."""

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.schema.root import TrainConfig
from trainer.finished import Trained

Z95 = 1.959964
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    name: str
    value: float
    low: float | None
    high: float | None
    """Wilson's 95 % interval over tasks; None for means that are no share of tasks."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in `count` trials (Wilson 1927)."""
    square = Z95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


SHARES = {
    "eval/greedy_ex": "greedy execution accuracy",
    "eval/vote_ex": "execution accuracy of the voted answer",
    "eval/recall_at_n": "tasks with a right answer among the candidates",
}
MEANS = {"eval/mean_at_n": "mean accuracy of a candidate"}


def scores(trained: Trained) -> list[Score]:
    """Of the evaluation at the checkpoint's step; none when it was not evaluated."""
    found = trained.evaluation()
    tasks = int(found.get("eval/tasks", 0))
    result = []
    for key, name in SHARES.items():
        if tasks and found.get(key) is not None:
            low, high = wilson(found[key], tasks)
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
    return templates.get_template("card.md.j2").render(
        config=config,
        base=_base(config),
        step=trained.step,
        code=code,
        data=data,
        tasks=int(evaluation.get("eval/tasks", 0)),
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
