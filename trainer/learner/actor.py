"""The Ray actor that holds one learner rank.

Environment variables must be set before torch and DeepSpeed are imported: they belong into the actor's runtime
environment (`rank_options`), and this module imports neither at its top.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema.learner import LearnerConfig
from conf.schema.stages import ClusterConfig
from rewards.same_code import check_same_code
from rollout.weights.handle import EngineLife
from trainer.carriers import TrainingSequence
from trainer.learner.spec import LearnerSpec, Rendezvous
from trainer.weights.meeting import meeting_place

if TYPE_CHECKING:
    from trainer.learner.rank import LearnerRank
    from trainer.learner.trace import Trace
    from trainer.learner.update import MadeUpdate

_BEHIND_ENGINES = 10
"""Added to a CPU rank's niceness: where generation overlaps training, engines come first, ranks share what is left. An
engine's work is one thread's, a learner's can be done on any core."""


def rank_options(config: LearnerConfig, cluster: ClusterConfig) -> dict[str, Any]:
    """Options of the Ray actor: resources and environment.

    On a private local Ray a CPU rank asks for no core of Ray's count: learner.threads bounds it. All ranks of a
    private Ray live on this machine and speak over the loopback interface.
    """
    variables = {
        "OMP_NUM_THREADS": str(config.threads),
        # Threads that spin while they wait take the core from the engine beside them.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "DS_ACCELERATOR": {"cpu": "cpu", "gpu": "cuda"}[cluster.accelerator],
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning",
    }
    if cluster.address is None:
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    options: dict[str, Any] = {"max_restarts": 0, "runtime_env": {"env_vars": variables}}
    if cluster.accelerator == "gpu":
        return options | {"num_cpus": 1, "num_gpus": cluster.learner_gpus}
    return options | {"num_cpus": 0 if cluster.address is None else config.threads}


class LearnerActor:
    """Runs in the actor's process; one call at a time."""

    def __init__(self, spec: LearnerSpec) -> None:
        if spec.device == "cpu":
            os.nice(_BEHIND_ENGINES)
        self._spec = spec
        self._rank: LearnerRank | None = None
        self._trace: Trace | None = None

    def meeting_place(self, *, loopback: bool) -> tuple[str, int]:
        """(address, free port) of this process's machine, for rank 0 to offer."""
        return meeting_place(loopback=loopback)

    def join(self, rendezvous: Rendezvous) -> None:
        """Load the policy and meet the other ranks. Raises what `LearnerRank` raises."""
        check_same_code()
        from trainer.learner.rank import LearnerRank

        self._rank = LearnerRank(self._spec, rendezvous)

    @property
    def _joined(self) -> "LearnerRank":
        if self._rank is None:
            raise RuntimeError("join() comes before every other call")
        return self._rank

    def alive(self) -> None:
        """Does nothing: the call fails when the process has ended."""

    def train(self, updates: Sequence[Sequence[TrainingSequence]]) -> dict[str, float]:
        return self._joined.train(updates)

    def made(self) -> "list[MadeUpdate]":
        return self._joined.made()

    def logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]:
        return self._joined.logprobs(sequences)

    def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        return self._joined.reference_kl(sequences)

    def publish(self, version: int, engines: Sequence[EngineLife]) -> Any:
        return self._joined.publish(version, engines=engines)

    def start_trace(self) -> None:
        from trainer.learner.trace import Trace

        self._trace = Trace()

    def stop_trace(self, file: str) -> None:
        """Ends the recording that start_trace began."""
        assert self._trace is not None, "start_trace() comes before stop_trace()"
        self._trace.write(Path(file))
        self._trace = None

    def save(self, folder: str) -> None:
        self._joined.save(Path(folder))

    def load(self, folder: str) -> None:
        self._joined.load(Path(folder))

    def close(self) -> None:
        from trainer.learner.backend import leave_group

        if self._rank is not None:
            self._rank.close()
        leave_group()
