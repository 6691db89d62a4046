"""Rows of the records that a finished run leaves, one JSON object a line."""

import json
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Raises OSError and ValueError."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
