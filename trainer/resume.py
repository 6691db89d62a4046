"""Whether a run may go on from what its folder holds, asked before anything slow starts and before anything is written.

Guarantees: a difference in what decides the meaning of token ids, task positions, adapters, optimizer state or rows
(records/identity.py, and what the learner's own state was shaped by) is refused by name. Of a checkpoint of November
2026, which keeps no identity, only seed, sampler and the learner's shape can be looked at: `Saved.whole` is False.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from conf.errors import QuorumError, first_line
from conf.schema.learner import LearnerConfig
from records.checkpoint import Checkpoint, damaged, read_as
from records.files import RecordsDamaged
from records.identity import FILE, Fact, Facts, Identity, differences, setting_fact
from records.run_folder import has_rows
from trainer.learner.saved import LEARNER, META, read_saved


class ResumeRefused(QuorumError):
    """The run was made from something else; a line for each difference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What the state that a run would go on from was made from."""

    where: Path
    facts: dict[str, Fact]
    whole: bool
    """Whether it kept its identity."""

    def check(self, now: Facts, learner: LearnerConfig) -> None:
        """Raises ResumeRefused unless what both know is the same."""
        shape = _learner_facts(learner.zero_stage, learner.ranks, learner.lora.rank)
        found = differences(self.facts, {**now, **shape})
        if found:
            kept = f"{self.where} is as it was: undo this to go on from it, or start another run under another run.name"
            raise ResumeRefused("\n".join([*found, kept]))


def saved(run: Path, checkpoint: Checkpoint | None) -> Saved | None:
    """Of a run's checkpoint, or of rows that were recorded before the first one; None where neither is. Raises
    CheckpointInvalid, RecordsDamaged."""
    if checkpoint is None:
        if not has_rows(run):
            return None
        kept = _kept_by_run(run)
        return Saved(where=run, facts=kept or {}, whole=kept is not None)
    file = checkpoint.folder / FILE
    whole = file.is_file()
    facts = read_as(Identity, file, checkpoint.folder).facts if whole else _without_identity(checkpoint)
    return Saved(where=checkpoint.folder, facts=facts | _learner_of(checkpoint), whole=whole)


def _learner_of(checkpoint: Checkpoint) -> dict[str, Fact]:
    if not (checkpoint.folder / LEARNER / META).is_file():  # the learner says so when it is told to load
        return {}
    learner = read_saved(checkpoint.folder)
    return _learner_facts(learner.zero_stage, learner.world_size, learner.lora_rank)


def _learner_facts(zero_stage: int, ranks: int, lora_rank: int) -> dict[str, Fact]:
    facts = {"learner.zero_stage": zero_stage, "learner.lora.rank": lora_rank}
    if zero_stage > 0:  # each rank keeps its own share
        facts["learner.ranks"] = ranks
    return {name: setting_fact(name, value) for name, value in facts.items()}


def _kept_by_run(run: Path) -> dict[str, Fact] | None:
    file = run / FILE
    if not file.is_file():
        return None
    try:
        return TypeAdapter(Identity).validate_json(file.read_bytes(), strict=True).facts
    except (OSError, ValidationError) as error:
        reason = first_line(error, otherwise="it cannot be read")
        raise RecordsDamaged(f"{file} is damaged ({reason}): remove it to go on unchecked") from error


def _without_identity(checkpoint: Checkpoint) -> dict[str, Fact]:
    facts = {"seed": setting_fact("seed", checkpoint.state.seed)}
    stream = checkpoint.stream_state()
    if stream is not None:
        if not isinstance(stream.get("sampler"), str):
            raise damaged(checkpoint.stream, checkpoint.folder, "it names no sampler")
        facts["algo.sampler.type"] = setting_fact("algo.sampler.type", stream["sampler"])
    return facts
