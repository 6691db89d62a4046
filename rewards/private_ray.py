"""A Ray of this process's own, which ends with it. Ray itself is imported when it is started."""

from contextlib import suppress

import psutil

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and training sequences are small; weights never pass through the object store."""
START_TRIES = 3


def start_private_ray(cpus: int) -> None:
    """Ray gives its own processes 30 s to come up, which a loaded machine may exceed: more than one try.

    Raises what Ray raises; `is_start_failure` tells what that may be.
    """
    import ray

    for tries_left in reversed(range(START_TRIES)):
        before = set(psutil.Process().children(recursive=True))
        try:
            # "local" never joins another Ray that runs on this machine.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
            )
            return
        except Exception as error:
            if not tries_left or not _came_up_late(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def is_start_failure(error: Exception) -> bool:
    """Whether `ray.init` says so that there is no Ray; any other kind is ours to see."""
    return _came_up_late(error) or isinstance(error, RuntimeError | OSError | ValueError)


def _came_up_late(error: Exception) -> bool:
    """Ray raises a bare Exception when its processes do not come up in time."""
    return type(error) is Exception
