"""The task stream visits each task once an epoch, and goes on exactly where a checkpoint left it."""

import json

import pytest

from rewards.carriers import SqlTask
from rollout.tasks import DataError, StreamMismatch, TaskStream


def tasks(count: int) -> list[SqlTask]:
    return [
        SqlTask(id=f"t{index}", db_id="d", question=f"q{index}", gold_sqls=("SELECT 1",), databases=("d.sqlite",))
        for index in range(count)
    ]


def take(stream: TaskStream, count: int) -> list[tuple[int, str]]:
    return [(position, task.id) for position, task in (stream.next() for _ in range(count))]


def test_every_epoch_holds_each_task_once_in_another_order():
    taken = take(TaskStream(tasks(20), seed=0), 60)
    assert [position for position, _ in taken] == list(range(60))
    epochs = [[task for _, task in taken[start : start + 20]] for start in (0, 20, 40)]
    assert all(sorted(epoch) == sorted(task.id for task in tasks(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_seeds_differ_and_repeat():
    assert take(TaskStream(tasks(20), seed=1), 40) == take(TaskStream(tasks(20), seed=1), 40)
    assert take(TaskStream(tasks(20), seed=1), 20) != take(TaskStream(tasks(20), seed=2), 20)


def test_resume_continues_exactly_even_across_epochs():
    whole = take(TaskStream(tasks(7), seed=5), 30)
    stream = TaskStream(tasks(7), seed=5)
    first = take(stream, 11)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = TaskStream(tasks(7), seed=5)
    resumed.load_state_dict(state)
    assert first + take(resumed, 19) == whole


def test_pending_positions_come_again_first():
    stream = TaskStream(tasks(7), seed=5)
    whole = dict(take(stream, 12))
    state = stream.state_dict(pending=[9, 6, 11])
    resumed = TaskStream(tasks(7), seed=5)
    resumed.load_state_dict(state)
    assert take(resumed, 4) == [(6, whole[6]), (9, whole[9]), (11, whole[11]), (12, resumed.task_at(12).id)]
    again = TaskStream(tasks(7), seed=5)
    again.load_state_dict(state)
    again.next()
    assert again.state_dict()["pending"] == [9, 11]


def test_a_foreign_checkpoint_is_refused():
    state = TaskStream(tasks(7), seed=5).state_dict()
    with pytest.raises(StreamMismatch, match="other tasks than the 8"):
        TaskStream(tasks(8), seed=5).load_state_dict(state)
    with pytest.raises(StreamMismatch, match="seed 5, this run has seed=6"):
        TaskStream(tasks(7), seed=6).load_state_dict(state)


def test_an_empty_stream_is_refused():
    with pytest.raises(DataError, match="no task remains"):
        TaskStream([], seed=0)
