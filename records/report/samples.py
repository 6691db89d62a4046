"""The sample browser's contents: groups as the page shows them, bounded in number and size.

Everything here was written by a model or comes from a data set: it stays plain text until the template escapes it. The
only markup made here is Pygments' highlighting of SQL, which escapes its input.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.sql import SqlLexer

Json = Mapping[str, Any]

MAX_GROUPS = 48
"""Groups shown: the first ones and the last ones of the run."""
FIRST_GROUPS = 8
MAX_TEXT = 4_000
MAX_PROMPT = 12_000
"""Characters shown of a completion and of a prompt."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_LEXER = SqlLexer(stripnl=False, ensurenl=False)
_FORMATTER = HtmlFormatter(nowrap=True, classprefix="hl-")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionView:
    count: int
    """How many completions of the group are equal to this one."""
    outcome: str
    """right, wrong or unscorable."""
    total: str
    components: tuple[tuple[str, str, int], ...]
    """(name, formatted value, width of its bar in percent)."""
    full: str
    """Components at their full value and above, space-separated, for the filter."""
    zero: str
    """Components at zero."""
    tokens: int
    truncated: bool
    sql: Markup | None
    text: str
    error_kind: str
    error: str
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    step: int
    task_id: str
    db_id: str
    difficulty: str
    question: str
    evidence: str
    golds: tuple[Markup, ...]
    prompt: str
    prompt_tokens: int
    outcome: str
    """right (all), wrong (all) or mixed."""
    right: int
    size: int
    """Completions in the group, scored or not."""
    completions: tuple[CompletionView, ...]
    """Equal ones once, in order of their first appearance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleBrowser:
    groups: tuple[GroupView, ...]
    total: int
    """Groups in samples.jsonl."""
    error_kinds: tuple[str, ...]
    components: tuple[str, ...]


def visible(text: str, limit: int) -> str:
    """The text with control, invisible and direction-changing characters spelled out, cut to `limit` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}\n… {len(text) - limit:,} more characters"
    return _CONTROL.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", cut.replace("\r\n", "\n"))


def highlighted(sql: str) -> Markup:
    """The query as escaped markup with keyword, string and number classes."""
    return Markup(highlight(visible(sql, MAX_TEXT), _LEXER, _FORMATTER).rstrip("\n"))


def _percent(value: float) -> int:
    return round(100 * min(max(value, 0.0), 1.0))


def _completion(row: Json, count: int) -> CompletionView:
    scored = row["status"] == "scored"
    outcome = ("right" if row["correct"] else "wrong") if scored else "unscorable"
    components = [(name, value) for name, value in row["components"].items() if value is not None]
    sql = row["sql"]
    return CompletionView(
        count=count,
        outcome=outcome,
        total=_unscorable(row) if row["total"] is None else f"{row['total']:.3f}",
        components=tuple((name, f"{value:.2f}", _percent(value)) for name, value in components),
        full=" ".join(name for name, value in components if value >= 1),
        zero=" ".join(name for name, value in components if value <= 0),
        tokens=row["tokens"],
        truncated=row["finish_reason"] == "length",
        sql=None if sql is None else highlighted(sql),
        text=visible(row["text"], MAX_TEXT) if sql is None or row["text"].strip() != sql.strip() else "",
        error_kind=row["error_kind"] or "",
        error=visible(row["error"] or "", MAX_TEXT),
        flags=tuple(row["flags"]),
    )


def _unscorable(row: Json) -> str:
    """With whose doing it was, which rows of older runs do not say."""
    cause = row.get("cause")
    return f"unscorable: {cause}" if cause else "unscorable"


def _group(row: Json) -> GroupView:
    # Equal rows have equal JSON text, whatever types their values have.
    equal = Counter(json.dumps(one, sort_keys=True) for one in row["completions"])
    completions = tuple(_completion(json.loads(text), count) for text, count in equal.items())
    right = sum(one.count for one in completions if one.outcome == "right")
    scored = sum(one.count for one in completions if one.outcome != "unscorable")
    outcome = "unscorable" if not scored else "right" if right == scored else "mixed" if right else "wrong"
    return GroupView(
        step=row["step"],
        task_id=row["task_id"],
        db_id=row["db_id"],
        difficulty=row["difficulty"] or "",
        question=visible(row["question"], MAX_TEXT),
        evidence=visible(row["evidence"], MAX_TEXT),
        golds=tuple(highlighted(sql) for sql in row["gold_sqls"]),
        prompt=visible(row["prompt"], MAX_PROMPT),
        prompt_tokens=row["prompt_tokens"],
        outcome=outcome,
        right=right,
        size=len(row["completions"]),
        completions=completions,
    )


def first_and_last(rows: Iterable[Json], *, first: int, last: int) -> tuple[list[Json], int]:
    """The first and last rows in order, and how many there are in all; holds no more than it returns."""
    counted = 0
    iterator = iter(rows)
    head = list(islice(iterator, first))
    tail: deque[Json] = deque(maxlen=last)
    for row in iterator:
        tail.append(row)
        counted += 1
    return head + list(tail), len(head) + counted


def browser(rows: Sequence[Json], total: int) -> SampleBrowser:
    """The groups to show, newest first. `total`: how many the run has in all."""
    groups = tuple(_group(row) for row in reversed(rows))
    completions = [one for group in groups for one in group.completions]
    return SampleBrowser(
        groups=groups,
        total=total,
        error_kinds=tuple(sorted({one.error_kind for one in completions if one.error_kind})),
        components=tuple(dict.fromkeys(name for one in completions for name, _, _ in one.components)),
    )
