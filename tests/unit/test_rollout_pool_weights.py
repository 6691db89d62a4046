"""Weight updates of the pool: no group begins under old weights, and a worker that misses them is replaced."""

import asyncio

from tests.unit.fake_workers import Fleet, ask, handle, started, strand


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
