"""Tables and columns of the databases, read through the executor like everything else.

As in Spider's official script, views are no tables: exact set match refuses a query that reads one.
"""

from collections.abc import Mapping

from benchmarks.carriers import BenchmarkError
from benchmarks.metrics.spider.parser import Schema
from benchmarks.scoring.runner import Known, Runner
from rewards.sql.identifiers import identifier

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def read_schemas(databases: Mapping[str, str], runner: Runner) -> dict[str, Schema]:
    """db_id -> table -> columns, in lower case, from db_id -> database file. Raises BenchmarkError."""
    known = Known()
    runner.run(((file, TABLES) for file in databases.values()), known)
    tables: dict[str, list[str]] = {}
    for db_id, file in databases.items():
        listing = known[file, TABLES]
        if listing.status != "ok":
            raise BenchmarkError(f"a readable SQLite database expected at {file}: {listing.error}")
        tables[db_id] = [str(row[0]) for row in listing.rows]
    headers = [(databases[db_id], _header(table)) for db_id, names in tables.items() for table in names]
    runner.run(headers, known)
    for file, header in headers:
        if known[file, header].status == "unscorable":  # else the table would seem to have no columns
            raise BenchmarkError(f"a readable SQLite database expected at {file}: {known[file, header].error}")
    return {
        db_id: {
            name.lower(): [column.lower() for column in known[databases[db_id], _header(name)].columns]
            for name in names
        }
        for db_id, names in tables.items()
    }


def _header(table: str) -> str:
    """A query whose column names are the table's; it yields no row."""
    return f"SELECT * FROM {identifier(table)} LIMIT 0"
