"""`python -m operate.replay RUN/skipped/step-N/batch.json`: which completion makes a gradient infinite, and by what.

Loads the policy that met the batch, and the reference policy where the loss has a KL term, into one learner rank in
this process. The step is made as it was: divided into its updates, against the old log-probabilities that were kept
with the batch, with the tokens that entropy chose. Of an update whose gradient is not finite the share of each group is
formed, then that of each completion of the groups at fault, and what is extreme about them is told. Changes no weight.

Where the step made several updates, the kept policy is the one after the last that was applied: what an earlier one met
may then be finite, which is said.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import QuorumError
from conf.schema.algo import AlgoConfig, ClippedLoss
from conf.schema.root import TrainConfig
from conf.terminal import tell, visible
from operate.cause import Numbers, cause
from operate.trained_run import run_config
from trainer.batch.plan import divide
from trainer.carriers import SkippedUpdates
from trainer.policy_folder import given_policy
from trainer.skipped import SkippedBatch, read_batch

if TYPE_CHECKING:
    from trainer.learner.rank import LearnerRank
    from trainer.learner.update import Update

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
        finite, lines = replay(batch, run_config(file.resolve().parents[2]), file.parent / "policy")
    except QuorumError as error:
        return tell(error)
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
    return 0 if finite else 3


def replay(batch: SkippedBatch, config: TrainConfig, policy: Path) -> tuple[bool, list[str]]:
    """Whether all gradients are finite, and lines on the step, on its updates where it makes several, and on each group
    and completion whose share of a gradient is not finite."""
    updates = config.algo.updates_per_step
    (places,) = divide(batch.sequences, updates=updates, ranks=1)
    reference, lines = _reference(batch, config, policy)
    rank = _rank(config, policy, reference)
    prepared = rank.prepare(
        [[batch.sequences[i] for i in update] for update in places],
        old_logprobs=_old(batch, places),
    )
    norms: list[float] = []
    found: list[str] = []
    for number, (update, members) in enumerate(zip(prepared, places, strict=True), start=1):
        trained = [i for i in members if not batch.sequences[i].masked]
        norms.append(rank.gradient_norm(update, range(len(trained))) if trained else 0.0)
        if not _finite(norms[-1]):
            found += [f"update {number} of {updates}: not finite"] * (updates > 1)
            found += _at_fault(rank, update, batch, trained, config.algo)
    rank.close()
    whole = ", ".join(f"{norm:g}" for norm in norms)
    lines.insert(0, f"step {batch.step}: {len(batch.sequences)} completions, gradient norm {whole}")
    finite = all(map(_finite, norms))
    if finite and (batch.skipped or SkippedUpdates()).others_after:
        lines.append("another update was applied after the skipped one, which met a policy that is not kept")
    return finite, lines + found


def _at_fault(
    rank: "LearnerRank", update: "Update", batch: SkippedBatch, trained: Sequence[int], algo: AlgoConfig
) -> list[str]:
    """`trained`: the update's sequences in the batch; their order is that of its members."""
    lines: list[str] = []
    for group in sorted({batch.sequences[i].group_index for i in trained}):
        members = [m for m, i in enumerate(trained) if batch.sequences[i].group_index == group]
        if _finite(rank.gradient_norm(update, members)):
            continue
        lines.append(f"group {group}, task {batch.task_ids[group]}: not finite")
        of_group = [i for i, s in enumerate(batch.sequences) if s.group_index == group]
        logps = rank.logprobs([batch.sequences[trained[m]] for m in members])
        references = rank.reference_logprobs([batch.sequences[trained[m]] for m in members])
        old = update.old_logprobs()
        for member, logp, reference in zip(members, logps, references, strict=True):
            norm = rank.gradient_norm(update, [member])
            if _finite(norm):
                continue
            sequence = batch.sequences[trained[member]]
            numbers = Numbers(
                advantage=sequence.advantage,
                engine=sequence.logprobs,
                policy=logp,
                old=old[member] if old else None,
                reference=reference or None,
                unbounded=isinstance(algo.loss, ClippedLoss) and algo.loss.delta is None,
                exponential_kl=algo.kl.estimator == "k3",
            )
            gap = max((abs(a - b) for a, b in zip(sequence.logprobs, logp, strict=True)), default=0.0)
            lines.append(
                f"  completion {of_group.index(trained[member])}: gradient norm {norm:g}, advantage "
                f"{sequence.advantage:g}, {len(sequence.completion_ids)} tokens, largest |engine - learner| {gap:g} "
                f"nats; {cause(numbers)}"
            )
    return lines or ["no group's share is infinite by itself: their sum is"]


def _finite(norm: float) -> bool:
    return abs(norm) != float("inf") and norm == norm


def _old(batch: SkippedBatch, places: Sequence[Sequence[int]]) -> list[list[tuple[float, ...]]] | None:
    """What was kept of the old log-probabilities, as the learner takes it; nothing for an update that was applied."""
    if batch.skipped is None or not batch.skipped.old_logprobs:
        return None
    kept = batch.skipped.old_logprobs
    of_updates = [[kept[i] for i in update if not batch.sequences[i].masked] for update in places]
    return [values if any(values) else [] for values in of_updates]


def _reference(batch: SkippedBatch, config: TrainConfig, policy: Path) -> tuple[Path | None, list[str]]:
    """The reference policy's folder, where the loss needs one, and a line if another has to stand for it."""
    if config.algo.kl.coefficient == 0 or config.algo.kl.place != "loss":
        return None, []
    known = Path(batch.reference) if batch.reference else given_policy(config)
    if known is not None and known.is_dir():
        return known, []
    return policy, [f"the reference policy, {known or 'which the warm-up made'}, is not here: the KL term is left at 0"]


def _rank(config: TrainConfig, policy: Path, reference: Path | None) -> "LearnerRank":
    os.environ["DS_ACCELERATOR"] = {"cpu": "cpu", "gpu": "cuda"}[config.cluster.accelerator]
    from trainer.learner.rank import LearnerRank
    from trainer.learner.spec import LearnerSpec, Rendezvous

    alone = {"ranks": 1, "zero_stage": 0, "learning_rate": _STILL, "warmup_steps": 0, "weight_decay": 0.0}
    spec = LearnerSpec(
        policy=str(policy),
        reference=str(reference) if reference else None,
        learner=config.learner.model_copy(update=alone),
        algo=config.algo,
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
