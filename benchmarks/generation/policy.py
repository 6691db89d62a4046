"""A policy's answers, sampled by vLLM through the same prompts, engines and pool as in training.

Runs on a private local Ray, or on the cluster of `cluster.address`. A question whose prompt cannot fit the budget gets
empty answers, which count as wrong.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.carriers import Answers, BenchmarkError, Question
from benchmarks.generation.progress import Progress, folder_identity, settings
from conf.schema.benchmark import BenchmarkConfig
from conf.schema.rollout import RolloutConfig, SamplingConfig
from conf.terminal import visible
from rollout.carriers import Group, Prompt
from rollout.cluster import local_ray
from rollout.errors import RolloutError
from rollout.pool import RolloutPool
from rollout.preflight import check_context, check_model_folder
from rollout.prompt.cut import CUT, cut_lines, cut_prompts, cut_sentence
from rollout.prompt.renderer import PromptRenderer, PromptTooLong
from rollout.prompt.tokenizer import load_tokenizer
from rollout.worker import ray_workers

QUESTIONS_UNDER_WAY = 128
"""Questions handed to the engines at a time; enough to fill them."""
NO_COMPLETION: dict[str, Any] = {"text": "", "logprob": None, "tokens": 0}


def generate(
    config: BenchmarkConfig, questions: Sequence[Question], denotation: Literal["spider", "bird"], output: Path
) -> Answers:
    """Samples what is not yet done and returns all answers. Raises BenchmarkError."""
    assert config.model.path is not None
    folder = Path(config.model.path)
    if not (folder / "config.json").is_file():
        raise BenchmarkError(f"model.path={folder}: a Hugging Face folder with config.json expected")
    try:
        check_context(folder, check_model_folder(folder), _length(config))
    except RolloutError as error:
        raise BenchmarkError(f"model.path={folder}: {error}") from error
    started, start_s, seconds = time.perf_counter(), 0.0, 0.0
    with Progress(output, settings(config, questions, folder_identity(folder)), len(questions)) as progress:
        missing = [question for question in questions if question.position not in progress.done]
        if missing:
            prompts = _prompts(config, missing, denotation, progress, output)
            try:
                with local_ray(config.cluster):
                    start_s, seconds = asyncio.run(_sample(config, prompts, progress, output, started))
            except RolloutError as error:
                raise BenchmarkError(
                    f"{error}; the same command continues after {len(progress.done)} questions"
                ) from error
        answers = progress.answers(questions, thinking=config.prompt.thinking)
    return Answers(source=str(folder), answers=answers, start_s=start_s, seconds=seconds)


def _prompts(
    config: BenchmarkConfig,
    questions: Sequence[Question],
    denotation: Literal["spider", "bird"],
    progress: Progress,
    output: Path,
) -> list[tuple[Question, Prompt]]:
    """Rendered prompts; questions that cannot fit are finished at once, with empty answers."""
    assert config.model.path is not None
    renderer = PromptRenderer(config.prompt, load_tokenizer(config.model.path))
    prompts = []
    for question in questions:
        try:
            prompts.append((question, renderer.render(question.task(denotation))))
        except PromptTooLong as error:
            sys.stderr.write(f"{visible(str(error))}; answered with nothing\n")
            greedy = NO_COMPLETION if config.sampling.greedy else None
            progress.add(_record(question, [NO_COMPLETION] * config.sampling.n, greedy, 0))
    _tell(config, renderer, [prompt for _, prompt in prompts], output)
    return prompts


def _tell(config: BenchmarkConfig, renderer: PromptRenderer, prompts: Sequence[Prompt], output: Path) -> None:
    """Says what the prompts do not show, before anything is sampled."""
    if renderer.remark:
        sys.stderr.write(f"{renderer.remark}\n")
    cut = cut_prompts(prompts)
    if cut:
        file = output / CUT
        file.write_text(cut_lines(cut), encoding="utf-8")
        limit = config.prompt.max_tokens
        sys.stderr.write(cut_sentence(cut, prompts=prompts, of="question", limit=limit, file=file) + "\n")


async def _sample(
    config: BenchmarkConfig,
    prompts: Sequence[tuple[Question, Prompt]],
    progress: Progress,
    output: Path,
    started: float,
) -> tuple[float, float]:
    """Samples and keeps every prompt's group; returns the seconds from `started` until the engines were ready, and from
    then until the last answer.
    """
    sampling = SamplingConfig(**config.sampling.model_dump(include={"temperature", "top_p", "top_k", "max_tokens"}))
    greedy = SamplingConfig(temperature=0.0, max_tokens=sampling.max_tokens)
    rollout = RolloutConfig(workers=config.workers, engine=config.engine, sampling=sampling)
    length = _length(config)
    logs = output / "logs"
    logs.mkdir(exist_ok=True)
    assert config.model.path is not None
    model = str(Path(config.model.path).resolve())
    factories = ray_workers(
        *(model, rollout, config.cluster), max_model_len=length, seed=config.seed, log_dir=str(logs.resolve())
    )
    pool = RolloutPool(rollout, factories, max_model_len=length)
    await pool.start()
    ready = time.perf_counter()
    slots = asyncio.Semaphore(QUESTIONS_UNDER_WAY)

    async def one(question: Question, prompt: Prompt) -> None:
        async with slots:
            # Both at once: behind the other questions' groups the greedy one would finish last.
            requests = [pool.generate(prompt, group_id=f"q{question.position}", n=config.sampling.n, sampling=sampling)]
            if config.sampling.greedy:
                name = f"q{question.position}-greedy"
                requests.append(pool.generate(prompt, group_id=name, n=1, sampling=greedy))
            group, *best = await asyncio.gather(*requests)
        greedy_one = _kept(best[0])[0] if best else None
        progress.add(_record(question, _kept(group), greedy_one, len(prompt.token_ids)))

    try:
        async with asyncio.TaskGroup() as tasks:
            for question, prompt in prompts:
                tasks.create_task(one(question, prompt))
        done = time.perf_counter()
    except* RolloutError as errors:
        raise errors.exceptions[0] from None
    finally:
        await pool.close()
    return ready - started, done - ready


def _length(config: BenchmarkConfig) -> int:
    """The engines' context: prompt plus completion, tokens."""
    return config.engine.max_model_len or config.prompt.max_tokens + config.sampling.max_tokens


def _kept(group: Group) -> list[dict[str, Any]]:
    return [
        {
            "text": text,
            "logprob": completion.logprob,
            "tokens": len(completion.token_ids),
        }
        for text, completion in zip(group.answers, group.completions, strict=True)
    ]


def _record(
    question: Question, completions: Sequence[dict[str, Any]], greedy: dict[str, Any] | None, prompt_tokens: int
) -> dict[str, Any]:
    return {
        "key": question.position,
        "completions": list(completions),
        "greedy": greedy,
        "prompt_tokens": prompt_tokens,
    }
