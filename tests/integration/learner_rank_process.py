"""One learner rank as a process of its own, for tests: trains the cases it is given one after another, writes what
it got.

Arguments: rank, world size, port, folder. The folder holds cases.json and policy/; result-RANK.pt is written there.
"""

import json
import random
import sys
from pathlib import Path

import torch

from conf.schema.algo import AlgoConfig
from conf.schema.learner import LearnerConfig
from trainer.batch.plan import divide
from trainer.carriers import TrainingSequence
from trainer.learner import backend
from trainer.learner.gather import gathered_weights
from trainer.learner.rank import LearnerRank
from trainer.learner.spec import LearnerSpec, Rendezvous
from trainer.learner.work import PACKERS

VOCABULARY = 50


def sequences() -> list[TrainingSequence]:
    """Five groups of uneven sizes; one completion is masked and would be NaN if it were read."""
    rng = random.Random(5)
    made = []
    for group in range(5):
        prompt = tuple(rng.randrange(VOCABULARY) for _ in range(6 + 3 * group))
        for member in range(3 + group % 2):
            length = rng.randrange(1, 10)
            masked = group == 1 and member == 0
            made.append(
                TrainingSequence(
                    group_index=group,
                    prompt_ids=prompt,
                    completion_ids=tuple(rng.randrange(VOCABULARY) for _ in range(length)),
                    logprobs=tuple(float("nan") if masked else -4 - 0.2 * rng.random() for _ in range(length)),
                    advantage=float("nan") if masked else rng.uniform(-1, 1),
                    lags=((0, 2), (length // 2, 1)) if group == 3 and length > 1 else (),
                    masked=masked,
                )
            )
    return made


def run_case(case: dict, rank: int, world_size: int, port: int, folder: Path) -> dict:
    algo = AlgoConfig.model_validate(case["algo"])
    # This policy's parameters are small; every one of them is divided where the case asks for it.
    backend.WHOLE_UP_TO = 0 if case["name"].endswith("_divided") else 100_000
    # With adapters of seed 0 one element's first gradient is 5e-9, all rounding, which AdamW makes a whole step of.
    spec = LearnerSpec(
        policy=str(folder / "policy"),
        learner=LearnerConfig.model_validate(case["learner"]),
        algo=algo,
        completion_budget=16,
        total_updates=10,
        temperature=0.8,
        seed=1,
    )
    learner = LearnerRank(
        spec, Rendezvous(rank=rank, world_size=world_size, address="127.0.0.1", port=port, timeout_s=60.0)
    )
    forwards = 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    learner.policy.language_model.base_model.register_forward_hook(count)
    data = sequences()
    mine = divide(data, updates=algo.updates_per_step, ranks=world_size)[rank]
    shares = [[data[i] for i in update] for update in mine]
    first = learner.train(shares)
    forwards_of_a_step = forwards
    saved = folder / f"{case['name']}-{world_size}"
    learner.save(saved)
    second = learner.train(shares)
    weights = _weights(learner, spec)
    logprobs = [learner.logprobs(update) for update in shares]
    learner.load(saved)
    again = learner.train(shares)
    same = all(torch.equal(weights[name], tensor) for name, tensor in _weights(learner, spec).items())
    poisoned = [[_poisoned(s) if rank == 0 else s for s in update] for update in shares]
    skipped = learner.train(poisoned)
    made = [(one.applied, [len(values) for values in one.old_logprobs]) for one in learner.made()]
    untouched = all(torch.equal(weights[name], tensor) for name, tensor in _weights(learner, spec).items())
    learner_kl = [learner.reference_kl(update) for update in shares] if algo.kl.place == "reward" else []
    trained = [[s for s in update if not s.masked] for update in shares]
    learner.close()
    return {
        "metrics": [first, second, again, skipped],
        "weights": weights,
        "logprobs": logprobs,
        "indices": mine,
        "forwards": forwards_of_a_step,
        "passes": [len(PACKERS[spec.learner.packing](s, budget=spec.learner.micro_batch_tokens)) for s in trained],
        "reference_kl": learner_kl,
        "resumed_exactly": same,
        "skip_left_weights": untouched,
        "made": made,
        "lengths": [[len(s.completion_ids) for s in update] for update in trained],
    }


def _poisoned(sequence: TrainingSequence) -> TrainingSequence:
    return TrainingSequence(
        group_index=sequence.group_index,
        prompt_ids=sequence.prompt_ids,
        completion_ids=sequence.completion_ids,
        logprobs=sequence.logprobs,
        advantage=float("inf"),
        masked=sequence.masked,
    )


def _weights(learner: LearnerRank, spec: LearnerSpec) -> dict[str, torch.Tensor]:
    model = learner.policy.language_model
    return {n: t.float().clone() for n, t in gathered_weights(model, sharded=spec.learner.zero_stage == 3)}


def main() -> None:
    rank, world_size, port, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    cases = json.loads((folder / "cases.json").read_text())
    results = {case["name"]: run_case(case, rank, world_size, port, folder) for case in cases}
    backend.leave_group()
    torch.save(results, folder / f"result-{rank}-of-{world_size}.pt")


if __name__ == "__main__":
    main()
