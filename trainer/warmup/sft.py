"""Supervised fine-tuning through TRL's SFTTrainer, on sequences that are already tokens. Imports torch and TRL."""

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from conf.schema.stages import WarmupConfig
from trainer.warmup.corpus import Example

IGNORED = -100
"""Label of a token without loss."""

_BATCHES_PER_POOL = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupProgress:
    step: int
    steps: int
    loss: float
    """Mean cross-entropy of answer tokens since the last report, nats."""


Report = Callable[[WarmupProgress], None]


class _Reporting(TrainerCallback):
    def __init__(self, report: Report) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            self._report(WarmupProgress(step=state.global_step, steps=state.max_steps, loss=float(logs["loss"])))


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    config: WarmupConfig,
    *,
    seed: int,
    gpu: bool,
    report: Report,
) -> None:
    """Trains `model` in place for exactly `config.steps` steps, passing over the examples as often as that takes."""
    threads = torch.get_num_threads()
    if not gpu:
        torch.set_num_threads(config.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="quorum-warmup-") as scratch:
            trainer = SFTTrainer(
                model=model,
                args=_arguments(config, seed=seed, gpu=gpu, scratch=scratch),
                train_dataset=_dataset(
                    training_order(examples, batch_size=config.batch_size, steps=config.steps, seed=seed)
                ),
                processing_class=tokenizer,
                callbacks=[_Reporting(report)],
            )
            # Reports go to `report` alone, not to standard output as well.
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    finally:
        torch.set_num_threads(threads)


def training_order(examples: Sequence[Example], *, batch_size: int, steps: int, seed: int) -> list[Example]:
    """`steps * batch_size` examples in the order of training: epochs shuffled by the seed, batches of similar lengths.

    Every pool of a few batches is sorted by length before it is cut into batches, and the batches are shuffled again:
    less padding, at the cost of slightly more alike examples in a batch.
    """
    rng = random.Random(f"warmup/{seed}")
    wanted = steps * batch_size
    drawn: list[Example] = []
    while len(drawn) < wanted:
        drawn.extend(rng.sample(examples, len(examples)))
    del drawn[wanted:]
    pool = batch_size * _BATCHES_PER_POOL
    batches: list[list[Example]] = []
    for start in range(0, wanted, pool):
        part = sorted(drawn[start : start + pool], key=lambda example: len(example.input_ids))
        cut = [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        rng.shuffle(cut)
        batches.extend(cut)
    return [example for batch in batches for example in batch]


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(e.input_ids) for e in examples],
            "labels": [[IGNORED] * e.prompt_tokens + list(e.input_ids[e.prompt_tokens :]) for e in examples],
        }
    )


def _arguments(config: WarmupConfig, *, seed: int, gpu: bool, scratch: str) -> SFTConfig:
    return SFTConfig(
        output_dir=scratch,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, config.steps // 10),
        max_grad_norm=1.0,
        weight_decay=0.01,
        optim="adamw_torch_fused",
        adam_beta2=0.98,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=gpu,
        use_cpu=not gpu,
        bf16=gpu,
        train_sampling_strategy="sequential",
        seed=seed,
        logging_steps=max(1, config.steps // 10),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )
