"""`python -m trainer.replay RUN/skipped/step-N/batch.json`: which group and which completion make a gradient infinite.

Loads the policy that met the batch into one learner rank in this process, forms the gradient of the whole batch, then
of each group, then of each completion of the groups that fail alone, and changes no weight.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import QuorumError
from conf.schema.root import TrainConfig
from conf.terminal import tell, visible
from trainer.carriers import TrainingSequence
from trainer.finished import run_config
from trainer.skipped import SkippedBatch, read_batch

if TYPE_CHECKING:
    from trainer.learner.rank import LearnerRank

_STILL = 1e-30
"""A learning rate that moves no weight: every gradient is formed on the policy as it was kept."""


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 all gradients are finite now, 1 an error, 2 wrong usage, 3 the cause is shown."""
    asked = list(arguments) in (["-h"], ["--help"])
    if len(arguments) != 1 or asked:
        (sys.stdout if asked else sys.stderr).write(f"{__doc__}\n")
        return 0 if asked else 2
    file = Path(arguments[0])
    try:
        batch = read_batch(file)
        lines = replay(batch, run_config(file.resolve().parents[2]), file.parent / "policy")
    except QuorumError as error:
        return tell(error)
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
    return 3 if len(lines) > 1 else 0


def replay(batch: SkippedBatch, config: TrainConfig, policy: Path) -> list[str]:
    """A line on the whole batch, then one for each group and completion whose gradient is not finite by itself."""
    rank = _rank(config, policy)
    norm = _gradient_norm(rank, batch.sequences)
    lines = [f"step {batch.step}: {len(batch.sequences)} completions, gradient norm {norm:g}"]
    for index, task_id in enumerate(batch.task_ids):
        group = [sequence for sequence in batch.sequences if sequence.group_index == index]
        if not group or _finite(_gradient_norm(rank, group)):
            continue
        lines.append(f"group {index}, task {task_id}: not finite")
        found = rank.logprobs(group)
        for place, (sequence, logps) in enumerate(zip(group, found, strict=True)):
            norm = _gradient_norm(rank, [sequence])
            if not _finite(norm):
                gap = max((abs(a - b) for a, b in zip(sequence.logprobs, logps, strict=True)), default=0.0)
                lines.append(
                    f"  completion {place}: gradient norm {norm:g}, advantage {sequence.advantage:g}, "
                    f"{len(sequence.completion_ids)} tokens, largest |engine - learner| {gap:g} nats"
                )
    rank.close()
    return lines


def _finite(norm: float) -> bool:
    return abs(norm) != float("inf") and norm == norm


def _gradient_norm(rank: "LearnerRank", sequences: Sequence[TrainingSequence]) -> float:
    """0 where nothing is trained on."""
    return rank.train([list(sequences)]).get("policy/grad_norm", 0.0)


def _rank(config: TrainConfig, policy: Path) -> "LearnerRank":
    os.environ["DS_ACCELERATOR"] = {"cpu": "cpu", "gpu": "cuda"}[config.cluster.accelerator]
    from trainer.learner.rank import LearnerRank
    from trainer.learner.spec import LearnerSpec, Rendezvous

    alone = {"ranks": 1, "zero_stage": 0, "learning_rate": _STILL, "warmup_steps": 0, "weight_decay": 0.0}
    spec = LearnerSpec(
        policy=str(policy),
        learner=config.learner.model_copy(update=alone),
        algo=config.algo.model_copy(update={"updates_per_step": 1}),
        completion_budget=config.rollout.sampling.max_tokens,
        total_updates=1,
        temperature=config.rollout.sampling.temperature,
        accelerator=config.cluster.accelerator,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limit = config.learner.step_timeout_s
    return LearnerRank(spec, Rendezvous(rank=0, world_size=1, address="127.0.0.1", port=port, timeout_s=limit))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
