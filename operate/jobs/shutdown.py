"""The end of a local head: its jobs are asked to end first, and what they cannot write down themselves is written here.

A head takes its jobs along at once. A run that ended so would say "running" wherever it is listed.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.errors import QuorumError
from operate.jobs.client import FOLDER, JobInfo, JobsClient, JobsUnavailable, JobUnknown
from operate.jobs.head import HEAD_FILE, running_head, stop_head
from operate.jobs.submit import STOP_WAIT_S
from records.index.lost import record_stopped

GRACE_S = 15.0
"""Wait beyond the time that Ray gives a job between SIGTERM and SIGKILL."""
CAUSE = "the Ray head that ran it was shut down"


def shut_down(note: Callable[[str], None], *, file: Path = HEAD_FILE) -> bool:
    """Ends the jobs of the local head, then the head; False when none runs. `note` gets a line for each job that was
    ended. Raises HeadFailed."""
    head = running_head(file)
    left = [] if head is None else end_jobs(JobsClient(head.address), note, limit_s=STOP_WAIT_S + GRACE_S)
    ended = stop_head(file)
    record(left, note)
    return ended


def end_jobs(client: JobsClient, note: Callable[[str], None], *, limit_s: float) -> list[JobInfo]:
    """Asks every job that has not ended to do so, and waits for all together; those jobs, which end with their head
    whether they could be asked or not. A head that does not answer is waited for no longer."""
    left: list[JobInfo] = []
    try:
        left = [job for job in client.jobs() if not job.ended]
        asked = [job for job in left if _asked(client, job, note)]
        limit = time.monotonic() + limit_s
        while not all(_has_ended(client, job) for job in asked) and time.monotonic() < limit:
            time.sleep(0.5)
    except JobsUnavailable as error:
        note(str(error))
    return left


def _asked(client: JobsClient, job: JobInfo, note: Callable[[str], None]) -> bool:
    """False where the head refuses this one job. Raises JobsUnavailable where it answers nothing any more."""
    note(f"stopping {job.id}")
    try:
        client.stop(job.id)
    except JobUnknown:
        return False
    except JobsUnavailable as error:
        if not client.answers():
            raise
        note(str(error))
        return False
    return True


def _has_ended(client: JobsClient, job: JobInfo) -> bool:
    try:
        return client.job(job.id).ended
    except JobUnknown:
        return True


def record(jobs: Sequence[JobInfo], note: Callable[[str], None]) -> None:
    """Writes down the end of those runs that have not done so themselves."""
    for job in jobs:
        if FOLDER not in job.metadata:
            continue
        folder = Path(job.metadata[FOLDER])
        try:
            if record_stopped(folder, CAUSE):
                note(f"{folder} did not end by itself: it is recorded as stopped")
        except (QuorumError, OSError) as error:
            note(f"the end of {folder} could not be recorded: {error}")
