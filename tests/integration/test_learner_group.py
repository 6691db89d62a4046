"""The learner behind Ray: two ranks train, publish and save; what goes wrong is a typed error with a reason."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from conf.child import ROOT
from conf.schema.algo import AlgoConfig
from conf.schema.learner import LearnerConfig
from conf.schema.stages import ClusterConfig
from tests.tiny_qwen2 import tiny_qwen2
from trainer.carriers import TrainingSequence
from trainer.learner.errors import LearnerLost, LearnerNotStarted, LearnerStalled, PolicyNotLoadable
from trainer.learner.group import LearnerGroup, _one
from trainer.learner.spec import LearnerSpec
from trainer.placement import local_ray
from trainer.weights.builder import sender_factory

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learner") / "policy"
    model = tiny_qwen2(num_attention_heads=2, initializer_range=0.02, tie_word_embeddings=False)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def private_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Started beside another project's packages, from a folder for temporary files that is too long for sockets."""
    folder = tmp_path_factory.mktemp("another project")
    for name in ("conf", "rollout", "trainer"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('another project')")
    temporary = folder / ("l" * 80)
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TMPDIR", str(temporary))
        with local_ray(ClusterConfig(cpus=2)):
            yield


class Broken:
    """An actor whose constructor raises."""

    def __init__(self) -> None:
        raise ImportError("No module named nowhere")

    def alive(self) -> None:
        pass


def test_an_actor_that_cannot_start_says_what_its_constructor_raised() -> None:
    with pytest.raises(LearnerNotStarted, match="^learner rank 0 cannot start: ImportError: No module named nowhere$"):
        asyncio.run(_one(0, "starting", ray.remote(Broken).remote().alive.remote()))


def test_workers_import_this_code_whatever_lies_in_the_working_directory() -> None:
    def found() -> str:
        import rollout

        return str(rollout.__file__)

    assert ray.get(ray.remote(found).remote()) == str(ROOT / "rollout" / "__init__.py")


def spec(policy: Path, **learner: object) -> LearnerSpec:
    settings = {"dtype": "float32", "learning_rate": 1e-3, "packing": "shared_prefix"} | learner
    return LearnerSpec(
        policy=str(policy),
        learner=LearnerConfig.model_validate(settings),
        algo=AlgoConfig(),
        completion_budget=16,
        total_updates=10,
        sender=sender_factory("shared_memory", "float32"),
    )


def sequences() -> list[TrainingSequence]:
    rng = random.Random(1)
    return [
        TrainingSequence(
            group_index=group,
            prompt_ids=(1, 2, 3 + group),
            completion_ids=tuple(rng.randrange(50) for _ in range(1 + member)),
            logprobs=(-4.0,) * (1 + member),
            advantage=rng.uniform(-1, 1),
        )
        for group in range(4)
        for member in range(3)
    ]


def test_two_ranks_train_publish_and_save_and_a_killed_rank_is_reported(policy: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        group = LearnerGroup(spec(policy, ranks=2), ClusterConfig(cpus=2))
        await group.start()
        watch = asyncio.create_task(group.watch())
        data = sequences()
        before = await group.logprobs(data)
        model = AutoModelForCausalLM.from_pretrained(policy)
        for sequence, found in zip(data, before, strict=True):
            row = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
            log_p = model(row).logits.log_softmax(-1)[0, 2:-1]
            expected = log_p.gather(1, row[0, 3:, None]).squeeze(1)
            assert found == pytest.approx(expected.tolist(), abs=1e-5)

        metrics = await group.train(data)
        assert metrics["perf/tokens_trained"] == 24
        assert metrics["policy/learning_rate"] == pytest.approx(1e-3)
        handle = await group.publish(7)
        assert handle.version == 7
        # Behind Ray's other workers, and so behind engines.
        assert os.getpriority(os.PRIO_PROCESS, handle.pid) == 15
        assert {t.name for t in handle.tensors} == {name for name, _ in model.named_parameters()}

        await group.save(tmp_path / "step")
        after = await group.logprobs(data)
        assert after != before
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "step" / "policy")
        row = torch.tensor([[*data[5].prompt_ids, *data[5].completion_ids]])
        log_p = saved(row).logits.log_softmax(-1)[0, 2:-1].gather(1, row[0, 3:, None]).squeeze(1)
        assert after[5] == pytest.approx(log_p.tolist(), abs=1e-5)

        assert not watch.done()
        os.kill(handle.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(LearnerLost, match="learner rank 0 was lost while waiting for work"):
            await asyncio.wait_for(watch, 60)
        with pytest.raises(LearnerLost, match="learner rank"):
            await group.train(data)
        assert time.monotonic() - began < 60
        await group.close()

    asyncio.run(scenario())


def test_a_missing_policy_is_one_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        group = LearnerGroup(spec(tmp_path / "absent"), ClusterConfig(cpus=2))
        try:
            with pytest.raises(PolicyNotLoadable, match="absent: the folder has no config.json"):
                await group.start()
        finally:
            await group.close()

    asyncio.run(scenario())


def test_a_start_that_takes_too_long_names_the_setting(policy: Path) -> None:
    async def scenario() -> None:
        group = LearnerGroup(spec(policy, start_timeout_s=0.05), ClusterConfig(cpus=2))
        try:
            with pytest.raises(LearnerStalled, match=r"learner\.start_timeout_s=0\.05 s"):
                await group.start()
        finally:
            await group.close()

    asyncio.run(scenario())
