"""The Hugging Face folder that GRPO starts from: made by the warm-up, or given by the user."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from conf.errors import QuorumError
from conf.schema.root import TrainConfig
from rewards.same_code import check_same_code
from rollout.tasks import TaskSet
from trainer.warmup.cache import content_hash

if TYPE_CHECKING:
    from trainer.warmup.sft import WarmupProgress


class ModelMissing(QuorumError):
    """model.path is no model folder."""


class WarmupLost(QuorumError):
    """The warm-up's process ended, or was not heard of for warmup.stall_timeout_s."""


def given_policy(config: TrainConfig) -> Path | None:
    """The pretrained model's folder, downloaded where need be; None for a policy that the warm-up builds.

    Raises ModelMissing.
    """
    if config.model.type == "tiny":
        return None
    path = Path(config.model.path)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(config.model.path, revision=config.model.revision)).absolute()
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, ValueError, OSError) as error:
        raise ModelMissing(
            f"model.path={config.model.path} is neither a folder nor a model that can be downloaded here"
        ) from error


async def warmed_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
    """Runs the warm-up in a Ray task of its own, or finds it in the cache; `note` receives a line now and then.

    Raises the QuorumError of the warm-up, and WarmupLost.
    """
    # Looked up here: a resumed run need not wait until another process has imported what a warm-up needs.
    name = content_hash(tasks, model=config.model, prompt=config.prompt, warmup=config.warmup, seed=config.seed)
    folder = Path(config.warmup.cache) / name
    if folder.is_dir():
        return folder.resolve()
    import ray
    from ray.exceptions import RayError, RayTaskError

    from rewards.ray_failure import reason

    variables = {
        "OMP_NUM_THREADS": str(config.warmup.threads),
        # Threads that spin while they wait take the core from whatever they wait for.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    gpus = 1 if config.cluster.accelerator == "gpu" else 0
    task = ray.remote(_warm_up_here).options(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": variables})
    stream = task.remote(config, tasks)
    try:
        return await last_told(stream, note, limit_s=config.warmup.stall_timeout_s)
    except asyncio.CancelledError:
        ray.cancel(stream, force=True)  # its process would train on for a while
        raise
    except RayTaskError as error:
        if isinstance(error.cause, QuorumError):
            raise error.cause from None
        raise WarmupLost(f"the warm-up failed: {error.cause!r}") from error
    except RayError as error:
        raise WarmupLost(f"the warm-up's process was lost: {reason(error)}") from error


async def last_told(
    stream: "AsyncIterator[Awaitable[WarmupProgress | Path]]", note: Callable[[str], None], *, limit_s: float
) -> Path:
    """The folder that ends the stream; progress goes to `note`. Raises WarmupLost after `limit_s` of silence."""
    while True:
        try:
            told = await asyncio.wait_for(_next(stream), limit_s)
        except TimeoutError:
            raise WarmupLost(
                f"nothing was heard of the warm-up for warmup.stall_timeout_s={limit_s:g}: it hangs, is slower than "
                "that, or the cluster lacks a CPU or GPU for it"
            ) from None
        if isinstance(told, Path):
            return told
        note(f"warm-up step {told.step}/{told.steps}  loss {told.loss:.3f}")


async def _next(stream: "AsyncIterator[Awaitable[WarmupProgress | Path]]") -> "WarmupProgress | Path":
    return await (await anext(stream))


def _warm_up_here(config: TrainConfig, tasks: TaskSet) -> "Iterator[WarmupProgress | Path]":
    """What the Ray task yields: progress, and the policy's folder last."""
    check_same_code()
    from trainer.warmup.stage import configured_warm_up

    told: SimpleQueue[WarmupProgress | None] = SimpleQueue()
    with ThreadPoolExecutor(1, thread_name_prefix="warm-up") as thread:
        policy = thread.submit(configured_warm_up, config, tasks, told.put)
        policy.add_done_callback(lambda _: told.put(None))
        while (progress := told.get()) is not None:
            yield progress
        yield policy.result().folder.resolve()
