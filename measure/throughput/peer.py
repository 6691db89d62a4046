"""TRL's GRPOTrainer on the same job: python -m measure.throughput.peer SPEC, a process that the benchmark starts.

The same policy folder, prompts in the same order, rewards by our own scorer, group size, batch, loss and optimizer
settings. It writes one JSON line an optimizer step.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from conf.errors import QuorumError
from conf.load import load
from conf.schema.root import TrainConfig
from measure.throughput.peer_options import grpo_options
from measure.throughput.tasks import prompts_of
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt


class Tally:
    """What happened since the last optimizer step."""

    def __init__(self, prompts: Sequence[Prompt], per_step: int, group_size: int) -> None:
        self._prompts, self._per_step, self._group = prompts, per_step, group_size
        self.steps = 0
        self._clear()

    def _clear(self) -> None:
        self.seconds = {"generate": 0.0, "score": 0.0}
        self.forwarded = 0
        self.generated = 0
        self.rewards: list[float] = []

    def row(self) -> dict[str, Any]:
        """The step that ends now."""
        first = self.steps * self._per_step
        tasks = [prompt.task.id for prompt in self._prompts[first : first + self._per_step]]
        row = {
            "step": self.steps + 1,
            "end": time.perf_counter(),
            "completions": self._per_step * self._group,
            "generated_tokens": self.generated,
            "tokens_trained": self.generated,
            "tokens_forwarded": self.forwarded,
            "seconds": self.seconds,
            "reward": sum(self.rewards) / len(self.rewards),
            "tasks": tasks,
        }
        self.steps += 1
        self._clear()
        return row


class TimedTrainer(GRPOTrainer):
    """Times generation and scoring, and counts the tokens that training forwards."""

    tally: Tally

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        generated = super()._generate_single_turn(*arguments, **named)
        self.tally.seconds["generate"] += time.perf_counter() - began
        self.tally.generated += sum(map(len, generated[0]))
        return generated

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        rewards = super()._calculate_rewards(*arguments, **named)
        self.tally.seconds["score"] += time.perf_counter() - began
        return rewards

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Any, *arguments: Any, **named: Any) -> Any:
        self.tally.forwarded += input_ids.numel()
        return super()._get_per_token_logps_and_entropies(model, input_ids, *arguments, **named)


class StepWriter(TrainerCallback):
    def __init__(self, tally: Tally, file: IO[str]) -> None:
        self._tally, self._file = tally, file

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self._file.write(json.dumps(self._tally.row()) + "\n")
        self._file.flush()


def reward_of(scorer: Scorer, asked: Sequence[Prompt], tally: Tally) -> Callable[..., list[float | None]]:
    """Consecutive completions of one task are scored together, as a group."""

    def reward(
        prompts: Sequence[str], completions: Sequence[str], place: Sequence[int], **_: Any
    ) -> list[float | None]:
        groups: dict[int, list[str]] = {}
        for where, completion in zip(place, completions, strict=True):
            groups.setdefault(where, []).append(asked[where].opened + completion)
        jobs = [ScoreJob(task=asked[where].task, completions=tuple(texts)) for where, texts in groups.items()]
        totals = [result.total for results in scorer.score_batch(jobs) for result in results]
        tally.rewards += [total for total in totals if total is not None]
        return totals

    return reward


def main(arguments: Sequence[str]) -> int:
    spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    config = load(TrainConfig, "train", spec["settings"])
    torch.set_num_threads(spec["threads"])
    tokenizer = AutoTokenizer.from_pretrained(spec["policy"], trust_remote_code=False)
    per_step = config.pipeline.prompts_per_step
    with ExecutorPool(config.reward.server.executors) as pool:
        prompts = prompts_of(config, tokenizer, pool, count=spec["steps"] * per_step)
        texts = [prompt.text for prompt in prompts]
        if [tuple(ids) for ids in tokenizer(texts)["input_ids"]] != [prompt.token_ids for prompt in prompts]:
            raise QuorumError(
                "TRL would read other prompts: the tokenizer adds special tokens of its own, or the data names a "
                "control token, which TRL does not read as text"
            )
        tally = Tally(prompts, per_step, config.rollout.group_size)
        dtype = torch.bfloat16 if config.cluster.accelerator == "gpu" else torch.float32
        with Path(spec["output"]).open("w", encoding="utf-8") as file:
            trainer = TimedTrainer(
                model=AutoModelForCausalLM.from_pretrained(spec["policy"], dtype=dtype, trust_remote_code=False),
                processing_class=tokenizer,
                args=GRPOConfig(**grpo_options(config, spec)),
                train_dataset=Dataset.from_dict({"prompt": texts, "place": list(range(len(texts)))}),
                reward_funcs=reward_of(Scorer(config.reward, pool), prompts, tally),
                callbacks=[StepWriter(tally, file)],
            )
            trainer.tally = tally
            trainer.train()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
