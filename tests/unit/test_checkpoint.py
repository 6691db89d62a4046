import asyncio
import errno
import sqlite3

import pytest

from trainer.checkpoint import CheckpointFailed, CheckpointInvalid, CheckpointStore, RunState
from trainer.learner.errors import LearnerLost


def state(step: int) -> RunState:
    return RunState(step=step, version=step, consumed=step * 4, seed=0, wall_s=1.0)


async def write_policy(folder):
    (folder / "policy").mkdir()
    (folder / "policy" / "model.safetensors").write_bytes(b"x" * 10)


def test_the_newest_are_kept_and_the_state_comes_back(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3):
        asyncio.run(store.save(state(step), write_policy))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    latest = store.latest()
    assert latest is not None
    assert latest.state == state(3)
    assert (latest.policy / "model.safetensors").read_bytes() == b"x" * 10


def test_what_engines_were_started_from_stays_for_their_replacements(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    asyncio.run(store.save(state(1), write_policy))
    resumed = store.latest()
    for step in (2, 3, 4):
        asyncio.run(store.save(state(step), write_policy))
    assert (resumed.policy / "model.safetensors").is_file()
    assert store.latest().state.step == 4
    asyncio.run(store.save(state(5), write_policy))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000004", "step-000005"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    asyncio.run(store.save(state(1), write_policy))

    async def full(folder):
        await write_policy(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointFailed, match="No space left"):
        asyncio.run(store.save(state(2), full))
    assert [f.name for f in tmp_path.iterdir()] == ["step-000001"]
    assert store.latest().state.step == 1


@pytest.mark.parametrize("error", [ValueError("invalid"), TypeError("no JSON"), KeyError("a"), sqlite3.Error("locked")])
def test_whatever_a_writer_raises_is_a_failed_checkpoint_that_leaves_nothing(tmp_path, error):
    store = CheckpointStore(tmp_path, keep=2)

    async def refused(folder):
        await write_policy(folder)
        raise error

    with pytest.raises(CheckpointFailed, match="older ones are intact"):
        asyncio.run(store.save(state(2), refused))
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_lost_while_it_saves_is_told_as_lost_and_leaves_nothing(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)

    async def lost(folder):
        await write_policy(folder)
        raise LearnerLost("learner rank 0 was lost while saving")

    with pytest.raises(LearnerLost):
        asyncio.run(store.save(state(2), lost))
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_folder_is_no_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    asyncio.run(store.save(state(1), write_policy))
    (tmp_path / "step-000002").mkdir()
    (tmp_path / ".step-000003.writing").mkdir()
    assert store.latest().state.step == 1


def test_a_damaged_file_is_named(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    checkpoint = asyncio.run(store.save(state(1), write_policy))
    (checkpoint.policy / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors"):
        store.latest()
