"""CONTRIBUTING's worked example, done as printed on a copy of the project."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def insert_after(file: Path, line: str, added: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(line) == 1, f"{line!r} in {file.name}"
    file.write_text(text.replace(line, line + added), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy in which the steps of the example have been taken."""
    for package in ("conf", "rewards"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (component,) = re.findall(r"`rewards/components/star\.py`.*?```python\n(.*?)```", text, re.DOTALL)
    (weight,) = re.findall(r"`PenaltyConfig`.*?: `(star.*?)`", text)
    (line,) = re.findall(r'"star": .*?,(?=`)', text)
    (tmp_path / "rewards/components/star.py").write_text(re.sub("^   ", "", component, flags=re.MULTILINE))
    insert_after(tmp_path / "conf/schema/reward.py", "class PenaltyConfig(Section):\n", f"    {weight}\n")
    table = tmp_path / "rewards/components/penalties.py"
    insert_after(table, "PENALTIES: dict[str, Callable[[Facts], float]] = {\n", f"    {line}\n")
    insert_after(
        table,
        "from rewards.components.repetition import repeated_share\n",
        "from rewards.components.star import selects_star\n",
    )
    return tmp_path


def test_the_worked_component_deducts_what_the_page_says(project: Path) -> None:
    folder = project / "databases" / "dogs"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "dogs.sqlite") as connection:
        connection.executescript("CREATE TABLE dog (name TEXT); INSERT INTO dog VALUES ('rex');")
    connection.close()
    think = (
        "<think>" + "The question asks for dogs, so the dog table is read and its rows are listed. " * 2 + "</think>"
    )
    answers = ("SELECT * FROM dog", "SELECT name FROM dog", "SELECT count(*) FROM dog", "not SQL (")
    task = {"db_id": "dogs", "gold_sqls": ["SELECT name FROM dog"], "denotation": "bird"}
    cases = [json.dumps({"id": n, "completion": think + answer, **task}) for n, answer in enumerate(answers)]
    (project / "cases.jsonl").write_text("\n".join(cases))
    command = [sys.executable, "-m", "rewards.score", "input=cases.jsonl", "databases=databases", "output=scores.jsonl"]
    done = subprocess.run(
        [*command, "reward.penalties.star=0.5"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (project / "scores.jsonl").read_text().splitlines()]
    assert [result["components"]["star"] for result in found] == [1, 0, 0, 0]
    assert [result["total"] for result in found[:2]] == [3.5, 4.0]
