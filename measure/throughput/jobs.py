"""The jobs that are measured, as settings of the trainer, and the policy and data that they need.

short: the quickstart's own step, with its warmed-up policy. long: prompts of 600 tokens, completions of up to 100, 32 a
prompt; its policy has random weights (which hardly ever end a completion), so the job shows speed alone: no answer
earns anything, and groups that teach nothing must be kept. device: the same with a policy of any published shape and
the sizes of `measure`. Every job runs on config.device, and what config.settings say holds for both trainers.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from conf.child import module_command
from conf.load import load, quoted
from conf.schema.data import DemoData
from conf.schema.root import TrainConfig
from conf.schema.throughput import ThroughputConfig, Variant
from measure.processes import RunFailed, run_process
from measure.throughput.tasks import write_long_tasks
from rollout.prompt.tokenizer import load_tokenizer

VARIANTS: dict[Variant, tuple[str, ...]] = {
    "synchronous": ("algo.drop_zero_variance=false", "pipeline.max_staleness=0"),
    "dropping": ("algo.drop_zero_variance=true", "pipeline.max_staleness=0"),
    "one_step_ahead": ("algo.drop_zero_variance=false", "pipeline.max_staleness=1"),
    "dropping_one_step_ahead": ("algo.drop_zero_variance=true", "pipeline.max_staleness=1"),
}
_RANKS = ("learner.ranks=2", "learner.threads=1")
DEVICES = {
    # As the quickstart trains its own policy, which is a folder here.
    "cpu": ("cluster=local", "rollout.sampling.max_tokens=64", "learner.learning_rate=3.0e-4"),
    "gpu": ("cluster=single_gpu", "learner=finer", "rollout=finer"),
}
QUICKSTART_PROMPT = 192
LONG_PROMPT = 600
LONG_COMPLETION = 100
LONG_PROMPTS_PER_STEP = 4
LONG_TASKS = 256
MOST_TASKS = 1024
MICRO_BATCH = {"short": 64, "long": 32, "device": 16}
"""Completions of one of TRL's forward passes."""
POLICY_TIMEOUT_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    name: str
    policy: Path
    settings: tuple[str, ...]
    """Of `python -m trainer`, without variant, seed, steps and run folder."""
    micro_batch: int
    variants: tuple[Variant, ...]


def two_cores(job: str, variant: Variant) -> tuple[str, ...]:
    """The fastest placement found (docs/performance.md): two engines and two ranks of one thread each, but beside
    training on long prompts generation keeps to one core."""
    engines = 1 if job != "short" and variant.endswith("one_step_ahead") else 2
    return (f"rollout.workers={engines}", *_RANKS)


def make_job(name: str, config: ThroughputConfig, folder: Path) -> Job:
    """Makes or finds the job's policy and data. Raises RunFailed."""
    job = {"short": _short, "long": _long, "device": _device}[name](config, folder)
    return replace(job, settings=(*job.settings, *config.settings))


def base_settings(config: ThroughputConfig, policy: Path) -> tuple[str, ...]:
    """Of `python -m trainer`: this policy on config.device, nothing measured or written on the way."""
    return (
        "experiment=quickstart",
        *DEVICES[config.device],
        "model=pretrained",
        f"model.path={quoted(str(policy))}",
        f"prompt.max_tokens={QUICKSTART_PROMPT}",
        "warmup=none",
        "evaluation=none",
        "evaluation.every=0",
        "checkpoint.every=0",
        "checkpoint.last=false",
        "logging.progress=plain",
    )


def _short(config: ThroughputConfig, folder: Path) -> Job:
    policy = warmed_up(config, folder)
    return Job(
        name="short",
        policy=policy,
        settings=base_settings(config, policy),
        micro_batch=config.trl.micro_batch or MICRO_BATCH["short"],
        variants=("synchronous", *config.variants),
    )


