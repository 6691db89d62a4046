"""Offline scoring of completions from a file (python -m rewards.score)."""

from pydantic import PositiveInt

from conf.schema.base import PathText, Section
from conf.schema.reward import RewardConfig


class ScoreConfig(Section):
    input: PathText
    """JSON lines: {"id", "db_id", "gold_sqls": [..], "completion", "denotation"}; "question" optional, and
    "thinking_opened": true where the prompt ended in an open <think>, "thinking": false where it asks for none."""
    databases: PathText
    """Folder holding <db_id>/<db_id>.sqlite; other *.sqlite files beside it are further instances."""
    output: PathText
    """JSON lines, one for each valid input line, in order."""
    batch_lines: PositiveInt = 64
    """Lines scored together."""
    reward: RewardConfig
