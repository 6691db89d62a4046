"""The reward client against actors that hang, die and fail: every group is scored once, or said to be unscorable.

Time is simulated: the limits are met to the instant, whatever else the machine does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conf.schema.reward import LOST_LIMIT, RewardConfig
from measure.scaling.clock import simulate
from records.metrics import StepMetrics
from rewards.carriers import RewardResult, SqlTask
from rewards.client import RewardClient
from rewards.memory_store import VerifiedTrace
from rewards.port import ActorFailed, ActorGone, Reply
from rewards.scorer import ScoreJob, ScorerStats
from rewards.seat import LOOKS, RewardServerLost
from trainer.step_metrics import reward_server_metrics

LIMIT_S = 0.2
SILENT_S = LIMIT_S
"""Until an actor that answers nothing is replaced."""
STILL_S = LIMIT_S + LIMIT_S / LOOKS
"""Until one is that answers for its progress and makes none: its time counts from the first look."""
NOTHING = ScorerStats(
    tasks=0, completions=0, unscorable=0, cache_entries=0, cache_hits=0, cache_misses=0, executor_restarts=0,
    memory_traces=0,
)  # fmt: skip


@dataclass
class Crew:
    """What the actors do, and what was done to them."""

    lives: int = 0
    killed: list[int] = field(default_factory=list)
    sent: list[list[str]] = field(default_factory=list)
    """Tasks of each call, in order."""
    still_lives: set[int] = field(default_factory=set)
    """Lives that answer for their progress, but make none and never score."""
    deaf_lives: set[int] = field(default_factory=set)
    """Lives that answer nothing once they have started."""
    hanging: str = ""
    """Task that no actor comes back from."""
    poison: str = ""
    """Completion that no actor comes back from."""
    dying: set[str] = field(default_factory=set)
    """Tasks that end the next actor that has them."""
    failing: set[str] = field(default_factory=set)
    """Tasks whose next call raises inside the actor."""
    stats: ScorerStats = NOTHING
    """Counters in every answer."""
    work_s: float = 0.0
    """Time that a group takes; the actor makes progress every hundredth of a second."""
    starts: bool = True
    starting_s: float = 0.0
    """Time until an actor answers its first call."""
    notes: list[str] = field(default_factory=list)
    remembered: dict[int, list[str]] = field(default_factory=dict)
    """Tasks of the traces that each life was given, in order."""
    forgetful: set[int] = field(default_factory=set)
    """Lives whose next commit raises inside the actor, after a while."""
    saved: list[list[str]] = field(default_factory=list)
    """What the life that was asked to save had been given."""

    def actor(self) -> "FakeActor":
        self.lives += 1
        return FakeActor(self, self.lives - 1)


class FakeActor:
    """An actor's port, without the actor."""

    def __init__(self, crew: Crew, life: int) -> None:
        self._crew, self._life = crew, life
        self._done = 0

    async def call(self, method: str, *arguments: object) -> Any:
        if not self._crew.starts:
            raise ActorGone("no memory")
        if method == "remember":
            await asyncio.sleep(self._crew.starting_s)
            if self._life in self._crew.forgetful:
                self._crew.forgetful.discard(self._life)
                await asyncio.sleep(0.3)
                raise ActorFailed("disk full")
            self._crew.remembered.setdefault(self._life, []).extend(trace.task_id for trace in arguments[0])
            return list(arguments[0])
        if method == "save":
            self._crew.saved.append(list(self._crew.remembered[self._life]))
        return await self._score(arguments[0]) if method == "score_batch" else 0

    async def progress(self) -> int:
        if self._life in self._crew.deaf_lives:
            await asyncio.sleep(3600)
        return self._done

    def kill(self) -> None:
        self._crew.killed.append(self._life)

    async def _score(self, jobs: Any) -> Reply:
        crew = self._crew
        names = [job.task.id for job in jobs]
        crew.sent.append(names)
        poisoned = crew.poison in [text for job in jobs for text in job.completions]
        if crew.hanging in names or poisoned or self._life in crew.still_lives | crew.deaf_lives:
            await asyncio.sleep(3600)
        for trouble, error in ((crew.dying, ActorGone("killed")), (crew.failing, ActorFailed("disk full"))):
            if trouble & set(names):
                trouble -= set(names)
                raise error
        for _ in range(int(100 * crew.work_s) * len(names)):
            await asyncio.sleep(0.01)
            self._done += 1
        await asyncio.sleep(0.0001)  # later than what led to the call
        verified = [VerifiedTrace(task_id=name, db_id="d", reasoning="because") for name in names]
        return Reply(results=[results(job) for job in jobs], verified=verified, stats=crew.stats)


