"""`python -m operate.jobs.command [train | bench spider|bird|demo] [setting=value ...] [cluster.address=http://HEAD:8265]`:
runs a training or a benchmark as a Ray job. Without an address a head is started on this machine.
"""

import argparse
import sys
from pathlib import Path

from conf.errors import ConfigError, QuorumError
from conf.terminal import coloured, tell, visible
from operate.jobs.client import JobsClient
from operate.jobs.head import running_head, start_head
from operate.jobs.settings import KINDS, prepare, take_address
from operate.jobs.submit import submit

EXAMPLE = "quorum submit experiment=quickstart --follow"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operate.jobs.command",
        description="Run a training (default) or a benchmark as a Ray job.",
        epilog="cluster.address=http://HEAD:8265 names the cluster; without it a head is started on this machine.",
    )
    parser.add_argument("words", nargs="*", metavar="train|bench spider|setting=value")
    parser.add_argument("--follow", action="store_true", help="show what the job prints until it ends")
    parser.add_argument("--base", type=Path, help="folder, seen by every machine, from which relative paths are taken")
    parser.add_argument("--python", help="the interpreter on the cluster (default: python; here: this one)")
    return parser


def main() -> int:
    """0: submitted (with --follow: succeeded). 1: an error, or the job failed. 2: the configuration is wrong."""
    arguments = _parser().parse_intermixed_args()
    try:
        if not any("=" in word for word in arguments.words):
            raise ConfigError(f"nothing was chosen to submit, for instance experiment=quickstart as in: {EXAMPLE}")
        return _run(arguments)
    except QuorumError as error:
        return tell(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; a job that was submitted goes on\n")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    words = [word for word in arguments.words if not _is_setting(word)]
    kind = KINDS.get(tuple(words) or ("train",))
    if kind is None:
        known = ", ".join(" ".join(verb) for verb in KINDS)
        raise ConfigError(f"{' '.join(words)} cannot be submitted: choose one of {known}")
    address, overrides = take_address([word for word in arguments.words if _is_setting(word)])
    base = arguments.base or (None if address else Path())
    settings = prepare(kind, overrides, base.resolve() if base else None)
    python = arguments.python or ("python" if address else sys.executable)
    if address is None:
        address = _local(settings.cpus)
    identity = submit(
        address,
        python=python,
        module=kind.module,
        arguments=settings.arguments,
        name=settings.name,
        folder=settings.folder,
    )
    sys.stdout.write(f"{identity}\n")
    sys.stderr.write(f"results: {settings.folder}; watch with: quorum jobs logs {identity} --follow\n")
    sys.stdout.flush()
    return follow(JobsClient(address), identity) if arguments.follow else 0


def _is_setting(word: str) -> bool:
    """name=value, or ~name, which takes a setting out."""
    return "=" in word or word.startswith("~")


def _local(cpus: int) -> str:
    head = running_head()
    if head is None:
        sys.stderr.write("starting a Ray head on this machine ...\n")
        head = start_head(cpus)
        sys.stderr.write(f"Ray head at {head.address}: it stays until `quorum jobs shutdown`\n")
    return head.address


def follow(client: JobsClient, identity: str) -> int:
    """Writes what the job prints; 0 when it succeeded."""
    for text in client.follow(identity):
        sys.stdout.write(coloured(text))
        sys.stdout.flush()
    job = client.job(identity)
    ended = f"job {identity} {job.status.lower()}{f': {job.message}' if job.message else ''}"
    sys.stderr.write(f"{visible(ended, lines=True)}\n")
    return 0 if job.status == "SUCCEEDED" else 1


if __name__ == "__main__":
    sys.exit(main())
