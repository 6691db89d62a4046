"""Whether a pretrained model can be trained rightly, found out before anything slow starts.

The check itself (trainer/learner/exactness.py) needs torch, which the driver does without: it runs in a process of its
own, for some seconds, most of which go into imports.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from conf.errors import QuorumError
from conf.schema.learner import LoraConfig
from conf.schema.root import TrainConfig
from trainer.learner.errors import PolicyNotLoadable

Packing = Literal["padded", "shared_prefix"]

LIMIT_S = 300.0
"""For a cold disk and a busy machine."""


class ModelUnchecked(QuorumError):
    """The check did not come to an end."""


def check_policy(config: TrainConfig, policy: Path) -> None:
    """`policy`: the model's folder.

    Raises PolicyNotLoadable, in one sentence with the setting that serves the model; ModelUnchecked.
    """
    # Spawned, so that it finds the modules that this process found, and inherits no thread.
    spawn = get_context("spawn")
    answers, answering = spawn.Pipe(duplex=False)
    longest = config.prompt.max_tokens + config.rollout.sampling.max_tokens
    learner = config.learner
    settings = (learner.packing, longest, learner.gradient_checkpointing, learner.lora)
    process = spawn.Process(target=_check, args=(answering, str(policy.resolve()), *settings), daemon=True)
    with _deaf_children():
        process.start()
    answering.close()
    try:
        if not answers.poll(LIMIT_S):
            raise ModelUnchecked(f"the model at {policy} was not checked within {LIMIT_S:g} s")
        refusal = answers.recv()
    except EOFError as error:
        raise ModelUnchecked(f"the process that checked the model at {policy} ended without an answer") from error
    finally:
        process.kill()
        process.join()
    if refusal is not None:
        raise PolicyNotLoadable(refusal)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """A process that starts in the block does not hear Ctrl-C, which goes to all of a terminal's and would be answered
    with a traceback there: this one hears it, and ends the other."""
    # Python's own helper unblocks the signal when it starts, which it does with the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check(
    answering: Connection, folder: str, packing: Packing, longest: int, checkpointing: bool, lora: LoraConfig
) -> None:
    import torch

    from trainer.learner.exactness import check_model
    from trainer.learner.quiet import quiet_transformers

    # Tensors are small, and threads that wait for one another hold the cores of others.
    torch.set_num_threads(1)
    quiet_transformers()
    try:
        check_model(folder, packing=packing, longest=longest, checkpointing=checkpointing, lora=lora)
    except PolicyNotLoadable as error:
        answering.send(str(error))
    else:
        answering.send(None)
