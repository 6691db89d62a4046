"""Real vLLM engines in real Ray actors: what they sample, how their weights change, what happens when they die."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema.rollout import RolloutConfig, SamplingConfig
from conf.schema.stages import ClusterConfig
from rewards.carriers import SqlTask
from rollout.carriers import Group, Prompt
from rollout.errors import EngineStartFailed, ModelFolderMissing, NotEnoughMemory
from rollout.pool import RolloutPool
from rollout.weights.handle import SyncReport
from trainer.learner.gather import gathered_weights
from trainer.weights.shared_memory import SharedMemorySender

pytestmark = pytest.mark.integration

T = TypeVar("T")
CONTEXT = 160
TASK = SqlTask(id="t", db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The event loop that all pools live on."""
    with asyncio.Runner() as opened:
        yield opened


def config(dtype: str, in_flight: str = "keep", **engine: Any) -> RolloutConfig:
    settings = {"dtype": dtype, "max_num_seqs": 64, "kv_cache_gib": 0.25} | engine
    return RolloutConfig.model_validate(
        {"engine": settings, "in_flight": in_flight, "start_timeout_s": 300, "group_timeout_s": 120}
    )


async def start(folder: Path, settings: RolloutConfig, logs: Path | None = None) -> RolloutPool:
    from rollout.worker import ray_workers

    log_dir = None if logs is None else str(logs)
    workers = ray_workers(str(folder), settings, ClusterConfig(), max_model_len=CONTEXT, seed=0, log_dir=log_dir)
    pool = RolloutPool(settings, workers, max_model_len=CONTEXT)
    await pool.start()
    return pool


SETTINGS = {
    "float32": config("float32"),
    "bfloat16": config("bfloat16"),
    "wait": config("float32", in_flight="wait"),
    "abort": config("float32", in_flight="abort"),
    "no room": config("float32", kv_cache_gib=0.0001),
}


@dataclass(frozen=True)
class Pools:
    started: dict[str, RolloutPool | BaseException]
    logs: Path
    """Each pool's workers write into a folder of its name."""

    def __getitem__(self, name: str) -> RolloutPool:
        found = self.started[name]
        if isinstance(found, BaseException):
            raise found
        return found

    def processes(self, name: str) -> list[psutil.Process]:
        """The pool's workers."""
        folder = str(self.logs / name)
        return [p for p in worker_processes() if any(file.path.startswith(folder) for file in p.open_files())]


