"""`make quickstart`, with a python that only says what it was asked to run."""

import subprocess
from pathlib import Path

import pytest

from records.run_folder import SUMMARY, RunFolder
from records.summary import Status, summarise

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout that is set up."""
    for name in ("pyproject.toml", "requirements/cpu-dev.txt", ".venv/bin/python", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    return tmp_path


def leave_run(clone: Path, name: str, status: Status) -> None:
    with RunFolder(clone / "runs" / name) as folder:
        folder.finish(summarise([], status=status, wall_s=1.0, n=1, selection="first", seed=0, versions={}))
    assert (clone / "runs" / name / SUMMARY).is_file()


def asked(clone: Path, arguments: str = "") -> str:
    """What the trainer gets."""
    # Beneath another make, as in `make test`, it would speak of folders.
    command = ["make", "--no-print-directory", "-f", str(MAKEFILE), "quickstart", f"ARGS={arguments}"]
    answer = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.removeprefix("-m trainer experiment=quickstart").strip()


def test_a_second_quickstart_takes_the_next_free_name(clone):
    assert asked(clone, "seed=1") == "run.name=quickstart seed=1"
    leave_run(clone, "quickstart", "finished")
    assert asked(clone) == "run.name=quickstart-2"
    leave_run(clone, "quickstart-2", "finished")
    assert asked(clone) == "run.name=quickstart-3"


@pytest.mark.parametrize("arguments", ["resume=auto", "run.name=mine", "seed=1 run.dir=elsewhere"])
def test_a_run_that_is_named_is_the_one_that_is_meant(clone, arguments):
    leave_run(clone, "quickstart", "finished")
    assert asked(clone, arguments) == arguments


def test_a_run_that_did_not_finish_keeps_its_name_and_the_trainer_says_how_to_go_on(clone):
    leave_run(clone, "quickstart", "stopped")
    assert asked(clone) == "run.name=quickstart"
