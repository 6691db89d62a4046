"""The format component: 1 for exactly one <think> block, longer than asked, followed by SQL; else 0.

As published by FINER-SQL: only white space before <think>, reasoning longer than 100 characters, SQL not empty. A
<think> that the prompt has opened counts as the completion's. A code fence around the SQL is tolerated
(rewards/sql/marks.py). With thinking switched off the point needs only an answer.
"""

from conf.schema.reward import FormatReward
from rewards.sql.parse import Extraction, extract_sql


def extract(completion: str, config: FormatReward) -> Extraction:
    """Reasoning and SQL of a completion; SQL that stands only inside the thinking is no answer."""
    return extract_sql(completion, thinking=config.thinking)


def format_fault(extraction: Extraction, config: FormatReward) -> str | None:
    """Why format_reward is 0, in one clause; None where it is 1."""
    if not extraction.well_formed:
        return extraction.fault or "it holds no SQL"
    if not format_reward(extraction, config):
        return f"its reasoning has {len(extraction.reasoning)} characters, not more than {config.min_reasoning_chars}"
    return None


def format_reward(extraction: Extraction, config: FormatReward) -> float:
    """1.0 or 0.0."""
    if not extraction.well_formed:
        return 0.0
    return float(not config.thinking or len(extraction.reasoning) > config.min_reasoning_chars)
