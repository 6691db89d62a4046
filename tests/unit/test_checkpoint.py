import asyncio
import errno
import json
import os
import sqlite3

import pytest

from conf.schema.algo import DifficultySampler
from records.checkpoint import Checkpoint, CheckpointFailed, CheckpointInvalid, CheckpointStore, RunState, finished
from rewards.carriers import SqlTask
from rollout.tasks import TaskStream, build_stream
from trainer.data import restore
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


def test_a_newest_checkpoint_without_its_manifest_is_damaged_and_an_older_one_was_removed_in_part(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        asyncio.run(store.save(state(step), write_policy))
    (tmp_path / "step-000001" / "MANIFEST.json").unlink()
    assert store.latest().state.step == 2
    (tmp_path / "step-000002" / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointInvalid, match=r"step-000002/MANIFEST\.json is missing: remove "):
        store.latest()


def test_a_checkpoint_that_was_moved_and_linked_is_read_and_only_its_link_is_removed(tmp_path):
    runs, other = tmp_path / "runs", tmp_path / "other"
    store = CheckpointStore(runs, keep=1)
    asyncio.run(store.save(state(1), write_policy))
    (runs / "step-000001").rename(other)
    (runs / "step-000001").symlink_to(other)
    assert store.latest().state.step == 1
    fresh = CheckpointStore(runs, keep=1)
    asyncio.run(fresh.save(state(1), write_policy))
    assert not (runs / "step-000001").is_symlink()
    (runs / "step-000002").symlink_to(other)
    asyncio.run(fresh.save(state(3), write_policy))
    assert [folder.name for folder in runs.iterdir()] == ["step-000003"]
    assert (other / "MANIFEST.json").is_file()


def test_a_damaged_file_is_named(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    checkpoint = asyncio.run(store.save(state(1), write_policy))
    (checkpoint.policy / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors"):
        store.latest()


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "no JSON": lambda text: b"\x00" * len(text),
    "a list": lambda text: b"[1, 2]",
    "null": lambda text: b"null",
    "nothing in it": lambda text: b"{}",
    "deep": lambda text: b"[" * 100_000,
    "numbers as words": lambda text: text.replace(b": 1,", b': "one",').replace(b": 1\n", b': "one"\n'),
    "of another step": lambda text: text.replace(b'"step": 1', b'"step": 2'),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["MANIFEST.json", "state.json"])
def test_a_damaged_file_of_a_checkpoint_is_one_sentence_that_says_what_to_do(tmp_path, name, damage):
    if (name, damage) == ("MANIFEST.json", "of another step"):
        pytest.skip("the state counts")
    store = CheckpointStore(tmp_path, keep=2)
    folder = asyncio.run(store.save(state(1), write_policy)).folder
    text = (folder / name).read_bytes()
    (folder / name).write_bytes(DAMAGES[damage](text))
    if name != "MANIFEST.json":  # damage that keeps the size is seen too
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        manifest["files"][name] = (folder / name).stat().st_size
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointInvalid) as refused:
        store.latest()
    said = str(refused.value)
    assert said.startswith(f"{folder / name} is damaged (")
    assert said.endswith(f"remove {folder} to resume from the one before")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "policy", "/nowhere", "../.."])
def test_a_manifest_that_lists_what_is_no_file_is_one_sentence(tmp_path, name):
    store = CheckpointStore(tmp_path, keep=2)
    folder = asyncio.run(store.save(state(1), write_policy)).folder
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][name] = 10
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointInvalid, match="is missing or has changed"):
        store.latest()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"sampler": 3}', '{"fingerprint": "x", "tasks": "many", "seed": 0, "sampler": "uniform"}']
)
def test_a_damaged_stream_is_the_same_sentence(tmp_path, text):
    checkpoint = Checkpoint(folder=tmp_path, state=state(1))
    checkpoint.stream.write_text(text)
    task = SqlTask(id="t", db_id="d", question="q", gold_sqls=("SELECT 1",), databases=())
    with pytest.raises(CheckpointInvalid, match=r"stream.json is damaged \(.*remove .* to resume from the one before"):
        restore(TaskStream([task], seed=0), checkpoint)


@pytest.mark.parametrize(
    "change", [{"next": None}, {"open": [[0, "unknown"]]}, {"tried": {"t": {"scored": "x", "right": 0}}}, {"tried": []}]
)
def test_what_a_stream_remembers_is_looked_at_before_it_is_used(tmp_path, change):
    task = SqlTask(id="t", db_id="d", question="q", gold_sqls=("SELECT 1",), databases=())
    stream = build_stream(DifficultySampler(), [task], seed=0, group_size=4)
    stream.task_at(0)
    checkpoint = Checkpoint(folder=tmp_path, state=state(1))
    checkpoint.stream.write_text(json.dumps(stream.state_dict() | change))
    with pytest.raises(CheckpointInvalid, match=r"stream.json is damaged"):
        restore(build_stream(DifficultySampler(), [task], seed=0, group_size=4), checkpoint)


def test_steps_are_ordered_by_number_and_other_folders_are_no_checkpoints(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    for step in (999_999, 1_000_000):
        asyncio.run(store.save(state(step), write_policy))
    strange = tmp_path / "step-backup"
    strange.mkdir()
    (strange / "MANIFEST.json").write_text("{}")
    assert [folder.name for folder in finished(tmp_path)] == ["step-999999", "step-1000000"]
    assert store.latest().state.step == 1_000_000


class Disk:
    """Records what is put on the disk and what is renamed, in order."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.events = []
        fsync, rename = os.fsync, os.rename

        def synced(opened):
            self.events.append(self._shown(os.readlink(f"/proc/self/fd/{opened}")))
            fsync(opened)

        def renamed(source, target):
            self.events.append(f"{self._shown(source)} -> {self._shown(target)}")
            rename(source, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", renamed)

    def _shown(self, path):
        return os.path.relpath(path, self.root)


def test_weights_and_moments_are_on_the_disk_before_the_checkpoint_appears_and_its_name_after(tmp_path, monkeypatch):
    async def write(folder):
        await write_policy(folder)
        (folder / "learner").mkdir()
        (folder / "learner" / "rank-0.pt").write_bytes(b"moments")

    disk = Disk(tmp_path, monkeypatch)
    asyncio.run(CheckpointStore(tmp_path, keep=2).save(state(1), write))
    hidden, appears = ".step-000001.writing", disk.events.index(".step-000001.writing -> step-000001")
    before = disk.events[:appears]
    for name in ("policy/model.safetensors", "policy", "learner/rank-0.pt", "learner", "state.json"):
        assert f"{hidden}/{name}" in before
    for file, folder in (("policy/model.safetensors", "policy"), ("learner/rank-0.pt", "learner")):
        assert before.index(f"{hidden}/{file}") < before.index(f"{hidden}/{folder}")
    # The manifest says that the rest is there: it comes when it is, and then the folder's list of names.
    manifest = next(place for place, event in enumerate(before) if "MANIFEST" in event)
    assert all(before.index(f"{hidden}/{name}") < manifest for name in ("policy", "learner", "state.json"))
    assert before[-1] == hidden
    assert disk.events[appears + 1] == "."
