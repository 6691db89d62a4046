"""The executor service of the reference's way: FastAPI under uvicorn, one process, one query a request.

Each request opens the database, sets its pragmas, fetches all rows, makes records of them and prints them once more as
a pandas table, as FINER-SQL's published service does. Written anew for the comparison; only its work per request is of
interest.
"""

import sqlite3
import time
from multiprocessing.connection import Connection
from typing import Any

import pandas  # type: ignore[import-untyped]
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from conf.http_access import Access
from conf.http_guard import HttpGuard

LOOPBACK = "127.0.0.1"
TICK = 1000
"""VM instructions between two looks at the clock."""


class Ask(BaseModel):
    database: str
    sql: str
    timeout_ms: int = 60_000
    max_rows: int = 10_000


class Told(BaseModel):
    ok: bool
    rows: list[dict[str, Any]] | None = None
    row_count: int | None = None
    table: str | None = None
    error: str | None = None


app = FastAPI()


@app.post("/execute", response_model=Told)
def execute(ask: Ask) -> Told:
    """Runs in a thread of uvicorn's pool."""
    deadline = time.time() + ask.timeout_ms / 1000
    connection = sqlite3.connect(f"file:{ask.database}?immutable=1&mode=ro", uri=True, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.set_progress_handler(lambda: time.time() >= deadline, TICK)
        for pragma in ("query_only = ON", "foreign_keys = ON", "case_sensitive_like = ON", "busy_timeout = 60000"):
            connection.execute(f"PRAGMA {pragma}")
        cursor = connection.execute(ask.sql)
        rows = cursor.fetchall()[: ask.max_rows]
        names = [entry[0] for entry in cursor.description or ()]
        records = [{name: row[place] for place, name in enumerate(names)} for row in rows]
        table = pandas.DataFrame(rows, columns=names).to_string(index=False) if rows else ""
        return Told(ok=True, rows=records, row_count=len(records), table=table)
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        return Told(ok=False, error=str(error))
    finally:
        connection.close()


def serve(pipe: Connection) -> None:
    """Serves on a free port of the loopback, tells it through the pipe, and ends when killed."""
    config = uvicorn.Config(app, host=LOOPBACK, port=0, log_level="error")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.listen(128)
    port = listening.getsockname()[1]
    app.add_middleware(HttpGuard, access=Access(host=LOOPBACK, port=port))
    pipe.send(port)
    server.run(sockets=[listening])
