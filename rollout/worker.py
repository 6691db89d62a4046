"""The Ray actor that holds one engine, and the pool's way to it.

The actor's methods run in Ray's threads and hand their work to the engine's own thread (loop.py), so that submitting,
polling and updating weights never wait for a whole generation. Environment variables must be set before torch and
vLLM are imported: they belong into the actor's runtime environment (`worker_options`), not into its methods.
"""

import asyncio
import dataclasses
import itertools
import time
import zlib
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from conf.errors import first_line
from conf.schema.rollout import EngineConfig, RolloutConfig
from conf.schema.stages import ClusterConfig
from rewards.ray_failure import cannot_start, reason
from rewards.same_code import check_same_code
from rollout.errors import RolloutError, StartTimeout, WorkerDied, WorkerHung, WorkerNotStarted
from rollout.loop import EngineLoop
from rollout.port import PortFactory
from rollout.requests import EngineSpec, GenerationRequest, SampledGroup
from rollout.vllm_backend import environment
from rollout.weights.handle import SyncReport, WeightHandle

T = TypeVar("T")
_CALL_GRACE_S = 30.0
"""Time a poll may take beyond what it was asked to wait."""


def worker_options(engine: EngineConfig, cluster: ClusterConfig) -> dict[str, Any]:
    """Options of the Ray actor: resources, environment, concurrency.

    On a private local Ray the CPU worker asks for no core of Ray's count: its threads are bounded by
    rollout.engine.threads, and learner and reward actors share the few cores. On a cluster it asks for as many cores
    as it has threads, so that Ray spreads the workers. On GPUs tensor parallelism needs whole devices.
    """
    options: dict[str, Any] = {
        "max_concurrency": 8,
        "max_restarts": 0,
        "runtime_env": {"env_vars": environment(engine, cluster.accelerator)},
    }
    if cluster.accelerator == "cpu":
        return options | {"num_cpus": 0 if cluster.address is None else engine.threads}
    share = cluster.rollout_gpus if engine.tensor_parallel_size == 1 else float(engine.tensor_parallel_size)
    return options | {"num_cpus": 1, "num_gpus": share}


def transfer_backend(config: RolloutConfig, cluster: ClusterConfig) -> str:
    """The weight-transfer backend that rollout.weight_transfer=auto stands for."""
    if config.weight_transfer != "auto":
        return config.weight_transfer
    if cluster.accelerator == "cpu":
        return "shared_memory"
    return "ipc" if cluster.colocate else "nccl"


def ray_workers(
    model: str,
    config: RolloutConfig,
    cluster: ClusterConfig,
    *,
    max_model_len: int,
    seed: int,
    version: int = 0,
    log_dir: str | None = None,
) -> list[PortFactory]:
    """One factory for each of the configured workers.

    Args:
        model: Hugging Face folder whose weights are policy `version`.
        max_model_len: prompt plus completion, tokens.
        seed: of the run; see `engine_seed`.
        log_dir: receives one vLLM log for each worker.
    """
    spec = EngineSpec(
        model=model,
        engine=config.engine,
        max_model_len=config.engine.max_model_len or max_model_len,
        seed=seed,
        accelerator=cluster.accelerator,
        weight_transfer=transfer_backend(config, cluster),
        in_flight=config.in_flight,
        version=version,
        log_file=None,
    )
    options = worker_options(config.engine, cluster)
    return [_factory(spec, index, options, log_dir) for index in range(config.workers)]


def engine_seed(seed: int, *, worker: int, version: int, life: int) -> int:
    """Below 2^32, which numpy takes. Neither a resumed run, which begins at another policy version, nor a worker's
    replacement, its next life, draws the random numbers of the run's first step again."""
    return zlib.crc32(f"{seed}/{worker}/{version}/{life}".encode())


def _factory(spec: EngineSpec, index: int, options: dict[str, Any], log_dir: str | None) -> PortFactory:
    log_file = None if log_dir is None else f"{log_dir}/engine-{index}.log"
    lives = itertools.count()

    def port() -> RayWorkerPort:
        seed = engine_seed(spec.seed, worker=index, version=spec.version, life=next(lives))
        own = dataclasses.replace(spec, seed=seed, log_file=log_file)
        return RayWorkerPort(own, options, name=f"rollout worker {index}")

    return port


