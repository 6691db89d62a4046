"""One engine in a process of its own: samples groups and prints what it computed, as JSON.

Arguments: model folder. Output: a row for each round: `computed`, tokens that went through the model; `together`, rows
that attended to blocks together with others, in all steps; and `groups`, of prompts and completions.
"""

import json
import sys
from typing import Any

from conf.schema.rollout import EngineConfig, SamplingConfig
from rollout.cpu import kernel
from rollout.cpu.siblings import Siblings
from rollout.engine import RolloutEngine
from rollout.requests import EngineSpec, GenerationRequest

LENGTHS = (31, 32, 33, 70)
"""Of prompts, around the size of a block."""
ROUNDS = {"room for all": 1, "some wait for others to end": 5}
"""Times that each prompt is asked for."""


def run(engine: RolloutEngine, times: int) -> dict[str, Any]:
    scheduler = engine._engine.engine_core.engine_core.scheduler
    schedule, computed = scheduler.schedule, 0

    def counting(*arguments: Any) -> Any:
        nonlocal computed
        output = schedule(*arguments)
        computed += output.total_num_scheduled_tokens
        return output

    siblings, together = kernel.siblings, 0

    def grouping(*arguments: Any) -> Siblings:
        nonlocal together
        groups = siblings(*arguments)
        together += int(((groups.starts[1:] - groups.starts[:-1]) * (groups.shared > 0)).sum())
        return groups

    scheduler.schedule, kernel.siblings = counting, grouping
    texts = {length: tuple((7 * place + length) % 250 for place in range(length)) for length in LENGTHS}
    prompts = {f"{length} {i}": text for length, text in texts.items() for i in range(times)}
    for name, ids in prompts.items():
        engine.add(GenerationRequest(id=name, prompt_ids=ids, n=8, sampling=SamplingConfig(max_tokens=12)))
    groups = []
    while engine.pending:
        for group in engine.step():
            found = [(c.token_ids, c.logprobs) for c in group.completions]
            groups.append({"prompt": prompts[group.id], "completions": found})
    scheduler.schedule, kernel.siblings = schedule, siblings
    return {"computed": computed, "together": together, "groups": groups}


def main() -> None:
    settings = EngineConfig(dtype="float32", kv_cache_gib=0.1, max_num_seqs=32, block_size=32)
    spec = EngineSpec(
        model=sys.argv[1], engine=settings, max_model_len=96, seed=0, accelerator="cpu", weight_transfer="shared_memory"
    )
    engine = RolloutEngine(spec)
    json.dump({name: run(engine, times) for name, times in ROUNDS.items()}, sys.stdout)


if __name__ == "__main__":
    main()
