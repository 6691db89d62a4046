"""Which random numbers an engine draws."""

from conf.schema.rollout import RolloutConfig
from conf.schema.stages import ClusterConfig
from rollout.worker import ray_workers


def seeds(*, seed: int = 0, version: int = 0, workers: int = 2) -> list[int]:
    """Of the first life of each worker."""
    made = ray_workers(
        "policy", RolloutConfig(workers=workers), ClusterConfig(), max_model_len=64, seed=seed, version=version
    )
    return [factory().spec.seed for factory in made]


def test_the_same_run_draws_the_same_and_a_resumed_one_does_not_repeat_its_first_step():
    assert seeds() == seeds()
    drawn = [*seeds(), *seeds(version=20), *seeds(version=40), *seeds(seed=1)]
    assert len(set(drawn)) == len(drawn)


def test_a_replaced_worker_does_not_repeat_what_the_lost_one_drew():
    (factory,) = ray_workers("policy", RolloutConfig(), ClusterConfig(), max_model_len=64, seed=0)
    assert len({factory().spec.seed for _ in range(4)}) == 4


def test_every_seed_is_one_that_numpy_takes():
    assert all(0 <= drawn < 2**32 for drawn in seeds(seed=2**32 - 1, version=10**6, workers=8))
