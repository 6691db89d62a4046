"""scores.json: totals, scores by level, sampling metrics, voters, errors, and what the run cost."""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.carriers import Answers, Judged
from records.statistics.intervals import mean_interval
from records.statistics.sampling import mean_at_n, pass_at, recall_at

Summary = dict[str, Any]


def summarise(judged: Sequence[Judged], answers: Answers, metrics: Sequence[str], levels: Sequence[str]) -> Summary:
    """Everything but the seconds of scoring. Unscorable questions leave all means and are counted."""
    scored = [j for j in judged if not j.unscorable]

    def interval(values: Sequence[float]) -> dict[str, float] | None:
        if not values:
            return None
        mean, low, high = mean_interval(values)
        return {"mean": round(mean, 6), "low": round(low, 6), "high": round(high, 6)}

    def known(part: Sequence[Judged], name: str) -> list[float]:
        return [j.verdict[name] for j in part if j.verdict[name] is not None]

    def totals(part: Sequence[Judged]) -> Summary:
        return {"questions": len(part)} | {name: interval(known(part, name)) for name in metrics}

    named = [level for level in levels if any(j.level == level for j in scored)]
    named += sorted({j.level for j in scored} - set(levels))
    summary: Summary = {
        "questions": len(judged),
        "unscorable": len(judged) - len(scored),
        "gold_errors": [j.verdict.get("index", j.verdict.get("question_id")) for j in judged if j.gold_error],
        "totals": totals(scored),
        "by_level": {level: totals([j for j in scored if j.level == level]) for level in named},
        "error_kinds": dict(Counter(kind for j in judged for kind in j.error_kinds).most_common()),
        "candidates": sum(len(j.rights) + j.lost for j in judged),
        "incomplete": sum(j.incomplete for j in scored),
        "tokens": {
            "prompt": sum(a.prompt_tokens for a in answers.answers),
            "completion": sum(a.completion_tokens for a in answers.answers),
        },
        "requests": answers.requests,
    }
    return summary | _sampling(scored, interval)


def _sampling(scored: Sequence[Judged], interval: Callable[[Sequence[float]], Any]) -> Summary:
    """recall@k and pass@k up to the smallest number of candidates, mean@n, greedy, and every voter; of questions that
    lost no answer, so that none counts as wrong and each has all its votes."""
    whole = [j for j in scored if not j.incomplete]
    n = min((len(j.rights) for j in whole), default=0)
    voters = sorted(set.intersection(*(set(j.voters) for j in whole))) if whole else []
    greedy = [float(j.greedy_right) for j in scored if j.greedy_right is not None]
    return {
        "n": n,
        "recall_at": [round(fmean(recall_at(j.rights, k) for j in whole), 6) for k in range(1, n + 1)],
        "pass_at": [round(fmean(pass_at(len(j.rights), sum(j.rights), k) for j in whole), 6) for k in range(1, n + 1)],
        "mean_at_n": interval([mean_at_n(j.rights) for j in whole]),
        "greedy": interval(greedy),
        "voters": {name: interval([float(j.voters[name]) for j in whole]) for name in voters},
    }
