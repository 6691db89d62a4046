"""How fast one engine samples on a CPU, with and without the fused forward pass: `python -m measure.engine MODEL`.

MODEL is a Hugging Face folder, weights and tokenizer. Engines take turns round by round, each in a process of its own
with one thread; each samples the same random prompts, after a batch that is not counted. Printed are medians.
"""

import argparse
import os
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from conf.schema.rollout import EngineConfig, SamplingConfig
from rollout.requests import EngineSpec, GenerationRequest
from rollout.vllm_backend import environment

FIRST_TOKEN = 3
"""Of prompts: those before it are special in our own tokenizers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What every batch samples."""

    prompts: int
    prompt_tokens: int
    group_size: int
    completion_tokens: int
    """At most: a policy may end a completion before."""
    batches: int
    vocabulary: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Of one engine, by batch."""

    seconds: list[float]
    tokens: list[int]
    step_s: float
    """Median of steps."""


def measure(model: str, engine: EngineConfig, work: Work) -> Speed:
    """Runs in the engine's process."""
    from rollout.engine import RolloutEngine

    room = work.prompt_tokens + work.completion_tokens
    spec = EngineSpec(
        model=model, engine=engine, max_model_len=room, seed=0, accelerator="cpu", weight_transfer="shared_memory"
    )
    running, rng = RolloutEngine(spec), random.Random(0)
    sampling = SamplingConfig(temperature=1.0, max_tokens=work.completion_tokens)
    seconds, tokens, steps = [], [], []
    for batch in range(work.batches + 1):
        for number in range(work.prompts):
            prompt = tuple(rng.randrange(FIRST_TOKEN, work.vocabulary) for _ in range(work.prompt_tokens))
            running.add(
                GenerationRequest(id=f"{batch}/{number}", prompt_ids=prompt, n=work.group_size, sampling=sampling)
            )
        began, sampled = time.perf_counter(), 0
        while running.pending:
            before = time.perf_counter()
            groups = running.step()
            steps.append(time.perf_counter() - before)
            sampled += sum(len(completion.token_ids) for group in groups for completion in group.completions)
        seconds.append(time.perf_counter() - began)
        tokens.append(sampled)
        if not batch:
            steps.clear()
    return Speed(seconds=seconds[1:], tokens=tokens[1:], step_s=statistics.median(steps))


def main() -> None:
    arguments = _arguments()
    from transformers import AutoConfig

    work = Work(
        prompts=arguments.prompts,
        prompt_tokens=arguments.prompt_tokens,
        group_size=arguments.group_size,
        completion_tokens=arguments.completion_tokens,
        batches=arguments.batches,
        vocabulary=AutoConfig.from_pretrained(arguments.model, trust_remote_code=False).vocab_size,
    )
    found: dict[bool, list[Speed]] = {False: [], True: []}
    for _ in range(arguments.rounds):
        for fused, speeds in found.items():
            engine = EngineConfig(dtype="float32", kv_cache_gib=1.0, block_size=32, fused_decoding=fused)
            os.environ.update(environment(engine, "cpu"))
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                speeds.append(process.submit(measure, arguments.model, engine, work).result())
    for fused, speeds in found.items():
        rates = [sum(s.tokens) / sum(s.seconds) for s in speeds]
        sys.stdout.write(
            f"rollout.engine.fused_decoding={str(fused).lower():5} {statistics.median(rates):8.0f} tokens/s"
            f" ({', '.join(f'{rate:.0f}' for rate in rates)} by round)"
            f"  {1e3 * statistics.median(s.step_s for s in speeds):7.2f} ms a step\n"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m measure.engine", description=__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=600)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--completion-tokens", type=int, default=100)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