def results(job: ScoreJob) -> tuple[RewardResult, ...]:
    return tuple(RewardResult(status="scored", total=float(job.task.id)) for _ in job.completions)


def config(**server: float) -> RewardConfig:
    budget = {"execution": {"budget": {"wall_s": LIMIT_S / 2}}}
    return RewardConfig.model_validate(budget | {"server": {"timeout_s": LIMIT_S} | server})


async def score(client: RewardClient, number: int) -> tuple[RewardResult, ...]:
    task = SqlTask(id=str(number), db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",))
    return await client.score(task, ["a", "b"])


def with_client(crew: Crew, use: Callable[[RewardClient], Coroutine[Any, Any, None]], **server: float) -> float:
    """Simulated seconds that it took."""

    async def run() -> float:
        client = RewardClient(config(**server), crew.actor, note=crew.notes.append)
        try:
            await use(client)
        finally:
            await client.close()
        return asyncio.get_running_loop().time()

    return simulate(asyncio.wait_for(run(), timeout=30))


async def all_are_scored(client: RewardClient, count: int) -> None:
    groups = await asyncio.gather(*(score(client, number) for number in range(count)))
    assert [[r.total for r in group] for group in groups] == [[float(n)] * 2 for n in range(count)]


@pytest.mark.parametrize(("trouble", "replaced_s"), [("still_lives", STILL_S), ("deaf_lives", SILENT_S)])
@pytest.mark.parametrize("count", [1, 8, 40])
def test_an_actor_that_gets_nothing_done_is_replaced_as_soon_whatever_waits(
    trouble: str, replaced_s: float, count: int
) -> None:
    crew = Crew(**{trouble: {0}})

    async def use(client: RewardClient) -> None:
        await all_are_scored(client, count)
        assert client.stats().actor_restarts == 1

    took = with_client(crew, use)
    assert crew.killed[0] == 0
    assert crew.notes == ["the reward actor was lost in score_batch: it got nothing done for 0.2 s; it is replaced"]
    assert took == pytest.approx(replaced_s, abs=0.01)
    # The groups that were lost together go alone.
    assert len(crew.sent[0]) == min(count, 8)
    assert all(len(names) == 1 for names in crew.sent[1 : 1 + len(crew.sent[0])])


def test_an_actor_with_much_to_do_is_left_at_work() -> None:
    crew = Crew(work_s=LIMIT_S / 2)

    async def use(client: RewardClient) -> None:
        await all_are_scored(client, 8)
        assert client.stats().actor_restarts == 0

    assert with_client(crew, use) == pytest.approx(8 * LIMIT_S / 2, abs=0.01)
    assert crew.sent == [[str(number) for number in range(8)]]


def test_a_group_that_hangs_every_actor_is_given_up_within_the_limits_and_costs_no_other() -> None:
    crew = Crew(hanging="3")

    async def use(client: RewardClient) -> None:
        groups = await asyncio.gather(*(score(client, number) for number in range(8)))
        assert [group[0].status for group in groups] == ["scored"] * 3 + ["unscorable"] + ["scored"] * 4
        assert groups[3][0].total is None
        assert "lost 3 times: the reward actor was lost in score_batch: it got nothing done" in groups[3][1].error
        stats = client.stats()
        assert stats.actor_restarts == LOST_LIMIT
        # The fakes' own counters stand still.
        assert (stats.tasks, stats.completions, stats.unscorable) == (1, 2, 2)

    assert with_client(crew, use) == pytest.approx(LOST_LIMIT * STILL_S, abs=0.01)


def test_a_group_that_no_actor_survives_is_the_policys_doing_while_others_are_served() -> None:
    crew = Crew(hanging="1")

    async def use(client: RewardClient) -> None:
        first, hung, last = await asyncio.gather(*(score(client, number) for number in range(3)))
        assert [first[0].status, hung[0].status, last[0].status] == ["scored", "unscorable", "scored"]
        assert [result.cause for result in hung] == ["policy"] * 2
        assert not hung[0].lost
        assert client.stats().unscorable_policy == 2

    with_client(crew, use)
    # Group 0 was scored between the losses: nothing had to be asked.
    assert crew.sent == [["0", "1", "2"], ["0"], ["1"], ["1"], ["2"]]


def test_a_group_that_is_lost_with_nothing_else_to_do_is_held_against_the_last_one_scored() -> None:
    crew = Crew(hanging="1")

    async def use(client: RewardClient) -> None:
        await score(client, 0)
        (lost, _) = await score(client, 1)
        assert (lost.status, lost.cause) == ("unscorable", "policy")
        # What the actor verified while it was asked is not told twice.
        await client.commit()
        assert crew.remembered[crew.lives - 1] == ["0"]

    with_client(crew, use)
    assert crew.sent == [["0"], ["1"], ["1"], ["1"], ["0"]]


def test_the_first_group_of_all_is_held_against_its_own_gold() -> None:
    crew = Crew(poison="a")

    async def use(client: RewardClient) -> None:
        (lost, _) = await score(client, 0)
        assert (lost.status, lost.cause) == ("unscorable", "policy")

    with_client(crew, use)


def test_what_every_group_meets_is_the_infrastructures_doing() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await score(client, 0)
        crew.still_lives = set(range(100))
        groups = await asyncio.gather(*(score(client, number) for number in (1, 2)))
        assert [result.cause for group in groups for result in group] == ["infrastructure"] * 4
        assert all(result.lost for group in groups for result in group)
        stats = client.stats()
        assert (stats.unscorable, stats.unscorable_data, stats.unscorable_policy) == (4, 0, 0)

    with_client(crew, use)


def test_an_outage_while_a_lost_group_is_judged_is_told_to_its_caller() -> None:
    crew = Crew(hanging="1")

    async def use(client: RewardClient) -> None:
        await score(client, 0)
        waiting = asyncio.create_task(score(client, 1))
        while len(crew.killed) < LOST_LIMIT - 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        crew.starts = False  # the last life is up already; its successor will not come
        with pytest.raises(RewardServerLost, match="does not start"):
            await waiting

    with_client(crew, use)


def test_groups_of_an_actor_that_dies_or_fails_inside_are_scored_again() -> None:
    crew = Crew(dying={"1"}, failing={"2"})

    async def use(client: RewardClient) -> None:
        await all_are_scored(client, 4)
        assert client.stats().actor_restarts == 1

    with_client(crew, use)
    # One that raised lives on; the last is ended by close.
    assert crew.killed == [0, 1]


def test_a_step_is_told_how_long_its_groups_waited_and_what_was_replaced() -> None:
    stats = replace(NOTHING, cache_hits=3, cache_misses=1, executor_restarts=2, memory_traces=7)
    crew = Crew(dying={"0"}, work_s=0.05, stats=stats)

    async def use(client: RewardClient) -> None:
        await asyncio.gather(*(score(client, number) for number in range(12)))
        told = reward_server_metrics(client.stats(), client.take_peak())
        StepMetrics(step=1, version=1).update(told)  # registered, all of them
        # The last group waited while the eight before it were scored, one lost actor aside.
        assert told.pop("async/reward_queue_s") == pytest.approx(8 * 0.05, abs=0.01)
        assert told == {
            "async/reward_queue": 12.0,
            "async/reward_restarts": 1.0,
            "async/executor_restarts": 2.0,
            "reward/cache_hit_share": 0.75,
            "reward/memory_traces": 7.0,
        }
        quiet = client.take_peak()
        assert (quiet.groups, quiet.age_s) == (0, 0.0)

    with_client(crew, use)


def test_the_peak_counts_what_still_waits() -> None:
    crew = Crew(still_lives={0})

    async def use(client: RewardClient) -> None:
        waiting = [asyncio.create_task(score(client, number)) for number in range(20)]
        await asyncio.sleep(0.1)
        client.take_peak()
        peak = client.take_peak()
        assert peak.groups == 12
        assert peak.age_s == pytest.approx(0.1)
        for each in waiting:
            each.cancel()

    with_client(crew, use, timeout_s=60.0)


def test_actors_start_side_by_side_once_before_anything_is_scored() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await asyncio.gather(client.start(), client.start())
        assert crew.lives == 2
        await client.start()
        await all_are_scored(client, 4)
        assert crew.lives == 2

    with_client(crew, use, actors=2)


def test_a_start_that_fails_is_told_at_once_and_to_every_later_caller() -> None:
    async def use(client: RewardClient) -> None:
        for _ in range(2):
            with pytest.raises(RewardServerLost, match="does not start: no memory"):
                await client.start()
        assert "no memory" in str(client.failure)
        with pytest.raises(RewardServerLost, match="no memory"):
            await score(client, 1)

    with_client(Crew(starts=False), use, actors=2)


def test_a_start_under_way_ends_with_the_client() -> None:
    crew = Crew(starting_s=3600.0)

    async def use(client: RewardClient) -> None:
        starting = asyncio.create_task(client.start())
        await asyncio.sleep(0.05)
        await client.close()
        await asyncio.gather(starting, return_exceptions=True)
        assert crew.killed == [0]

    with_client(crew, use)


def test_what_an_actor_verified_outlives_it() -> None:
    crew = Crew(dying={"9"})

    async def use(client: RewardClient) -> None:
        await all_are_scored(client, 3)
        await score(client, 9)
        await client.commit()
        assert crew.remembered == {0: [], 1: ["0", "1", "2", "9"]}
        await client.commit()
        assert crew.remembered[1] == ["0", "1", "2", "9"]

    with_client(crew, use)
    assert crew.lives == 2


def test_commits_at_the_same_time_give_every_actor_the_same_traces() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        async def request(number: int) -> None:
            await score(client, number)
            await client.commit()

        await client.start()
        await asyncio.gather(*(request(number) for number in range(8)))
        assert crew.remembered[0] == crew.remembered[1]
        assert sorted(crew.remembered[0]) == [str(number) for number in range(8)]

    with_client(crew, use, actors=2)


def test_a_commit_that_is_cancelled_half_way_reaches_every_actor() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await client.start()
        await score(client, 1)
        crew.starting_s = 0.05
        committing = asyncio.create_task(client.commit())
        await asyncio.sleep(0.02)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing
        await score(client, 2)
        await client.commit()
        assert crew.remembered == {0: ["1", "2"], 1: ["1", "2"]}

    with_client(crew, use, actors=2)


def test_a_commit_that_is_sent_again_keeps_its_place() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await client.start()
        crew.starting_s = 0.05
        crew.forgetful = {1}
        commits = []
        for number in (1, 2):
            await score(client, number)
            commits.append(asyncio.create_task(client.commit()))
        await asyncio.gather(*commits)
        assert crew.remembered == {0: ["1", "2"], 1: ["1", "2"]}

    with_client(crew, use, actors=2, timeout_s=60.0)


def test_what_is_saved_holds_every_commit_before_it() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await client.start()
        crew.starting_s = 0.05
        commits = []
        for number in (1, 2):
            await score(client, number)
            commits.append(asyncio.create_task(client.commit()))
            await asyncio.sleep(0.01)
        commits[1].cancel()
        await client.save("memory.sqlite")
        assert crew.saved == [["1", "2"]]

    with_client(crew, use, actors=2)


def test_a_commit_under_way_ends_with_the_client() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await client.start()
        await score(client, 1)
        crew.starting_s = 0.05
        committing = asyncio.create_task(client.commit())
        await asyncio.sleep(0.02)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await committing
        await asyncio.sleep(0.1)
        assert crew.lives == len(crew.killed) == 2

    with_client(crew, use, actors=2)


def test_a_loaded_memory_forgets_what_waited() -> None:
    crew = Crew()

    async def use(client: RewardClient) -> None:
        await score(client, 1)
        await client.load("memory.sqlite")
        await client.commit()
        assert crew.remembered == {0: []}

    with_client(crew, use)


def test_a_server_that_cannot_start_is_told_to_all_who_wait() -> None:
    async def use(client: RewardClient) -> None:
        answers = await asyncio.gather(*(score(client, number) for number in range(3)), return_exceptions=True)
        assert all(isinstance(answer, RewardServerLost) for answer in answers)
        assert "does not start: no memory" in str(answers[0])
        with pytest.raises(RewardServerLost):
            await score(client, 9)

    with_client(Crew(starts=False), use)
