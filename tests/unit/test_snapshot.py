"""State beside a database file: write-ahead logs and journals of writers that were killed."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from conf.schema.reward import BudgetConfig
from rewards.sql.content import content_key
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from rewards.sql.schema import DatabaseUnreadable, connect_readonly
from rewards.sql.snapshot import JOURNAL_MAGIC, PREFIX, readable

ROWS = "SELECT count(*), max(age) FROM dog"
START = "import os, sqlite3; c = sqlite3.connect({path!r}, isolation_level=None); "
WAL = (
    "c.execute('PRAGMA journal_mode=WAL'); c.execute('CREATE TABLE dog(age INTEGER)'); "
    "c.execute('INSERT INTO dog VALUES (3)'); c.execute('PRAGMA wal_checkpoint(TRUNCATE)'); "
    "c.execute('INSERT INTO dog VALUES (5)'); os._exit(0)"
)
HOT = (
    "c.execute('PRAGMA cache_size=5'); c.execute('CREATE TABLE dog(age INTEGER, name TEXT)'); c.execute('BEGIN'); "
    "c.executemany('INSERT INTO dog VALUES (3, ?)', [('x' * 90,)] * 2000); c.execute('COMMIT'); c.execute('BEGIN'); "
    "c.execute('UPDATE dog SET age = 99'); os._exit(0)"
)


def abandoned(path: Path, script: str) -> str:
    """A database whose writer ended in the middle of its work."""
    subprocess.run([sys.executable, "-c", START.format(path=str(path)) + script], check=True)
    return str(path)


def rows(path: str) -> tuple[object, ...]:
    with ExecutorPool(1) as pool:
        (execution,) = pool.run([Query(database=path, sql=ROWS, budget=BudgetConfig())])
    assert execution.status == "ok", execution.error
    with closing(connect_readonly(path)) as connection:
        assert connection.execute(ROWS).fetchall() == list(execution.rows)
    return execution.rows[0]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def test_rows_in_a_write_ahead_log_are_seen(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", WAL)
    before = files(tmp_path)
    assert rows(path) == (2, 5)
    assert files(tmp_path) == before  # the original and its log are only read


def test_a_hot_journal_is_rolled_back(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", HOT)
    before = files(tmp_path)
    assert rows(path) == (2000, 3)
    assert files(tmp_path) == before


def test_a_log_that_grows_is_read_anew_and_changes_the_content_key(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", WAL)
    first = content_key(path)
    assert rows(path) == (2, 5)
    # A reader holds the log open, so that closing the writer does not take it in.
    with closing(sqlite3.connect(path)) as reader, closing(sqlite3.connect(path, isolation_level=None)) as writer:
        reader.execute(ROWS).fetchall()
        writer.execute("INSERT INTO dog VALUES (7)")
        assert rows(path) == (3, 7)
        assert content_key(path) != first


def test_a_clean_or_empty_log_needs_no_copy(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", WAL)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert readable(path) == path
        assert rows(path) == (2, 5)


def test_a_finished_journal_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=PERSIST")
        connection.execute("CREATE TABLE dog(age INTEGER)")
        connection.execute("INSERT INTO dog VALUES (1)")
    assert (tmp_path / "a.sqlite-journal").stat().st_size > 0
    assert readable(path) == str(path)


def test_a_journal_that_names_another_file_is_not_played(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", HOT)
    with open(f"{path}-journal", "ab") as journal:
        journal.write(JOURNAL_MAGIC)
    with pytest.raises(DatabaseUnreadable, match="several databases"):
        readable(path)


def test_a_link_is_read_with_the_log_of_its_target(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target = abandoned(folder / "a.sqlite", WAL)
    (tmp_path / "link.sqlite").symlink_to(target)
    assert rows(str(tmp_path / "link.sqlite")) == (2, 5)


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite-wal", "a.sqlite-journal"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.sqlite"
    if name != path.name:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE dog(age INTEGER)")
    os.mkfifo(tmp_path / name)
    with ExecutorPool(1) as pool:
        (execution,) = pool.run([Query(database=str(path), sql=ROWS, budget=BudgetConfig())])
    assert (execution.status, "not a regular file" in str(execution.error)) == ("unscorable", True)


def test_two_leading_slashes_are_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE dog AS SELECT 4 AS age")
    assert rows(f"/{tmp_path}/a.sqlite") == (1, 4)


def test_copies_go_with_the_process_and_those_of_killed_ones_with_the_next(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", WAL)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = f"import os; from rewards.sql.snapshot import readable; assert os.path.isfile(readable({path!r}))"
    environment = {**os.environ, "TMPDIR": str(temporary)}

    def run(ending: str) -> list[str]:
        subprocess.run([sys.executable, "-c", code + ending], check=True, env=environment)
        return [folder.name for folder in temporary.glob(f"{PREFIX}*")]

    (left,) = run("; os._exit(0)")  # killed
    assert left not in run("; os._exit(0)")
    assert run("") == []


def test_a_folder_that_moved_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a link to it, and by a path that is relative to it."""
    (tmp_path / "old").mkdir()
    abandoned(tmp_path / "old" / "a.sqlite", WAL)
    (tmp_path / "link").symlink_to(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    assert rows(str(tmp_path / "link" / "a.sqlite")) == rows("a.sqlite") == (2, 5)
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert rows(str(tmp_path / "link" / "a.sqlite")) == rows("a.sqlite") == (2, 5)


def test_a_file_that_changed_in_place_and_kept_its_time_is_read_anew(tmp_path: Path) -> None:
    path, other = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    for file, age in ((path, 3), (other, 7)):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE dog(age INTEGER)")
            connection.execute("INSERT INTO dog VALUES (?)", (age,))
    times = os.stat(path)
    key = content_key(str(path))
    query = Query(database=str(path), sql=ROWS, budget=BudgetConfig())
    with ExecutorPool(1) as pool:
        assert pool.run([query])[0].rows == ((1, 3),)
        with path.open("r+b") as file:
            file.write(other.read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert pool.run([query])[0].rows == ((1, 7),)
    assert content_key(str(path)) != key


def test_a_copy_that_was_swept_away_is_made_again(tmp_path: Path) -> None:
    path = abandoned(tmp_path / "a.sqlite", WAL)
    copy = Path(readable(path))
    copy.unlink()
    assert rows(path) == (2, 5)
    shutil.rmtree(copy.parent)
    assert rows(path) == (2, 5)
