"""What a run is made from, loaded and looked at before anything slow starts: tasks, pretrained model, identity.

Raises QuorumError for whatever rewards, engines and learner would refuse later.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from conf.schema.root import TrainConfig
from records.identity import Identity, identity_of, warm_facts
from records.sinks.console import RunConsole
from rewards.preflight import check_rewards
from rollout.preflight import check_context, check_memory, check_model_folder, stop_tokens
from rollout.prompt import PromptRenderer
from rollout.prompt.tokenizer import load_tokenizer
from rollout.replayed_lengths import read_lengths
from rollout.tasks import TaskSet, load_tasks
from trainer.model_check import check_policy
from trainer.plan.start import check_plan
from trainer.policy_folder import given_policy
from trainer.resume import Saved

UNCHECKED = (
    "{where} was written before runs kept what they are made from: whether model, adapters, prompt and data are the "
    "same could not be checked"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a run is made from."""

    tasks: TaskSet
    policy: Path | None
    """The pretrained model's folder; None for a policy that the warm-up builds."""
    identity: Identity


def load_inputs(config: TrainConfig, before: Saved | None, note: Callable[[str], None]) -> Inputs:
    """`before`: what the run was made from that this one goes on with. Raises ResumeRefused for another."""
    check_rewards(config.reward)
    tasks = load_tasks(config.data)
    if config.rollout.lengths is not None:
        read_lengths(Path(config.rollout.lengths))
    policy = given_policy(config)
    identity = identity_of(config, tasks, policy)
    if before is not None:
        before.check(identity.facts, config.learner)
        if not before.whole:
            note(UNCHECKED.format(where=before.where))
    return Inputs(tasks=tasks, policy=policy, identity=identity)


def check_inputs(config: TrainConfig, inputs: Inputs, console: RunConsole) -> None:
    """Whether the model can be prompted, served and trained, and whether the machine holds the run."""
    if inputs.policy is not None:
        _check_folder(config, inputs.policy, console.note)
    check_plan(config, inputs.policy, console.note)
    if config.cluster.address is None and config.cluster.accelerator == "cpu":
        check_memory(inputs.policy, config.rollout.engine)
    if inputs.policy is not None:
        with console.stage("checking the model"):
            check_policy(config, inputs.policy)


def with_warm_up(config: TrainConfig, inputs: Inputs, policy: Path) -> Identity:
    """What the run is made from, as its files are now. `policy`: what GRPO starts from."""
    found = identity_of(config, inputs.tasks, inputs.policy)
    return replace(found, facts=found.facts | warm_facts(policy)) if config.warmup.enabled else found


def _check_folder(config: TrainConfig, folder: Path, note: Callable[[str], None]) -> None:
    tokenizer = load_tokenizer(folder)
    renderer = PromptRenderer(config.prompt, tokenizer)
    renderer.check()
    if renderer.remark:
        note(renderer.remark)
    shape = check_model_folder(folder, weights=not config.warmup.enabled)  # the warm-up reads them next
    length = config.prompt.max_tokens + config.rollout.sampling.max_tokens
    check_context(folder, shape, config.rollout.engine.max_model_len or length)
    stop_tokens(folder, shape, tokenizer)
