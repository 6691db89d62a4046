"""The smallest database that tests query: dogs by name and age."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path


def write_dogs(path: Path, rows: Sequence[tuple[str, int]]) -> str:
    """Makes a SQLite file with the table dog (name, age); returns its path."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE dog (name TEXT, age INTEGER)")
    connection.executemany("INSERT INTO dog VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    return str(path)
