"""No order of events gives a new group to a worker with old weights."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.health import Health, State

EVENTS = st.lists(
    st.sampled_from(["ready", "publish", "update", "late_update", "assign", "deliver", "wait", "lose", "restart"]),
    max_size=60,
)


@given(EVENTS)
def test_ready_means_newest_weights_and_a_live_process(events: list[str]) -> None:
    health = Health(silence_limit_s=10.0)
    wanted, loaded, process, now = 0, -1, True, 0.0
    started = False
    for event in events:
        now += 1.0
        if event == "ready" and process and not started:
            started, loaded = True, 0
            health.ready(version=0, wanted=wanted)
        elif event == "publish":
            wanted += 1
            health.published(wanted)
        elif event == "update" and started:
            loaded = wanted
            health.updated(version=wanted, wanted=wanted)
        elif event == "late_update" and started and wanted:
            loaded = wanted - 1
            health.updated(version=wanted - 1, wanted=wanted)
        elif event == "assign" and health.state is State.READY:
            health.assigned(now)
        elif event == "deliver" and started:
            health.delivered(now, outstanding=0)
        elif event == "wait":
            now += 6.0
            health.silence_left(now)
        elif event == "lose":
            process, started, loaded = False, False, -1
            health.lost()
        elif event == "restart" and not process:
            process = True
            health.restarting()
        if health.state is State.READY:
            assert started
            assert loaded == wanted
        assert health.alive == started


def test_silence_counts_from_the_oldest_wait_and_ends_with_a_delivery() -> None:
    health = Health(silence_limit_s=10.0)
    health.ready(version=0, wanted=0)
    assert health.silence_left(100.0) is None
    health.assigned(100.0)
    health.assigned(104.0)
    assert health.silence_left(104.0) == 6.0
    assert health.silence_left(106.0) == 4.0
    assert health.state is State.SUSPECT
    health.delivered(107.0, outstanding=1)
    assert health.state is State.READY
    assert health.silence_left(107.0) == 10.0
    health.delivered(108.0, outstanding=0)
    assert health.silence_left(500.0) is None


def test_restarts_are_counted() -> None:
    health = Health(silence_limit_s=1.0)
    for _ in range(2):
        health.lost()
        health.restarting()
        health.restarting()
    assert health.restarts == 2
    assert health.state is State.STARTING
