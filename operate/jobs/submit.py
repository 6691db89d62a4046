"""Packages the source and hands a job to Ray.

Nothing of this shell's environment travels: secrets (a wandb key, a hosted model's key) belong into the environment of
the cluster's nodes, never into a job, whose environment the dashboard shows.
"""

import json
import logging
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from conf.errors import QuorumError
from conf.load import FOLDER as CONF
from conf.loopback import keep_from_proxy
from operate.jobs.client import ARGUMENTS, CODE, FOLDER, auth_headers
from operate.jobs.package import stage
from records.index.identity import CODE_VERSION, JOB_ID, code_version

STOP_WAIT_S = 60
"""How long Ray waits between SIGTERM and SIGKILL when a job is stopped; a run writes its summary in it."""

NODES_S, PAUSE_S = 180.0, 1.0
NO_NODE = "No available agent to submit job"
"""How Ray says that no node runs jobs yet."""


class SubmitFailed(QuorumError):
    """The cluster did not take the job."""


def submit(address: str, *, python: str, module: str, arguments: Sequence[str], name: str, folder: str) -> str:
    """Submits `python -m module arguments`; returns the job's id. Raises SubmitFailed, PackageTooLarge."""
    from ray.job_submission import JobSubmissionClient

    keep_from_proxy(address)
    for talkative in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # Ray puts the id into addresses and into names of files.
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-.") or "job"
    identity = f"{plain}-{datetime.now():%m%d-%H%M%S}-{secrets.token_hex(2)}"
    code = code_version(CONF.parent)
    variables = {CODE_VERSION: code, JOB_ID: identity, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    with tempfile.TemporaryDirectory(prefix="quorum-package-") as package:
        stage(CONF.parent, Path(package))
        try:
            client = JobSubmissionClient(address, headers=auth_headers())
            return taken(
                lambda: client.submit_job(
                    entrypoint=shlex.join([python, "-m", module, *arguments]),
                    submission_id=identity,
                    runtime_env={"working_dir": package, "env_vars": variables},
                    metadata={ARGUMENTS: json.dumps([python, module, *arguments]), FOLDER: folder, CODE: code},
                )
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise SubmitFailed(f"{address} did not take the job: {' '.join(str(error).split())}") from error


def taken(submit_job: Callable[[], str]) -> str:
    """Asks again while no node of a cluster that has just started takes jobs; at most NODES_S."""
    limit = time.monotonic() + NODES_S
    while True:
        try:
            return submit_job()
        except RuntimeError as error:
            if NO_NODE not in str(error) or time.monotonic() > limit:
                raise
        time.sleep(PAUSE_S)
