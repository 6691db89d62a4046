"""A Ray head on this machine for a user who has no cluster.

Its dashboard, where jobs are submitted, listens on the loopback address; Ray's other ports are open to the network and
ask for a token (made by Ray on first use), as the dashboard does. It lives on after the command that started it, so
that jobs do: `quorum jobs shutdown` ends it, or a restart of the machine. One head a folder; its address is kept in
HEAD_FILE.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from conf.errors import QuorumError, first_line
from conf.short_folder import new_short_folder
from operate.jobs.client import JobsClient, token_file
from records.files import write_atomically
from rewards.ray_start import home_holds_token

HEAD_FILE = Path("runs/.cache/head.json")
START_S = 120.0
STOP_S = 30.0
LOOPBACK = "127.0.0.1"


class HeadFailed(QuorumError):
    """The local head did not start, or does not end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    address: str
    """Of the dashboard, where jobs are submitted."""
    pid: int
    started: float
    """When the process was created, Unix time: tells it from a later process of the same number."""
    folder: str
    """Ray's session and log files."""

    def alive(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return False


def running_head(file: Path = HEAD_FILE) -> Head | None:
    """The head that an earlier command started here, if it is still alive. Raises HeadFailed where its file is
    damaged."""
    if not file.is_file():
        return None
    try:
        head = TypeAdapter(Head).validate_json(file.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        reason = first_line(error, otherwise="it cannot be read")
        raise HeadFailed(
            f"{file}, which says where the local Ray head is, is damaged ({reason}): remove it, and end a head that "
            "still runs with `ray stop`"
        ) from error
    return head if head.alive() else None


def start_head(cpus: int, file: Path = HEAD_FILE) -> Head:
    """A new head whose Ray counts `cpus` CPUs; returns when its Jobs API answers. Raises HeadFailed."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    ray = str(Path(sys.executable).with_name("ray"))
    _ensure_token(ray, environment)
    # The paths of Ray's sockets have about 100 characters: the folder's name must be short.
    folder = new_short_folder()
    port = _free_port()
    command = [
        *(ray, "start", "--head", "--block", f"--node-ip-address={LOOPBACK}", f"--port={_free_port()}"),
        *(f"--dashboard-host={LOOPBACK}", f"--dashboard-port={port}", "--include-dashboard=true"),
        # Ports that Ray takes as fixed numbers, so that another Ray on this machine may have them.
        *(f"--dashboard-agent-listen-port={_free_port()}", f"--ray-client-server-port={_free_port()}"),
        *(f"--num-cpus={cpus}", f"--temp-dir={folder}", "--disable-usage-stats"),
    ]
    log = Path(folder, "head.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    head = Head(
        address=f"http://{LOOPBACK}:{port}",
        pid=process.pid,
        started=psutil.Process(process.pid).create_time(),
        folder=folder,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(asdict(head)))
    deadline = time.monotonic() + START_S
    client = JobsClient(head.address)
    while not client.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            if process.poll() is None:
                stop_head(file)
            raise HeadFailed(f"a local Ray head did not start within {START_S:.0f} s; its log: {log}")
        time.sleep(0.5)
    return head


def stop_head(file: Path = HEAD_FILE) -> bool:
    """Ends the head and the jobs on it; False when none runs. Raises HeadFailed."""
    head = running_head(file)
    if head is not None:
        # At SIGTERM the head ends its processes itself; all are of the process group that it leads.
        for end, number in ((os.kill, signal.SIGTERM), (os.killpg, signal.SIGKILL)):
            with contextlib.suppress(ProcessLookupError):
                end(head.pid, number)
            deadline = time.monotonic() + STOP_S
            while head.alive() and time.monotonic() < deadline:
                _reap(head.pid)
                time.sleep(0.1)
            if not head.alive():
                break
        else:
            raise HeadFailed(f"the local Ray head, process {head.pid}, does not end")
        shutil.rmtree(head.folder, ignore_errors=True)
    file.unlink(missing_ok=True)
    return head is not None


def _reap(pid: int) -> None:
    """A head that this very process started stays a zombie until it is waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _ensure_token(ray: str, environment: dict[str, str]) -> None:
    """Lets Ray make the user's token, as `ray.init` does for a private cluster."""
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH"):
        return
    if not home_holds_token():
        raise HeadFailed(
            "the home folder cannot be written, and Ray keeps its token there: set RAY_AUTH_TOKEN_PATH to a file that "
            "holds a token of your own"
        )
    file = token_file()
    if file is not None and not file.is_file():
        subprocess.run([ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
