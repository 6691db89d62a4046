"""A Ray cluster of two nodes on this machine, and the loss of the node that holds the rollout worker.

`python -m measure.chaos.nodes` is the process that owns the cluster: it tells the address as one JSON line, replaces
its second node for each line that it reads, and ends with its standard input.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.child import module_command
from measure.chaos.scene import Noticed, NotPossible, Scene
from measure.chaos.watched import TrainerRun
from rewards.ray_start import ray_folder

HEAD_CPUS = 2
ROLLOUT_CPUS = 3
"""More than the head has: the rollout worker, which asks for all of them, fits on the second node alone."""
OBJECT_STORE_BYTES = 128 * 2**20
SETTINGS = (
    "rollout.workers=1",
    f"rollout.engine.threads={ROLLOUT_CPUS}",
    "learner.threads=1",
    "rollout.start_timeout_s=300",
)


@contextmanager
def lost_node(folder: Path) -> Iterator[Scene]:
    """The node with the rollout worker is killed with all that runs on it; an empty one joins in its place."""
    log = folder.with_name(f"{folder.name}.cluster.log")
    with log.open("ab") as errors:
        owner = subprocess.Popen(
            module_command("measure.chaos.nodes"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert owner.stdin is not None
    assert owner.stdout is not None
    try:
        told = owner.stdout.readline()
        if not told:
            raise NotPossible(f"a Ray cluster of two nodes does not start here: see {log}")

        def inject(run: TrainerRun) -> Noticed:
            since = run.log_size()
            owner.stdin.write("replace\n")  # type: ignore[union-attr]
            owner.stdin.flush()  # type: ignore[union-attr]
            return lambda: run.said("groups to sample again", since=since)

        yield Scene(inject=inject, settings=(f"cluster.address={json.loads(told)['address']}", *SETTINGS))
    finally:
        owner.stdin.close()
        try:
            owner.wait(60)
        except subprocess.TimeoutExpired:
            owner.kill()
            owner.wait()


def main() -> int:
    """Owns the cluster until standard input ends."""
    ray_command = str(Path(sys.executable).with_name("ray"))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not (Path.home() / ".ray" / "auth_token").is_file():
        subprocess.run([ray_command, "get-auth-token", "--generate"], check=True, capture_output=True)
    folder = ray_folder()
    if folder is not None:
        os.environ["RAY_TMPDIR"] = folder
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=HEAD_CPUS, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)
    node = cluster.add_node(num_cpus=ROLLOUT_CPUS, object_store_memory=OBJECT_STORE_BYTES)
    sys.stdout.write(json.dumps({"address": cluster.address}) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(node, allow_graceful=False)
        node = cluster.add_node(num_cpus=ROLLOUT_CPUS, object_store_memory=OBJECT_STORE_BYTES)
    cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