def _long(config: ThroughputConfig, folder: Path) -> Job:
    source = warmed_up(config, folder)
    tasks = folder / "long.jsonl"
    prompt = load(TrainConfig, "train", ["experiment=quickstart"]).prompt
    write_long_tasks(tasks, load_tokenizer(source), prompt, DemoData(), tokens=LONG_PROMPT, count=LONG_TASKS)
    policy = random_policy(config, tokenizer=source, folder=folder)
    return Job(
        name="long",
        policy=policy,
        settings=(
            *base_settings(config, policy),
            "data=jsonl",
            f"data.train={tasks.resolve()}",
            "data.denotation=spider",
            f"prompt.max_tokens={LONG_PROMPT}",
            f"rollout.sampling.max_tokens={LONG_COMPLETION}",
            "rollout.group_size=32",
            f"pipeline.prompts_per_step={LONG_PROMPTS_PER_STEP}",
        ),
        micro_batch=config.trl.micro_batch or MICRO_BATCH["long"],
        variants=("synchronous", *(v for v in config.variants if not v.startswith("dropping"))),
    )


def _device(config: ThroughputConfig, folder: Path) -> Job:
    """Random weights hardly ever end a completion, so every one of both trainers has measure.completion_tokens."""
    policy, tasks = random_weights(config, folder)
    return Job(
        name="device",
        policy=policy,
        settings=sized_settings(config, policy=policy, tasks=tasks, max_tokens=config.measure.completion_tokens),
        micro_batch=config.trl.micro_batch or MICRO_BATCH["device"],
        variants=("synchronous", *(v for v in config.variants if not v.startswith("dropping"))),
    )


def random_weights(config: ThroughputConfig, folder: Path) -> tuple[Path, Path]:
    """A policy of config.model's shape, and a file of questions as long as config.measure says. Raises RunFailed."""
    sizes = config.measure
    source = warmed_up(config, folder)
    policy = random_policy(config, tokenizer=source, folder=folder)
    tasks = folder / "tasks.jsonl"
    prompt = load(TrainConfig, "train", ["experiment=quickstart"]).prompt
    count = min(MOST_TASKS, sizes.prompts_per_step * (config.warmup_steps + config.steps + 1))
    write_long_tasks(tasks, load_tokenizer(source), prompt, DemoData(), tokens=sizes.prompt_tokens, count=count)
    return policy, tasks


def sized_settings(config: ThroughputConfig, *, policy: Path, tasks: Path, max_tokens: int) -> tuple[str, ...]:
    """Of `python -m trainer`: the sizes of config.measure."""
    sizes = config.measure
    return (
        *base_settings(config, policy),
        "data=jsonl",
        f"data.train={tasks.resolve()}",
        "data.denotation=spider",
        f"prompt.max_tokens={sizes.prompt_tokens}",
        f"rollout.sampling.max_tokens={max_tokens}",
        f"rollout.group_size={sizes.group_size}",
        f"pipeline.prompts_per_step={sizes.prompts_per_step}",
        f"learner.micro_batch_tokens={sizes.micro_batch_tokens}",
    )


def warmed_up(config: ThroughputConfig, folder: Path) -> Path:
    """The policy before GRPO: the given one, or the quickstart's, from the trainer's cache or made now. Raises
    RunFailed."""
    if config.policy is not None:
        return Path(config.policy).resolve()
    seed = config.seed
    log = folder / f"warmup-seed{seed}.log"
    command = module_command("trainer.warmup", "experiment=quickstart", f"seed={seed}")
    code = run_process(command, name="the warm-up", log=log, timeout_s=POLICY_TIMEOUT_S)
    lines = log.read_text(encoding="utf-8").splitlines()
    if code or not lines:
        raise RunFailed(f"the warm-up ended with exit code {code}: see {log}")
    return Path(lines[-1].removesuffix(" (from the cache)")).resolve()


def random_policy(config: ThroughputConfig, *, tokenizer: Path, folder: Path) -> Path:
    """A policy of config.model's shape with random weights and the tokenizer of another folder. Raises RunFailed."""
    policy = folder / "random-policy"
    log = folder / "random-policy.log"
    model = config.model.model_dump_json()
    dtype = "bfloat16" if config.device == "gpu" else "float32"
    module = "measure.throughput.random_policy"
    command = module_command(module, model, str(tokenizer), dtype, str(policy))
    code = run_process(command, name="the random policy", log=log, timeout_s=POLICY_TIMEOUT_S)
    if code:
        raise RunFailed(f"the random policy could not be made (exit code {code}): see {log}")
    return policy.resolve()
