"""The Hugging Face folder that GRPO starts from: made by the warm-up, or given by the user."""

from pathlib import Path

from conf.errors import QuorumError
from conf.schema.root import TrainConfig
from rollout.tasks import TaskSet


class ModelMissing(QuorumError):
    """model.path is no model folder."""


async def starting_policy(config: TrainConfig, tasks: TaskSet) -> Path:
    """Runs the warm-up where it is asked for, in a Ray task that has this machine's threads to itself.

    Raises ModelMissing, or the QuorumError of the warm-up.
    """
    if config.warmup.enabled:
        return await _warm_up(config, tasks)
    assert config.model.type == "pretrained"  # the schema refuses model=tiny without a warm-up
    path = Path(config.model.path)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(config.model.path, revision=config.model.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, ValueError, OSError) as error:
        raise ModelMissing(
            f"model.path={config.model.path} is neither a folder nor a model that can be downloaded here"
        ) from error


async def _warm_up(config: TrainConfig, tasks: TaskSet) -> Path:
    import ray
    from ray.exceptions import RayTaskError

    variables = {
        "OMP_NUM_THREADS": str(config.warmup.threads),
        # Threads that spin while they wait take the core from whatever they wait for.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    gpus = 1 if config.cluster.accelerator == "gpu" else 0
    task = ray.remote(_warm_up_here).options(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": variables})
    try:
        return Path(await task.remote(config, tasks))
    except RayTaskError as error:
        if isinstance(error.cause, QuorumError):
            raise error.cause from None
        raise


def _warm_up_here(config: TrainConfig, tasks: TaskSet) -> str:
    from trainer.warmup.stage import warm_up

    policy = warm_up(
        tasks,
        model=config.model,
        prompt=config.prompt,
        warmup=config.warmup,
        seed=config.seed,
        gpu=config.cluster.accelerator == "gpu",
        report=lambda progress: None,
    )
    return str(policy.folder.resolve())
