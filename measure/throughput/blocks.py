"""One block of a comparison: some steps of this trainer, or of the peer, as a process of its own."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from conf.child import module_command
from conf.load import quoted
from conf.schema.throughput import ThroughputConfig, Variant
from measure.processes import RunFailed, run_process
from measure.throughput.jobs import VARIANTS, Job, two_cores
from measure.throughput.steps import Step, our_steps, our_tasks, peer_steps

TAIL = 1
"""Steps at the end of our blocks that are not measured: nothing is generated beside the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    steps: list[Step]
    """All, with warm-up and tail."""
    tasks: list[set[str]]
    """Ids by step."""

    def measured(self, warmup: int, count: int) -> list[Step]:
        return self.steps[warmup : warmup + count]


def bind(cores: int) -> None:
    """This process and whatever it starts run on the first `cores` cores that it may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise RunFailed(f"cores={cores}: this process may use {len(allowed)}")
    os.sched_setaffinity(0, allowed[:cores])


def our_block(
    job: Job, variant: Variant, config: ThroughputConfig, folder: Path, *, name: str, steps: int, seed: int
) -> tuple[Block, Path]:
    """Runs `steps` optimizer steps; the block and its run folder. Raises RunFailed."""
    placement = two_cores(job.name, variant) if config.device == "cpu" and config.cores == 2 else ()
    settings = (
        *placement,
        *job.settings,
        *VARIANTS[variant],
        f"cluster.cpus={config.cores}",
        f"seed={seed}",
        f"pipeline.steps={steps}",
        # Lengths of whole groups, for counting: written in steps that are not measured.
        f"logging.samples_every={max(2, steps)}",
        "logging.samples_groups=4096",
        f"run.dir={quoted(str(folder))}",
        f"run.name={name}",
    )
    log = folder / f"{name}.log"
    code = run_process(module_command("trainer", *settings), name=name, log=log, timeout_s=config.block_timeout_s)
    if code:
        raise RunFailed(f"{name} ended with exit code {code}: see {log}")
    run = folder / name
    return Block(steps=our_steps(run), tasks=our_tasks(run)), run


def peer_block(job: Job, config: ThroughputConfig, folder: Path, *, name: str, steps: int, seed: int) -> Block:
    """Runs `steps` optimizer steps of TRL's trainer. Raises RunFailed."""
    output = folder / f"{name}.jsonl"
    spec = folder / f"{name}.json"
    spec.write_text(
        json.dumps(
            {
                "settings": [*job.settings, f"seed={seed}"],
                "policy": str(job.policy),
                "steps": steps,
                "threads": config.cores,
                "micro_batch": job.micro_batch,
                "generation": config.trl.generation,
                "output": str(output),
            }
        ),
        encoding="utf-8",
    )
    log = folder / f"{name}.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(config.cores), "TOKENIZERS_PARALLELISM": "false"}
    code = run_process(
        module_command("measure.throughput.peer", str(spec)),
        name=name,
        log=log,
        timeout_s=config.block_timeout_s,
        environment=environment,
    )
    if code:
        raise RunFailed(f"{name} ended with exit code {code}: see {log}")
    steps_done = peer_steps(output)
    return Block(steps=steps_done, tasks=[set(step.row["tasks"]) for step in steps_done])


def check_same_data(ours: Block, theirs: Block) -> None:
    """Raises RunFailed when two blocks did not take the same tasks in the same steps."""
    for number, (mine, other) in enumerate(zip(ours.tasks, theirs.tasks, strict=False), start=1):
        if mine != other:
            raise RunFailed(f"step {number} of the two trainers took different tasks: the comparison would be void")
