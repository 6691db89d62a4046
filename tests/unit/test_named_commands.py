"""Commands and files that pages, messages and docstrings name are there: moves of modules leave none behind."""

import re
from pathlib import Path

import pytest

from operate.jobs.package import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("README.md", "CONTRIBUTING.md", "Makefile", "docs", "docker", "examples", "tests", *PACKAGES)
TEXTS = (".md", ".py", ".yaml", ".j2", ".js", "Makefile", "Dockerfile")
INVENTED = {"rewards/components/star.py", "conf/dump.py"}
"""Files that a worked example or a test makes."""
OURS = "|".join(PACKAGES)


def texts() -> list[tuple[str, str]]:
    files = [
        file for place in PLACES for file in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    ]
    named = [file for file in files if file.name.endswith(TEXTS) and "__pycache__" not in file.parts]
    return [(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")) for file in sorted(named)]


def missing(texts: list[tuple[str, str]]) -> list[str]:
    found = []
    for name, text in texts:
        for module in re.findall(rf"-m\W{{1,5}}((?:{OURS})(?:\.[a-z_]\w*)*)", text):
            path = ROOT / module.replace(".", "/")
            if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
                found.append(f"{name}: python -m {module}")
        for file in re.findall(rf"(?<![\w/.-])((?:{OURS})/[\w/.-]*\.(?:py|c|h|j2|css|js|yaml))\b", text):
            if file not in INVENTED and not (ROOT / file).is_file():
                found.append(f"{name}: {file}")
    return found


def test_every_command_and_file_that_is_named_is_there() -> None:
    assert missing(texts()) == []


@pytest.mark.parametrize("stale", ["python -m {}.study", "`{}/study.py`"])
def test_a_stale_name_is_found(stale: str) -> None:
    assert len(missing([("page.md", stale.format("selection"))])) == 1
