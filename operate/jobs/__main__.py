"""`python -m operate.jobs list|status|logs|stop|resume|shutdown`: jobs on a Ray cluster, over HTTP."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

from conf.errors import QuorumError
from conf.terminal import aligned, coloured, tell, visible
from operate.jobs.client import ARGUMENTS, CODE, FOLDER, JobInfo, JobsClient, JobsUnavailable
from operate.jobs.head import running_head

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Where Ray's own command looks for the address."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m operate.jobs", description="Jobs on a Ray cluster.")
    where = f"http://HEAD:8265 (default: ${ADDRESS_VARIABLE}, or the head that operate.jobs.command started here)"
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, about in ABOUT.items():
        one = verbs.add_parser(verb, help=about)
        one.add_argument("--address", help=where)
        if verb not in ("list", "shutdown"):
            one.add_argument("job", help="the job's id")
        if verb in ("logs", "resume"):
            one.add_argument("--follow", action="store_true", help="go on until the job ends")
    return parser


ABOUT = {
    "list": "a line a job",
    "status": "one job",
    "logs": "what a job prints",
    "stop": "ask a job to end: it stops its actors and writes its summary",
    "resume": "submit a job that ended again, from its last checkpoint",
    "shutdown": "stop the jobs of the head on this machine, then end it",
}


def _client(address: str | None) -> JobsClient:
    head = running_head()
    chosen = address or os.environ.get(ADDRESS_VARIABLE) or (head.address if head else None)
    if chosen is None:
        raise JobsUnavailable(
            f"no cluster is known: give --address http://HEAD:8265, set {ADDRESS_VARIABLE}, or submit without an "
            "address, which starts a head here"
        )
    return JobsClient(chosen)


def _list(arguments: argparse.Namespace) -> int:
    jobs = _client(arguments.address).jobs()
    rows = [(job.id, job.status, _seconds(job), job.metadata.get(FOLDER, job.entrypoint)) for job in jobs]
    lines = aligned(rows, right=[2]) if rows else ["no jobs"]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    job = _client(arguments.address).job(arguments.job)
    pairs = {
        "id": job.id,
        "status": job.status,
        "message": job.message,
        "time": _seconds(job),
        "results": job.metadata.get(FOLDER, ""),
        "code": job.metadata.get(CODE, ""),
        "command": job.entrypoint,
    }
    sys.stdout.writelines(f"{name:<8} {visible(value)}\n" for name, value in pairs.items() if value)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    client = _client(arguments.address)
    if arguments.follow:
        return _follow(client, arguments.job)
    sys.stdout.write(coloured(client.logs(arguments.job)))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    client = _client(arguments.address)
    asked = client.stop(arguments.job)
    sys.stdout.write("asked to stop\n" if asked else f"it has ended: {client.job(arguments.job).status.lower()}\n")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    """The packaged source of an ended job is gone from the cluster: this checkout's is sent."""
    client = _client(arguments.address)
    job = client.job(arguments.job)
    identity = resubmit(client, job)
    sys.stdout.write(f"{visible(identity)}\n")
    return _follow(client, identity) if arguments.follow else 0


def resubmit(client: JobsClient, job: JobInfo) -> str:
    """Submits the same command, told to continue; returns the new job's id. Raises QuorumError."""
    from operate.jobs.submit import submit

    if not job.ended:
        raise QuorumError(f"{job.id} is {job.status.lower()}: stop it before it is resumed")
    if ARGUMENTS not in job.metadata:
        raise QuorumError(f"{job.id} was not submitted by quorum: its command is {job.entrypoint}")
    python, module, *settings = json.loads(job.metadata[ARGUMENTS])
    folder = job.metadata[FOLDER]
    return submit(
        client.address,
        python=python,
        module=module,
        arguments=continued(module, settings),
        name=job.id.rsplit("-", 3)[0],
        folder=folder,
    )


def continued(module: str, settings: Sequence[str]) -> list[str]:
    """The settings that go on from where the job ended; a benchmark does so by itself."""
    if module != "trainer":
        return list(settings)
    kept = [setting for setting in settings if setting.lstrip("+").partition("=")[0] != "resume"]
    return [*kept, "resume=auto"]


def _shutdown(arguments: argparse.Namespace) -> int:
    from operate.jobs.shutdown import shut_down

    ended = shut_down(_say)
    sys.stdout.write("the head has ended\n" if ended else "no head runs here\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _follow(client: JobsClient, identity: str) -> int:
    from operate.jobs.command import follow

    return follow(client, identity)


def _seconds(job: JobInfo) -> str:
    if job.started_s is None:
        return "-"
    seconds = int((job.ended_s or time.time()) - job.started_s)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "status": _status,
    "logs": _logs,
    "stop": _stop,
    "resume": _resume,
    "shutdown": _shutdown,
}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return VERBS[arguments.verb](arguments)
    except QuorumError as error:
        return tell(error)
    except KeyboardInterrupt:
        following = arguments.verb in ("logs", "resume")
        sys.stderr.write("interrupted; the job goes on\n" if following else "interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
