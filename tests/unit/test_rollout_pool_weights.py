"""Weight updates of the pool: no group begins under old weights, and a worker that misses them is replaced."""

import asyncio

from rollout.weights.handle import SharedMemoryHandle
from tests.unit.fake_workers import Fleet, ask, broadcast, handle, started, strand


def test_update_reports_the_slowest_worker_and_replaces_one_that_missed() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 3) as pool:
            report = await pool.update_weights(handle(1))
            assert (report.version, report.pause_s, report.in_flight, report.restarted) == (1, 2.1, 3, 0)
            fleet.refusing_lives = {0}
            report = await pool.update_weights(handle(2))
            assert (report.restarted, pool.version) == (1, 2)
            groups = await asyncio.gather(*(ask(pool, f"g{i}") for i in range(9)))
            assert {group.oldest_version for group in groups} == {2}

    asyncio.run(run())


def test_update_waits_for_a_replacement_when_every_worker_missed() -> None:
    async def run() -> None:
        async with started(Fleet(refusing_lives={0}), 1) as pool:
            report = await pool.update_weights(handle(3))
            assert (report.version, report.restarted) == (3, 1)
            assert (await ask(pool, "g")).oldest_version == 3

    asyncio.run(run())


def test_a_replacement_whose_weights_are_gone_waits_for_the_next_publication() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 1) as pool:
            await strand(fleet, pool, "g")
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.05)
            assert pool.states() == ["stale (0 groups)"]
            assert pool.stranded
            await pool.update_weights(handle(2))
            assert (await job).oldest_version == 2

    asyncio.run(run())


def test_no_new_group_begins_while_weights_change() -> None:
    async def run() -> None:
        async with started(Fleet(pace_s=0.0005), 2) as pool:
            versions = []
            for version in range(1, 6):
                update = asyncio.create_task(pool.update_weights(handle(version)))
                await asyncio.sleep(0)
                groups = await asyncio.gather(*(ask(pool, f"{version}-{i}") for i in range(4)))
                versions += [(version, group.oldest_version) for group in groups]
                await update
            assert all(published == begun for published, begun in versions)

    asyncio.run(run())


def test_a_worker_lost_during_its_update_costs_its_replacement_nothing() -> None:
    async def run() -> None:
        fleet = Fleet(hung_lives={0})
        async with started(fleet, 1, group_timeout_s=0.2, max_restarts=1) as pool:
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.01)
            await pool.update_weights(handle(1))
            assert (await job).oldest_version == 1
            assert (pool.restarts, fleet.lives) == (1, 2)

    asyncio.run(run())


def test_an_update_that_waits_for_groups_has_no_limit_while_they_finish() -> None:
    async def run() -> None:
        fleet = Fleet(pace_s=0.03, drains=True)
        async with started(fleet, 1, group_timeout_s=0.1, in_flight="wait") as pool:
            jobs = [asyncio.create_task(ask(pool, f"g{i}")) for i in range(10)]
            await asyncio.sleep(0.01)
            report = await pool.update_weights(handle(1))
            assert (report.restarted, pool.restarts) == (0, 0)
            assert {group.oldest_version for group in await asyncio.gather(*jobs)} == {0}

    asyncio.run(run())


def test_no_replaced_worker_reads_weights_while_others_are_written_over_them() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 1) as pool:
            await pool.update_weights(handle(1))
            writing, written = asyncio.Event(), asyncio.Event()

            async def write() -> SharedMemoryHandle:
                writing.set()
                await written.wait()
                return handle(2)

            publication = asyncio.create_task(pool.publish(write()))
            await writing.wait()
            fleet.deadly_once = {"g"}
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.05)
            assert fleet.updated == [(0, 1, 1)]
            assert pool.states() == ["stale (0 groups)"]
            assert not pool.stranded, "weights are under way"
            written.set()
            await publication
            assert (await job).oldest_version == 2
            assert {(life, version) for life, version, _ in fleet.updated} == {(0, 1), (1, 2)}

    asyncio.run(run())


def test_a_broadcast_goes_to_those_that_live_by_their_ranks() -> None:
    async def run() -> None:
        fleet = Fleet(refusing_lives={0})
        async with started(fleet, 3, max_restarts=0) as pool:
            assert pool.engines == ((0, 0), (1, 0), (2, 0))
            assert (await pool.update_weights(broadcast(1, pool.engines))).restarted == 1
            await asyncio.sleep(0.01)
            assert pool.engines == ((1, 0), (2, 0))
            await pool.update_weights(broadcast(2, pool.engines))
            assert fleet.updated == [(1, 1, 2), (2, 1, 3), (1, 2, 1), (2, 2, 2)]
            assert not pool.stranded

    asyncio.run(run())


def test_a_replaced_worker_takes_no_part_in_a_broadcast_that_does_not_know_it() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 1) as pool:
            await pool.update_weights(broadcast(1, pool.engines))
            before = pool.engines
            fleet.deadly_once = {"g"}
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.05)
            assert pool.stranded
            await pool.update_weights(broadcast(2, before))
            assert pool.stranded
            await pool.update_weights(broadcast(2, pool.engines))
            assert (await job).oldest_version == 2
            assert not pool.stranded

    asyncio.run(run())