class RolloutWorker:
    """Runs in the actor's process."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._loop: EngineLoop | None = None

    def start(self) -> int:
        """Start the engine; returns its policy version, or raises what its start raised."""
        check_same_code()
        from rollout.engine import RolloutEngine

        self._loop = EngineLoop(lambda: RolloutEngine(self._spec))
        return self._loop.wait_ready()

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue groups, all before the next step."""

        def add(engine: Any) -> None:
            for request in requests:
                engine.add(request)

        self._running.call(add)

    def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        """Groups finished since the last call."""
        return self._running.collect(wait_s)

    def abort(self, group_ids: Sequence[str]) -> None:
        """Drop groups."""
        self._running.call(lambda engine: engine.abort(list(group_ids)))

    def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        """Replace the weights between two steps, or as soon as nothing is in flight with rollout.in_flight=wait."""
        asked = time.perf_counter()
        started = asked

        def update(engine: Any) -> SyncReport:
            nonlocal started
            started = time.perf_counter()
            return engine.update_weights(handle, rank_offset=rank_offset)

        report = self._running.call(update, when_idle=self._spec.in_flight == "wait")
        return dataclasses.replace(report, pause_s=started - asked)

    @property
    def _running(self) -> EngineLoop:
        if self._loop is None:
            raise WorkerDied("the rollout worker was used before it was started")
        return self._loop


class RayWorkerPort:
    """One actor life, seen from the driver."""

    def __init__(self, spec: EngineSpec, options: dict[str, Any], *, name: str) -> None:
        self.spec = spec
        """What the actor starts."""
        self._options = options
        self._name = name
        self._actor: Any = None

    async def start(self, timeout_s: float) -> int:
        self._actor = ray.remote(RolloutWorker).options(**self._options).remote(self.spec)
        late = StartTimeout(
            f"{self._name} was not ready within rollout.start_timeout_s={timeout_s:g}: the cluster lacks its resources"
            f" ({self._resources()}), or the model loads more slowly"
        )
        return await self._answer(self._actor.start.remote(), timeout_s, late)

    async def submit(self, requests: Sequence[GenerationRequest]) -> None:
        await self._answer(self._actor.submit.remote(list(requests)), None, None)

    async def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        late = WorkerHung(f"{self._name} does not answer")
        return await self._answer(self._actor.collect.remote(wait_s), wait_s + _CALL_GRACE_S, late)

    async def abort(self, group_ids: Sequence[str]) -> None:
        await self._answer(
            self._actor.abort.remote(list(group_ids)), _CALL_GRACE_S, WorkerHung(f"{self._name} does not answer")
        )

    async def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        return await self._answer(self._actor.update_weights.remote(handle, rank_offset), None, None)

    def kill(self) -> None:
        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)

    async def _answer(self, reference: Awaitable[T], timeout_s: float | None, late: RolloutError | None) -> T:
        """The call's result; Ray's exceptions become ours."""
        try:
            return await asyncio.wait_for(reference, timeout_s)
        except TimeoutError as error:
            raise late or WorkerHung(f"{self._name} does not answer") from error
        except RayTaskError as error:
            if isinstance(error.cause, RolloutError):
                raise error.cause from None
            told = first_line(error.cause, otherwise="no reason given")
            raise WorkerDied(f"{self._name} raised {type(error.cause).__name__}: {told}") from error
        except RayError as error:
            if cannot_start(error):
                raise WorkerNotStarted(f"{self._name} cannot start: {reason(error)}") from error
            verb = "died" if isinstance(error, RayActorError) else "could not be called"
            raise WorkerDied(f"{self._name} {verb}: {reason(error)}") from error

    def _resources(self) -> str:
        return f"{self._options['num_cpus']} CPUs, {self._options.get('num_gpus', 0)} GPUs"