@pytest.fixture(scope="module")
def pools(runner: asyncio.Runner, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    """Started side by side: most of a start is imports, which take one core. A test closes its own."""
    logs = tmp_path_factory.mktemp("logs")

    async def start_all() -> list[RolloutPool | BaseException]:
        starts = (start(tiny_policy, settings, logs / name) for name, settings in SETTINGS.items())
        return await asyncio.gather(*starts, return_exceptions=True)

    opened = Pools(dict(zip(SETTINGS, run(runner, start_all()), strict=True)), logs)
    yield opened
    run(runner, close_all(opened))


async def close_all(pools: Pools) -> None:
    await asyncio.gather(*(pool.close() for pool in pools.started.values() if isinstance(pool, RolloutPool)))


async def ask(pool: RolloutPool, name: str, *, n: int = 4, length: int = 40, **sampling: float) -> Group:
    ids = tuple((31 * place + 7 * len(name)) % 250 for place in range(length))
    settings = SamplingConfig.model_validate({"max_tokens": 24} | sampling)
    return await pool.generate(Prompt(task=TASK, text=name, token_ids=ids), group_id=name, n=n, sampling=settings)


async def begun(pool: RolloutPool, names: Sequence[str], *, n: int) -> list[asyncio.Task[Group]]:
    """Groups of up to 110 tokens in the midst of their sampling: one of four tokens that came with them is done."""
    jobs = [asyncio.create_task(ask(pool, name, n=n, max_tokens=110)) for name in names]
    await ask(pool, "short", n=1, max_tokens=4)
    return jobs


def differences(model: PreTrainedModel, group: Group, first: int = 0) -> torch.Tensor:
    """|engine - transformers| log-probability of every token from place `first` on; one dimension."""
    found = []
    prompt = group.prompt.token_ids
    for completion in group.completions:
        ids = torch.tensor([prompt + completion.token_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
        expected = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
        found.append((expected - torch.tensor(completion.logprobs)).abs()[first:])
    return torch.cat(found)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def disturb(model: PreTrainedModel, seed: int) -> None:
    """Change every weight, embeddings and norms included."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)


def run(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    return runner.run(asyncio.wait_for(work, 400))


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "RolloutWorker" in title(child)]


def title(process: psutil.Process) -> str:
    try:
        return process.name() + "".join(process.cmdline()[:1])
    except psutil.NoSuchProcess:  # a zombie counts as ended
        return ""


def test_log_probabilities_equal_the_learners_before_and_after_every_update(
    runner: asyncio.Runner, pools: Pools, tiny_policy: Path
) -> None:
    async def work() -> None:
        model = load(tiny_policy)
        pool = pools["float32"]
        sender = SharedMemorySender(torch.float32)
        try:
            await sampling_is_right(pool, model)
            await updates_are_complete(pool, model, sender)
            await an_update_in_flight_marks_its_tokens(pool, model, sender)
            (worker,) = pools.processes("float32")
            await a_killed_worker_comes_back_with_the_newest_weights(pool, model, worker)
        finally:
            await pool.close()
            sender.close()

    run(runner, work())


async def sampling_is_right(pool: RolloutPool, model: PreTrainedModel) -> None:
    group = await ask(pool, "first", n=8)
    assert len(group.completions) == 8
    assert len({completion.token_ids for completion in group.completions}) > 1
    assert all(len(c.token_ids) == len(c.logprobs) <= 24 for c in group.completions)
    assert differences(model, group).max() <= 1e-4
    cooler = await ask(pool, "cool", temperature=0.5)
    assert differences(model, cooler).max() > 1e-2, "log-probabilities must be those of the sampling distribution"
    greedy = [await ask(pool, f"greedy{i}", n=1, temperature=0.0, length=30) for i in range(2)]
    assert greedy[0].completions[0].token_ids == greedy[1].completions[0].token_ids
    ids = greedy[0].prompt.token_ids
    with torch.no_grad():
        best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    assert greedy[0].completions[0].token_ids[0] == best


async def updates_are_complete(pool: RolloutPool, model: PreTrainedModel, sender: SharedMemorySender) -> None:
    before = (await ask(pool, "same prompt", n=1, temperature=0.0)).completions[0]
    for version in (1, 2):
        disturb(model, version)
        assert differences(model, await ask(pool, f"stale{version}")).mean() > 1e-2
        report: SyncReport = await pool.update_weights(sender.publish(gathered_weights(model, sharded=False), version))
        assert (report.version, report.restarted, report.in_flight) == (version, 0, 0)
        group = await ask(pool, f"fresh{version}", n=8)
        assert differences(model, group).max() <= 1e-4
        assert {completion.version_spans for completion in group.completions} == {((0, version),)}
    after = (await ask(pool, "same prompt", n=1, temperature=0.0)).completions[0]
    assert before.token_ids != after.token_ids


async def an_update_in_flight_marks_its_tokens(
    pool: RolloutPool, model: PreTrainedModel, sender: SharedMemorySender
) -> None:
    old = pool.version
    disturb(model, 77)
    handle = sender.publish(gathered_weights(model, sharded=False), old + 1)
    (job,) = await begun(pool, ["in flight"], n=32)
    report = await pool.update_weights(handle)
    group = await job
    long = [c for c in group.completions if len(c.version_spans) == 2]
    assert report.in_flight >= len(long) > 0, "the update came after the group"
    places = {c.version_spans[1][0] for c in long}
    assert {tuple(version for _, version in c.version_spans) for c in long} == {(old, old + 1)}
    for place in places:
        same = tuple(c for c in long if c.version_spans[1][0] == place)
        part = Group(id="part", prompt=group.prompt, completions=same)
        assert differences(model, part, first=place).max() <= 1e-4, "new tokens must see keys and values of new weights"
    assert group.oldest_version == old


async def a_killed_worker_comes_back_with_the_newest_weights(
    pool: RolloutPool, model: PreTrainedModel, victim: psutil.Process
) -> None:
    jobs = await begun(pool, [f"lost{i}" for i in range(4)], n=16)
    victim.send_signal(signal.SIGKILL)
    groups = await asyncio.gather(*jobs)
    assert [group.id for group in groups] == [f"lost{i}" for i in range(4)]
    assert pool.restarts == 1
    for group in groups:
        assert {v for c in group.completions for _, v in c.version_spans} == {pool.version}
        assert differences(model, group).max() <= 1e-4


@pytest.mark.parametrize("in_flight", ["wait", "abort"])
def test_groups_in_flight_are_finished_or_begun_anew(
    runner: asyncio.Runner, pools: Pools, tiny_policy: Path, in_flight: str
) -> None:
    async def work() -> None:
        before, model = load(tiny_policy), load(tiny_policy)
        disturb(model, 77)
        pool = pools[in_flight]
        sender = SharedMemorySender(torch.float32)
        try:
            handle = sender.publish(gathered_weights(model, sharded=False), 1)
            jobs = await begun(pool, ["in flight0", "in flight1"], n=16)
            report = await pool.update_weights(handle)
            groups = await asyncio.gather(*jobs)
            version = {"wait": 0, "abort": 1}[in_flight]
            assert report.in_flight == 0
            assert (report.aborted > 0) == (in_flight == "abort"), "the update came after the groups"
            assert (0 < report.aborted_tokens < report.aborted * 110) == (in_flight == "abort")
            for group in groups:
                assert {c.version_spans for c in group.completions} == {((0, version),)}
                assert differences([before, model][version], group).max() <= 1e-4
            fresh = await ask(pool, "fresh")
            assert fresh.oldest_version == 1
            assert differences(model, fresh).max() <= 1e-4
        finally:
            await pool.close()
            sender.close()

    run(runner, work())


def test_bfloat16_agrees_within_a_hundredth(runner: asyncio.Runner, pools: Pools, tiny_policy: Path) -> None:
    async def work() -> None:
        model = load(tiny_policy)
        pool = pools["bfloat16"]
        sender = SharedMemorySender(torch.bfloat16)
        try:
            assert differences(model, await ask(pool, "start", n=16)).mean() <= 1e-2
            disturb(model, 5)
            await pool.update_weights(sender.publish(gathered_weights(model, sharded=False), 1))
            assert differences(model, await ask(pool, "updated", n=16)).mean() <= 1e-2
        finally:
            await pool.close()
            sender.close()

    run(runner, work())


def test_what_cannot_start_says_why(runner: asyncio.Runner, pools: Pools, tiny_policy: Path, tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(ModelFolderMissing, match="does not exist"):
            await start(tmp_path / "nowhere", config("float32"))
        with pytest.raises(NotEnoughMemory, match="kv_cache_gib"):
            await start(tiny_policy, config("float32", kv_cache_gib=50_000.0))
        with pytest.raises(EngineStartFailed, match="vLLM did not start"):
            pools["no room"]

    run(runner, work())


def test_closed_pools_leave_nothing(runner: asyncio.Runner, pools: Pools) -> None:
    run(runner, close_all(pools))
    deadline = time.monotonic() + 20
    while worker_processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert worker_processes() == []
    assert not [name for name in os.listdir("/dev/shm") if "quorum" in name]
