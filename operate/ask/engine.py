"""Samples one question's candidates from an engine in this process. Imports vLLM when it is called."""

import os
import time
import warnings
from pathlib import Path

from conf.errors import QuorumError
from operate.trained_run import Trained
from rollout.carriers import Completion, Prompt
from rollout.requests import EngineSpec, GenerationRequest
from rollout.vllm_backend import environment

LIMIT_S = 600.0
"""Longest generation."""


class GenerationStalled(QuorumError):
    """The engine did not finish in time."""


def sample(chosen: Trained, prompt: Prompt, *, n: int, seed: int, log: Path | None) -> tuple[Completion, ...]:
    """`n` completions at the temperature of training. Raises RolloutError, GenerationStalled."""
    config = chosen.config
    engine = config.rollout.engine.model_copy(update={"max_num_seqs": max(n, 1)})
    # Both must be known before torch and vLLM are imported.
    os.environ.update(environment(engine, config.cluster.accelerator))
    # PYTHONWARNINGS among them comes too late for this interpreter.
    warnings.filterwarnings("ignore", category=FutureWarning)
    from rollout.engine import RolloutEngine

    spec = EngineSpec(
        model=str(chosen.policy.resolve()),
        engine=engine,
        max_model_len=engine.max_model_len or config.prompt.max_tokens + config.rollout.sampling.max_tokens,
        seed=seed,
        accelerator=config.cluster.accelerator,
        weight_transfer="shared_memory" if config.cluster.accelerator == "cpu" else "ipc",
        log_file=str(log) if log else None,
    )
    running = RolloutEngine(spec)
    running.add(GenerationRequest(id="ask", prompt_ids=prompt.token_ids, n=n, sampling=config.rollout.sampling))
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        for group in running.step():
            return group.completions
    raise GenerationStalled(f"{n} candidates were not finished within {LIMIT_S:.0f} s")
