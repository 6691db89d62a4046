"""From a configuration to a plan: demands of its actors, their places, the cost of a step."""

from dataclasses import dataclass

from conf.schema.root import TrainConfig
from rollout.shape import ModelShape
from trainer.plan.estimate import (
    GIB,
    Device,
    Learner,
    Rollout,
    StepCost,
    Work,
    engine_weights,
    kv_bytes_per_token,
    learner_memory,
    sequences_that_fit,
    step_cost,
)
from trainer.plan.layout import Demand, Machine, Place, PlanImpossible, place

MORE_HOST = "take a machine with more host memory"
BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    shape: ModelShape
    machine: Machine
    places: tuple[Place, ...]
    cost: StepCost | None
    """None on the CPU, where the model of the cost does not hold."""
    sequences: int
    """Sequences of full length that one engine holds at once."""

    @property
    def nodes(self) -> int:
        return 1 + max(one.node for one in self.places)


def learner_of(config: TrainConfig) -> Learner:
    learner = config.learner
    return Learner(
        ranks=learner.ranks,
        zero_stage=learner.zero_stage,
        weight_bytes=BYTES[learner.dtype],
        gradient_checkpointing=learner.gradient_checkpointing,
        micro_batch_tokens=learner.micro_batch_tokens,
        logit_tokens=learner.logprob_chunk_tokens,
        shared_prefix=learner.packing == "shared_prefix",
        adapter_rank=learner.lora.rank,
        reference=config.algo.kl.coefficient > 0,
    )


def rollout_of(config: TrainConfig) -> Rollout:
    engine = config.rollout.engine
    return Rollout(
        workers=config.rollout.workers,
        tensor_parallel=engine.tensor_parallel_size,
        weight_bytes=BYTES[engine.dtype],
        max_len=engine.max_model_len or config.prompt.max_tokens + config.rollout.sampling.max_tokens,
        max_seqs=engine.max_num_seqs,
    )


def work_of(config: TrainConfig) -> Work:
    return Work(
        prompts=config.pipeline.prompts_per_step,
        group=config.rollout.group_size,
        prompt_tokens=config.plan.prompt_tokens or config.prompt.max_tokens,
        completion_tokens=config.plan.completion_tokens or config.rollout.sampling.max_tokens,
        overlapped=config.pipeline.max_staleness > 0 and not config.cluster.colocate,
    )


def device_of(config: TrainConfig) -> Device:
    plan = config.plan
    return Device(
        train_flops=plan.peak_tflops * 1e12 * plan.train_efficiency,
        prefill_flops=plan.peak_tflops * 1e12 * plan.prefill_efficiency,
        decode_bytes=plan.memory_gb_s * 1e9 * plan.decode_efficiency,
        link_bytes=plan.link_gb_s * 1e9,
        dollars_hour=plan.price_gpu_hour,
    )


def build(config: TrainConfig, shape: ModelShape, machine: Machine) -> Plan:
    """Raises PlanImpossible."""
    width = config.rollout.engine.tensor_parallel_size
    if shape.heads % width:
        widths = [number for number in range(1, width) if shape.heads % number == 0]
        raise PlanImpossible(
            f"rollout.engine.tensor_parallel_size={width} does not divide the model's {shape.heads} attention heads: "
            f"set it to {widths[-1]}"
        )
    demands = [*rank_demands(config, shape), *worker_demands(config, shape, machine), *_others(config)]
    places = place(demands, machine)
    rollout = rollout_of(config)
    gpu = config.cluster.accelerator == "gpu"
    fits = sequences_held(config, shape, machine)
    cost = None
    if gpu:
        devices = len({(one.node, device) for one in places for device in one.devices})
        work = work_of(config)
        cost = step_cost(shape, learner_of(config), rollout, work, device_of(config), fits=fits, devices=devices)
    return Plan(shape=shape, machine=machine, places=tuple(places), cost=cost, sequences=fits)


def sequences_held(config: TrainConfig, shape: ModelShape, machine: Machine) -> int:
    """Sequences of full length that an engine holds at once. Raises PlanImpossible when it is none."""
    rollout, share = rollout_of(config), engine_bytes(config, shape, machine)
    fits = sequences_that_fit(shape, rollout, share)
    if fits == 0:
        one = kv_bytes_per_token(shape, rollout.weight_bytes) * rollout.max_len / rollout.tensor_parallel
        weights = engine_weights(shape, rollout)
        raise PlanImpossible(
            f"an engine holds {share / GIB:.1f} GiB on each device, and weights {weights / GIB:.1f}"
            f" + one sequence of {rollout.max_len} tokens {one / GIB:.2f} do not fit: raise "
            "rollout.engine.gpu_memory_utilization (CPU: kv_cache_gib) or tensor_parallel_size"
        )
    return fits


