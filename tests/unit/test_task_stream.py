"""Task streams: each task once an epoch, or by how often it is solved; both go on exactly where a checkpoint left
them."""

import json

import pytest

from conf.schema.algo import DifficultySampler, UniformSampler
from rewards.carriers import SqlTask
from rollout.tasks import DataError, StreamMismatch, TaskStream, build_stream
from rollout.tasks.difficulty import DifficultyStream, chance_to_teach


def tasks(count: int) -> list[SqlTask]:
    return [
        SqlTask(id=f"t{index}", db_id="d", question=f"q{index}", gold_sqls=("SELECT 1",), databases=("d.sqlite",))
        for index in range(count)
    ]


def take(stream: TaskStream, first: int, count: int) -> list[str]:
    return [stream.task_at(position).id for position in range(first, first + count)]


def test_every_epoch_holds_each_task_once_in_another_order():
    taken = take(TaskStream(tasks(20), seed=0), 0, 60)
    epochs = [taken[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(epoch) == sorted(task.id for task in tasks(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_seeds_differ_and_repeat():
    assert take(TaskStream(tasks(20), seed=1), 0, 40) == take(TaskStream(tasks(20), seed=1), 0, 40)
    assert take(TaskStream(tasks(20), seed=1), 0, 20) != take(TaskStream(tasks(20), seed=2), 0, 20)


def test_resume_continues_exactly_even_across_epochs():
    whole = take(TaskStream(tasks(7), seed=5), 0, 30)
    resumed = TaskStream(tasks(7), seed=5)
    resumed.load_state_dict(json.loads(json.dumps(TaskStream(tasks(7), seed=5).state_dict())))
    assert take(resumed, 11, 19) == whole[11:]


@pytest.mark.parametrize("sampler", [UniformSampler(), DifficultySampler()])
def test_a_foreign_checkpoint_is_refused(sampler):
    def stream(count, seed):
        return build_stream(sampler, tasks(count), seed=seed, group_size=4)

    state = stream(7, 5).state_dict()
    with pytest.raises(StreamMismatch, match="other tasks than the 8"):
        stream(8, 5).load_state_dict(state)
    with pytest.raises(StreamMismatch, match="seed=5, this run has seed=6"):
        stream(7, 6).load_state_dict(state)
    with pytest.raises(StreamMismatch, match=r"algo.sampler.type=other, this run has algo.sampler.type="):
        stream(7, 5).load_state_dict(state | {"sampler": "other"})


@pytest.mark.parametrize("sampler", [UniformSampler(), DifficultySampler()])
def test_an_empty_stream_is_refused(sampler):
    with pytest.raises(DataError, match="no task remains"):
        build_stream(sampler, [], seed=0, group_size=4)


def test_the_chance_to_teach_on_known_numbers():
    assert chance_to_teach(0.5, 2) == pytest.approx(0.5)
    assert chance_to_teach(0.9, 3) == pytest.approx(1 - 0.729 - 0.001)


def difficulty(count: int = 12, seed: int = 3, **settings) -> DifficultyStream:
    stream = build_stream(DifficultySampler(**settings), tasks(count), seed=seed, group_size=4)
    assert isinstance(stream, DifficultyStream)
    return stream


def run_steps(stream: DifficultyStream, first: int, steps: int, *, batch: int = 4, ahead: int = 0) -> list[str]:
    """The pipeline's order: admit up to `ahead` batches beyond the one that is recorded. Tasks 0-3 are always right,
    4-7 never, the others half of the time."""
    seen = []
    for step in range(first, first + steps):
        for position in range(step * batch, (step + 1 + ahead) * batch):
            stream.task_at(position)
        for position in range(step * batch, (step + 1) * batch):
            task = stream.task_at(position).id
            seen.append(task)
            number = int(task[1:])
            stream.record(position, [number < 4 or (number >= 8 and i % 2 == 0) for i in range(4)])
    return seen


def test_tasks_that_can_still_teach_come_more_often():
    stream = difficulty(floor=0.02)
    seen = run_steps(stream, 0, 300)
    late = seen[400:]
    teaching = sum(int(task[1:]) >= 8 for task in late) / len(late)
    assert teaching > 0.6
    assert {f"t{i}" for i in range(12)} == set(late)
    assert stream.pass_rate("t0") > 0.9
    assert stream.pass_rate("t5") < 0.1
    assert stream.pass_rate("t9") == pytest.approx(0.5)


def test_a_task_in_flight_is_not_drawn_again():
    stream = difficulty()
    first = take(stream, 0, 12)
    assert len(set(first)) == 12
    assert stream.task_at(12).id in first


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(ahead):
    whole = run_steps(difficulty(40), 0, 12, ahead=ahead)
    stream = difficulty(40)
    first = run_steps(stream, 0, 5, ahead=ahead)
    state = json.loads(json.dumps(stream.state_dict()))
    run_steps(stream, 5, 2, ahead=ahead)  # goes on a little before it dies
    resumed = difficulty(40)
    resumed.load_state_dict(state)
    assert first + run_steps(resumed, 5, 7, ahead=ahead) == whole
    assert run_steps(difficulty(40, seed=4), 0, 12, ahead=ahead) != whole
