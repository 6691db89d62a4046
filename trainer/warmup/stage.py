"""The warm-up stage: from tasks with traces to a Hugging Face folder that GRPO starts from.

The folder is found in the cache when the same warm-up has been made before. A tiny policy gets a tokenizer trained on
the task corpus; a pretrained one keeps its own. Tasks whose source has no traces are imitated through their gold
query, with an empty <think></think> where the prompt asks for thinking: such a warm-up teaches the answer's form, not
reasoning.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from conf.errors import ConfigError, QuorumError
from conf.schema.model import ModelConfig, TinyModel
from conf.schema.prompt import PromptConfig
from conf.schema.root import TrainConfig
from conf.schema.stages import WarmupConfig
from rollout.prompt.described import SchemaReader
from rollout.prompt.renderer import SERIALISERS
from rollout.prompt.tokenizer import load_tokenizer
from rollout.tasks.carriers import Dropped, TaskSet
from trainer.model_folder import copy_tokenizer, write_model
from trainer.warmup.cache import content_hash, keep_left_out, left_out, publishing
from trainer.warmup.corpus import Example, build_corpus, tokenizer_texts
from trainer.warmup.policy import base_folder, pretrained_policy, tiny_policy
from trainer.warmup.sft import Report, fine_tune
from trainer.warmup.tokenizer import SMALLEST_VOCABULARY, train_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmPolicy:
    folder: Path
    """Config, safetensors and tokenizer."""
    cached: bool
    """Made by an earlier run."""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Warm-up tasks that did not fit."""
        return left_out(self.folder)


def configured_warm_up(config: TrainConfig, tasks: TaskSet, report: Report) -> WarmPolicy:
    """`warm_up` with a run's settings."""
    return warm_up(
        tasks,
        model=config.model,
        prompt=config.prompt,
        warmup=config.warmup,
        seed=config.seed,
        gpu=config.cluster.accelerator == "gpu",
        report=report,
    )


def warm_up(
    tasks: TaskSet,
    *,
    model: ModelConfig,
    prompt: PromptConfig,
    warmup: WarmupConfig,
    seed: int,
    gpu: bool,
    report: Report,
) -> WarmPolicy:
    """Raises QuorumError when no task can be learned from, or when model or cache cannot be used."""
    folder = Path(warmup.cache) / content_hash(tasks, model=model, prompt=prompt, warmup=warmup, seed=seed)
    if folder.is_dir():
        return WarmPolicy(folder=folder, cached=True)
    transformers_logging.disable_progress_bar()
    tokenizer = _tokenizer(tasks, model, prompt)
    end = tokenizer.eos_token_id
    corpus = build_corpus(tasks, prompt=prompt, tokenizer=tokenizer, end_token=end, max_tokens=warmup.max_tokens)
    if not corpus.examples:
        first = f": {corpus.dropped[0].detail}" if corpus.dropped else ""
        raise QuorumError(f"no warm-up task fits warmup.max_tokens={warmup.max_tokens}{first}")
    base = None if isinstance(model, TinyModel) else base_folder(model)
    policy = _train(corpus.examples, tokenizer, model=model, warmup=warmup, seed=seed, gpu=gpu, report=report)
    with publishing(folder) as scratch:
        write_model(policy, scratch, base)
        if base is None:
            tokenizer.save_pretrained(scratch)
        else:
            copy_tokenizer(scratch, base)
        keep_left_out(scratch, corpus.dropped)
    return WarmPolicy(folder=folder, cached=False)


def _train(
    examples: tuple[Example, ...],
    tokenizer: PreTrainedTokenizerBase,
    *,
    model: ModelConfig,
    warmup: WarmupConfig,
    seed: int,
    gpu: bool,
    report: Report,
) -> PreTrainedModel:
    if isinstance(model, TinyModel):
        policy = tiny_policy(model, tokenizer, seed)
    else:
        policy = pretrained_policy(model, seed, torch.bfloat16 if gpu else torch.float32)
    fine_tune(policy, tokenizer, examples, warmup, seed=seed, gpu=gpu, report=report)
    return policy


def _tokenizer(tasks: TaskSet, model: ModelConfig, prompt: PromptConfig) -> PreTrainedTokenizerBase:
    if not isinstance(model, TinyModel):
        return load_tokenizer(model.path, model.revision)
    if model.vocabulary < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"model.vocabulary={model.vocabulary} is too small: at least {SMALLEST_VOCABULARY} tokens are needed"
        )
    reader = SchemaReader(prompt.example_values)
    serialise = SERIALISERS[prompt.schema_format]
    databases = dict.fromkeys(task.databases[0] for task in tasks.warmup)
    schemas = [serialise(reader.read(database)) for database in databases]
    return train_tokenizer(
        tokenizer_texts(tasks, schemas, thinking=prompt.thinking), model.vocabulary, model.max_positions
    )
