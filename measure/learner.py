"""How long one optimizer step takes, by packing, precision and threads: `python -m measure.learner`.

One learner rank for each setting in this process; settings are interleaved round by round, so that a machine that
drifts drifts for all of them alike. Medians of wall and CPU seconds, the ratio of CPU seconds of the first setting
(which a busy machine disturbs less than wall time) to each, and 6 x parameters x forwarded tokens over wall seconds.

On a GPU, with the shape of a published model and random weights: --accelerator gpu --case schema --shape
Qwen/Qwen2.5-Coder-3B-Instruct --packing shared_prefix --dtype bfloat16 --threads 1 --budget 12288
"""

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from conf.schema.algo import AlgoConfig
from conf.schema.learner import LearnerConfig
from rollout.shape import PUBLISHED, ModelShape, to_config
from trainer.carriers import TrainingSequence
from trainer.learner.backend import leave_group
from trainer.learner.rank import LearnerRank
from trainer.learner.spec import LearnerSpec, Rendezvous

VOCABULARY = 700


Setting = tuple[str, str, int]
"""learner.packing, learner.dtype, learner.micro_batch_tokens."""

Measurement = tuple[float, float, float]
"""Wall seconds, CPU seconds, tokens forwarded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    prompt: int
    completion: int
    """Mean completion length, tokens; lengths vary by half of it both ways."""
    group_size: int
    groups: int


CASES = {
    "short": Case(prompt=55, completion=32, group_size=16, groups=32),
    "long": Case(prompt=600, completion=100, group_size=32, groups=2),
    "schema": Case(prompt=1500, completion=300, group_size=32, groups=2),
}


def sequences(case: Case) -> list[TrainingSequence]:
    rng = random.Random(0)
    made = []
    for group in range(case.groups):
        prompt = tuple(rng.randrange(VOCABULARY) for _ in range(case.prompt + rng.randrange(-5, 6)))
        for _ in range(case.group_size):
            length = rng.randrange(case.completion // 2, case.completion * 3 // 2)
            made.append(
                TrainingSequence(
                    group_index=group,
                    prompt_ids=prompt,
                    completion_ids=tuple(rng.randrange(VOCABULARY) for _ in range(length)),
                    logprobs=(-6.5,) * length,
                    advantage=rng.uniform(-1, 1),
                )
            )
    return made


def learner(
    policy: Path, port: int, accelerator: Literal["cpu", "gpu"], *, packing: str, dtype: str, budget: int
) -> LearnerRank:
    settings: dict[str, Any] = {"packing": packing, "dtype": dtype, "micro_batch_tokens": budget, "learning_rate": 1e-4}
    if accelerator == "gpu":
        settings |= {"zero_stage": 2, "logprob_chunk_tokens": 2048}
    spec = LearnerSpec(
        accelerator=accelerator,
        policy=str(policy),
        learner=LearnerConfig.model_validate(settings),
        algo=AlgoConfig(),
        completion_budget=200,
        total_updates=100,
    )
    return LearnerRank(spec, Rendezvous(rank=0, world_size=1, address="127.0.0.1", port=port, timeout_s=600.0))


def main() -> None:
    arguments = _arguments()
    case = CASES[arguments.case]
    data = sequences(case)
    shape = PUBLISHED[arguments.shape] if arguments.shape else _small(arguments.hidden, arguments.layers)
    with tempfile.TemporaryDirectory() as folder:
        _save_random(shape, folder, arguments.accelerator)
        ranks = {
            (packing, dtype, budget): learner(
                Path(folder), arguments.port, arguments.accelerator, packing=packing, dtype=dtype, budget=budget
            )
            for packing, dtype, budget in itertools.product(arguments.packing, arguments.dtype, arguments.budget)
        }
    _report(_measure(ranks, data, arguments.threads, arguments.rounds), shape.parameters)
    leave_group()


def _small(hidden: int, layers: int) -> ModelShape:
    heads = hidden // 64
    return ModelShape(
        hidden=hidden,
        intermediate=4 * hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=64,
        vocabulary=VOCABULARY,
        tied=True,
        biases=True,
    )


def _save_random(shape: ModelShape, folder: str, accelerator: str) -> None:
    device, dtype = {"cpu": ("cpu", torch.float32), "gpu": ("cuda", torch.bfloat16)}[accelerator]
    with torch.device(device):
        Qwen2ForCausalLM(Qwen2Config(**to_config(shape))).to(dtype).save_pretrained(folder)


def _measure(
    ranks: dict[Setting, LearnerRank], data: list[TrainingSequence], threads: list[int], rounds: int
) -> dict[tuple[Setting, int], list[Measurement]]:
    """Measurements of each setting and thread count; a first round that only warms up is left out."""
    found: dict[tuple[Setting, int], list[Measurement]] = {}
    for number in range(rounds + 1):
        for setting, count in itertools.product(ranks, threads):
            torch.set_num_threads(count)
            wall, cpu = time.perf_counter(), time.process_time()
            metrics = ranks[setting].train([data])
            measured = (time.perf_counter() - wall, time.process_time() - cpu, metrics["perf/tokens_forwarded"])
            if number > 0:
                found.setdefault((setting, count), []).append(measured)
    return found


def _report(found: dict[tuple[Setting, int], list[Measurement]], parameters: int) -> None:
    base = 0.0
    for ((packing, dtype, budget), threads), measured in found.items():
        wall, cpu, tokens = (statistics.median(column) for column in zip(*measured, strict=True))
        base = base or cpu
        sys.stdout.write(
            f"{wall:8.3f} s wall {cpu:8.3f} s CPU {base / cpu:6.2f}x {tokens:8.0f} tokens forwarded "
            f"{6 * parameters * tokens / wall / 1e12:8.3f} TFLOP/s  "
            f"{packing}, {dtype}, passes of {budget}, {threads} threads\n"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m measure.learner", description=__doc__)
    parser.add_argument("--case", choices=CASES, default="short")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--shape", choices=PUBLISHED, help="of a published model, in place of --hidden and --layers")
    parser.add_argument("--packing", nargs="+", default=["padded", "shared_prefix"])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--budget", nargs="+", type=int, default=[16384], help="learner.micro_batch_tokens")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=29511)
    given = parser.parse_args()
    if given.accelerator == "gpu" and given.dtype != ["bfloat16"]:
        parser.error("--accelerator gpu needs --dtype bfloat16: shared prompts have no float32 attention there")
    return given


if __name__ == "__main__":
    main()
