"""Ray's Jobs API over HTTP, without importing Ray, so that a question about a job is answered at once.

Guarantees: every request ends within REQUEST_S; a refusal is one sentence. The cluster's token is sent as Ray's own
client sends it: from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, unless RAY_AUTH_MODE=disabled. Does not
upload packages (operate/jobs/submit.py does, with Ray's client).
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from conf.errors import QuorumError
from conf.loopback import is_loopback
from conf.passwords import NO_PASSWORD

REQUEST_S = 30.0
"""Longest wait for one answer."""
POLL_S = 2.0
LOST_S = 60.0
"""How long `follow` keeps asking a cluster that does not answer."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
ARGUMENTS, FOLDER, CODE = "quorum_arguments", "quorum_folder", "quorum_code"
"""Keys of a job's metadata: its command (JSON list), where its results go, the version of the packaged code."""


class JobsUnavailable(QuorumError):
    """The cluster does not answer, or refuses."""


class JobUnknown(QuorumError):
    """The cluster knows no such job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobInfo:
    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    entrypoint: str
    message: str
    metadata: dict[str, str]
    started_s: float | None
    """Unix time."""
    ended_s: float | None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def token_file() -> Path | None:
    """Where Ray keeps its token; None where the user has no home."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return Path(given) if given else Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # no HOME, and no such user
        return None


def auth_headers() -> dict[str, str]:
    """The header with the cluster's token; empty where there is none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    file = token_file()
    if not token and file is not None and os.access(file, os.R_OK) and file.is_file():
        token = file.read_text(encoding="utf-8")
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


class JobsClient:
    """One cluster's jobs, at the address of its dashboard."""

    def __init__(self, address: str) -> None:
        if "@" in address:
            raise JobsUnavailable(f"the address of the dashboard: {NO_PASSWORD}")
        if not address.startswith(("http://", "https://")):
            raise JobsUnavailable(f"{address} is no address of a Ray dashboard: write http://HEAD:8265")
        self.address = address.rstrip("/")
        self._opener = build_opener(*([ProxyHandler({})] if is_loopback(address) else []))

    def jobs(self) -> list[JobInfo]:
        """Submitted jobs, oldest first. Raises JobsUnavailable."""
        found = [_info(job) for job in self._ask("GET", "") if job["type"] == "SUBMISSION"]
        return sorted(found, key=lambda job: job.started_s or 0.0)

    def job(self, identity: str) -> JobInfo:
        """Raises JobUnknown, JobsUnavailable."""
        return _info(self._ask("GET", quote(identity, safe="")))

    def logs(self, identity: str) -> str:
        """Everything that the job has printed. Raises JobUnknown, JobsUnavailable."""
        return str(self._ask("GET", f"{quote(identity, safe='')}/logs")["logs"])

    def stop(self, identity: str) -> bool:
        """Asks the job to end, as SIGTERM does; False when it had ended. Raises JobUnknown, JobsUnavailable."""
        return bool(self._ask("POST", f"{quote(identity, safe='')}/stop")["stopped"])

    def follow(self, identity: str) -> Iterator[str]:
        """What the job prints, as it comes, until it has ended.

        Raises JobUnknown, and JobsUnavailable when the cluster was silent for LOST_S.
        """
        shown, heard = 0, time.monotonic()
        while True:
            try:
                ended = self.job(identity).ended
                text = self.logs(identity)
            except JobsUnavailable:
                if time.monotonic() - heard > LOST_S:
                    raise
                time.sleep(POLL_S)
                continue
            heard = time.monotonic()
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended:
                return
            time.sleep(POLL_S)

    def answers(self) -> bool:
        """Whether the API is up."""
        try:
            self._ask("GET", "")
        except JobsUnavailable:
            return False
        return True

    def _ask(self, method: str, path: str) -> Any:
        request = Request(f"{self.address}/api/jobs/{path}", method=method, headers=auth_headers())
        try:
            with self._opener.open(request, timeout=REQUEST_S) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            raise self._refusal(error) from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise JobsUnavailable(f"no Ray Jobs API answers at {self.address}: {error}") from error

    def _refusal(self, error: HTTPError) -> QuorumError:
        if error.code in (401, 403):
            return JobsUnavailable(
                f"{self.address} wants its cluster's token: put it into RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        lines = error.read().decode("utf-8", "replace").strip().splitlines()
        said = lines[-1] if lines else error.reason
        return (JobUnknown if error.code == 404 else JobsUnavailable)(f"{self.address}: {said}")


def _info(job: dict[str, Any]) -> JobInfo:
    return JobInfo(
        id=job["submission_id"],
        status=job["status"],
        entrypoint=job["entrypoint"],
        message=job.get("message") or "",
        metadata=job.get("metadata") or {},
        started_s=job["start_time"] / 1000 if job.get("start_time") else None,
        ended_s=job["end_time"] / 1000 if job.get("end_time") else None,
    )