def engine_bytes(config: TrainConfig, shape: ModelShape, machine: Machine) -> float:
    """What one engine may fill with weights and cache."""
    engine = config.rollout.engine
    if config.cluster.accelerator == "gpu":
        return machine.gpu_bytes * engine.gpu_memory_utilization - config.plan.device_overhead_gib * GIB
    return engine.kv_cache_gib * GIB + engine_weights(shape, rollout_of(config))


def rank_demands(config: TrainConfig, shape: ModelShape) -> list[Demand]:
    learner = learner_of(config)
    memory = learner_memory(shape, learner)
    tensors = (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("reference", memory.reference),
        ("activations", memory.activations),
        ("logits", memory.logits),
    )
    gpu = config.cluster.accelerator == "gpu"
    process = ("process", config.plan.process_gib * GIB)
    # Rank 0 gathers the policy in host memory to write it, and where its device or shared memory offers it to engines.
    gathered = ("policy to write", float(shape.parameters * learner.weight_bytes))
    offered = ("weights to send", float(shape.parameters * BYTES[config.rollout.engine.dtype]))
    device = (*tensors, ("context", config.plan.device_overhead_gib * GIB))
    on_host = (gathered,) if gpu else (gathered, offered)
    remedy = (
        "lower learner.micro_batch_tokens or learner.logprob_chunk_tokens, set learner.gradient_checkpointing=true, or "
        "shard with a higher learner.zero_stage over more learner.ranks"
    )
    return [
        Demand(
            name=f"learner rank {rank}",
            gpus=config.cluster.learner_gpus if gpu else 0.0,
            gpu_parts=(*device, *((offered,) if rank == 0 else ())) if gpu else (),
            host_parts=(process, *(() if gpu else tensors), *(on_host if rank == 0 else ())),
            remedy=remedy,
            host_remedy=MORE_HOST if gpu else "",
            fewer=("learner.ranks",) if learner.ranks > 1 else (),
            narrower="cluster.learner_gpus",
        )
        for rank in range(learner.ranks)
    ]


def worker_demands(config: TrainConfig, shape: ModelShape, machine: Machine) -> list[Demand]:
    rollout, engine = rollout_of(config), config.rollout.engine
    weights = engine_weights(shape, rollout)
    process = ("process", config.plan.process_gib * GIB)
    gpu = config.cluster.accelerator == "gpu"
    if gpu:
        context = config.plan.device_overhead_gib * GIB
        # vLLM fills its whole share.
        cache = machine.gpu_bytes * engine.gpu_memory_utilization - weights - context
        parts: tuple[tuple[str, float], ...] = (("weights", weights), ("cache", cache), ("context", context))
        host: tuple[tuple[str, float], ...] = (process,)
        remedy = (
            "raise rollout.engine.tensor_parallel_size, or lower rollout.engine.gpu_memory_utilization or its budgets"
        )
    else:
        parts = ()
        host = (process, ("weights", weights), ("cache", engine.kv_cache_gib * GIB))
        remedy = "lower rollout.engine.kv_cache_gib or rollout.workers"
    wide, width = engine.tensor_parallel_size > 1, "rollout.engine.tensor_parallel_size"
    gpus = float(engine.tensor_parallel_size) if wide else config.cluster.rollout_gpus
    return [
        Demand(
            name=f"rollout worker {number}",
            gpus=gpus if gpu else 0.0,
            gpu_parts=parts,
            host_parts=host,
            remedy=remedy,
            host_remedy=MORE_HOST if gpu else "",
            fewer=(*(("rollout.workers",) if rollout.workers > 1 else ()), *((width,) if wide else ())),
            narrower=width if wide else "cluster.rollout_gpus",
        )
        for number in range(rollout.workers)
    ]


def _others(config: TrainConfig) -> list[Demand]:
    """The driver, and reward actors with their SQLite processes at their heap limit."""
    process = config.plan.process_gib * GIB
    server = config.reward.server
    heap = config.reward.execution.budget.heap_mib * 2**20 * server.executors
    actors = [
        Demand(
            name=f"reward actor {number}",
            gpus=0.0,
            gpu_parts=(),
            host_parts=(("process", process), ("queries", float(heap))),
            remedy="lower reward.server.actors, reward.server.executors or reward.execution.budget.heap_mib",
        )
        # As many again judge evaluations.
        for number in range(2 * server.actors)
    ]
    driver = Demand(
        name="driver", gpus=0.0, gpu_parts=(), host_parts=(("process", process),), remedy="take a larger machine"
    )
    return [driver, *actors]
