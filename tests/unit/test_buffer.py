"""The buffer under random orders of events: nothing lost, nothing twice, nothing too old, no deadlock."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.pipeline.buffer import BufferMisuse, GroupBuffer


@dataclass(frozen=True)
class Item:
    position: int
    oldest_version: int


@given(
    batch=st.integers(1, 5),
    staleness=st.integers(0, 3),
    steps=st.integers(1, 6),
    start=st.integers(0, 3),
    limit=st.integers(0, 4),
    data=st.data(),
)
def test_random_orders_of_events_keep_every_promise(batch, staleness, steps, start, limit, data):
    buffer = GroupBuffer[Item](
        batch_size=batch, max_staleness=staleness, consumed=start * batch, version=start, max_rejected=limit
    )
    first = start * batch
    running: dict[int, int] = {}
    rejected: set[int] = set()
    trained: list[int] = []
    taken_steps = 0
    training = False
    admitted: list[int] = []
    for _ in range(10_000):
        if taken_steps >= steps:
            break
        if not training:
            waiting = len(admitted) + first - buffer.consumed - len(rejected - set(trained))
            assert waiting <= (staleness + 1) * batch
        moves = []
        if buffer.can_admit():
            moves.append("admit")
        if running:
            moves.append("complete")
        if not training and not buffer.waiting_for() and buffer.in_flight >= batch:
            moves.append("take")
        if not training and buffer.ready() and buffer.can_reject():
            moves.append("reject")
        if training:
            moves.append("advance")
        assert moves, "deadlock"
        move = data.draw(st.sampled_from(moves))
        if move == "admit":
            position = buffer.admit()
            admitted.append(position)
            running[position] = buffer.version
        elif move == "complete":
            position = data.draw(st.sampled_from(sorted(running)))
            # A worker restarted with old weights answers with a version that is older than its admission.
            lag = data.draw(st.sampled_from([0, 0, 0, 9]))
            buffer.complete(position, Item(position, running.pop(position) - lag))
        elif move == "take":
            taken, stale = buffer.take()
            for entry in stale:
                assert entry.item.oldest_version < buffer.version - staleness
                running[entry.position] = buffer.version
            for item in taken:
                if item.position not in rejected:
                    assert buffer.version - item.oldest_version <= staleness
            if taken:
                here = [item.position for item in taken if item.position in rejected]
                assert len(taken) == batch + len(here)
                assert len(here) <= limit
                taken_steps += 1
            trained += [item.position for item in taken]
            training = bool(taken)
        elif move == "reject":
            position, _ = data.draw(st.sampled_from(buffer.ready()))
            buffer.reject(position)
            rejected.add(position)
        else:
            buffer.advance(buffer.version + 1)
            training = False
    assert trained == list(range(first, first + len(trained)))
    assert rejected <= set(admitted)
    assert admitted == list(range(first, first + len(admitted)))


def test_synchronous_mode_admits_nothing_while_the_learner_works():
    buffer = GroupBuffer[Item](batch_size=2, max_staleness=0)
    for _ in range(2):
        buffer.complete(buffer.admit(), Item(0, 0))
    assert not buffer.can_admit()
    buffer.take()
    assert not buffer.can_admit()
    buffer.advance(1)
    assert buffer.can_admit()
    assert buffer.consumed == 2


def test_one_step_ahead_admits_one_batch_while_the_learner_works():
    buffer = GroupBuffer[Item](batch_size=2, max_staleness=1)
    for _ in range(4):
        buffer.admit()
    assert not buffer.can_admit()
    buffer.complete(0, Item(0, 0))
    buffer.complete(1, Item(1, 0))
    buffer.take()
    assert not buffer.can_admit()
    buffer.advance(1)
    assert [buffer.admit(), buffer.admit()] == [4, 5]


def test_a_rejected_group_gives_its_slot_to_the_next_position():
    buffer = GroupBuffer[Item](batch_size=2, max_staleness=0, max_rejected=1)
    for _ in range(2):
        position = buffer.admit()
        buffer.complete(position, Item(position, 0))
    assert not buffer.can_admit()
    buffer.reject(0)
    assert not buffer.can_reject()
    assert buffer.admit() == 2
    assert buffer.waiting_for() == [2]
    with pytest.raises(BufferMisuse):
        buffer.reject(1)
    buffer.complete(2, Item(2, 0))
    taken, _ = buffer.take()
    assert [item.position for item in taken] == [0, 1, 2]
    buffer.advance(1)
    assert buffer.consumed == 3


def test_misuse_is_refused():
    buffer = GroupBuffer[Item](batch_size=2, max_staleness=0)
    with pytest.raises(BufferMisuse):
        buffer.take()
    position = buffer.admit()
    buffer.complete(position, Item(position, 0))
    with pytest.raises(BufferMisuse):
        buffer.complete(position, Item(position, 0))
    with pytest.raises(BufferMisuse):
        buffer.complete(7, Item(7, 0))
    with pytest.raises(BufferMisuse):
        buffer.advance(1)
    buffer.admit()
    with pytest.raises(BufferMisuse):
        buffer.admit()
