"""The simulated pipeline: times worked by hand, shared cores, overlap, staleness."""

import asyncio
import json
import math

import pytest

from conf.load import load, to_yaml
from conf.schema.root import TrainConfig
from conf.schema.simulation import SimulationConfig
from measure.scaling.__main__ import main
from measure.scaling.clock import SimulationStuck, simulate
from measure.scaling.cores import Cores, Job
from measure.scaling.costs import Costs, EngineCosts, Machine, measured
from measure.scaling.devices import limit, table
from measure.scaling.measured_runs import RunUnusable, calibrated, predict, read_run
from measure.scaling.run import simulated
from trainer.pipeline.clock import now


def config(**settings: object) -> TrainConfig:
    named = [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
    return load(TrainConfig, "train", ["pipeline.prompts_per_step=4", "rollout.group_size=2", *named])


def costs(**changes: object) -> Costs:
    values: dict[str, object] = {
        "engine": EngineCosts(fixed_s=0.0, each_s=0.01, prompt_token_s=0.0, slots=100, cores=1.0),
        "train_fixed_s": 0.5,
        "train_token_s": 0.0,
        "learner_cores": 1.0,
        "score_group_s": 0.0,
        "scorers": 1,
        "sync_s": 0.1,
        "completion_s": 0.0,
        "lengths": (10,),
        "prompt_tokens": 5,
        "equal_share": 0.0,
    }
    return Costs(**(values | changes))  # type: ignore[arg-type]


def test_the_clock_jumps_and_a_deadlock_is_said():
    async def sleeps() -> float:
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        return now()

    assert simulate(sleeps()) == pytest.approx(7200)

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationStuck):
        simulate(waits())


@pytest.mark.parametrize(("count", "expected"), [(2, [4.5, 6.5]), (3, [3.0, 5.0]), (math.inf, [3.0, 5.0])])
def test_parts_that_ask_for_more_cores_than_there_are_slow_down_alike(count, expected):
    async def both() -> list[float]:
        machine = Cores(count)

        async def one(cores: float, seconds: float) -> float:
            await Job(machine, cores).work(seconds)
            return now()

        return list(await asyncio.gather(one(1.0, 3.0), one(2.0, 5.0)))

    # On two cores both run at 2/3 until the first is done after 4.5 s; the other has 2 s left then.
    assert simulate(both()) == pytest.approx(expected)


def test_synchronous_stages_add_up():
    # 8 sequences of 10 tokens at 0.01 s a token and sequence, 0.5 s of training, 0.1 s of synchronisation
    found = simulated(config(), costs(), steps=6, workers=1)
    assert found.step_s == pytest.approx(0.8 + 0.5 + 0.1)
    assert found.completions_per_s == pytest.approx(8 / 1.4)
    assert found.seconds_by_stage == pytest.approx({"generate": 0.8, "score": 0.0, "train": 0.5, "sync": 0.1})
    assert found.trainer_wait_share == pytest.approx(0.8 / 1.4)
    assert found.rollout_idle_share == pytest.approx(0.6 / 1.4)
    assert (found.staleness_mean, found.staleness_max) == (0.0, 0.0)


def test_two_workers_share_the_sequences():
    assert simulated(config(), costs(), steps=6, workers=2).step_s == pytest.approx(0.4 + 0.5 + 0.1)


def test_one_step_ahead_hides_training_on_devices_of_their_own():
    found = simulated(config(pipeline__max_staleness=1), costs(), steps=60, workers=1)
    # generation goes on all the time but for the weight update
    assert found.step_s == pytest.approx(0.8 + 0.1, rel=0.02)
    assert found.staleness_max == 1.0


def test_overlap_on_one_core_hides_no_work():
    found = simulated(config(pipeline__max_staleness=1), costs(), steps=8, workers=1, cores=1)
    assert found.step_s == pytest.approx(0.8 + 0.5 + 0.1, rel=0.1)


def test_slots_and_long_sequences_bound_a_worker():
    slow = EngineCosts(fixed_s=0.1, each_s=0.0, prompt_token_s=0.0, slots=4, cores=1.0)
    # 8 sequences of 10 steps of 0.1 s in two waves
    assert simulated(config(), costs(engine=slow), steps=6, workers=1).seconds_by_stage["generate"] == pytest.approx(
        2.0
    )


def test_prompts_and_scores_cost_their_time():
    engine = EngineCosts(fixed_s=0.0, each_s=0.01, prompt_token_s=0.02, slots=100, cores=1.0)
    found = simulated(config(), costs(engine=engine, score_group_s=0.25), steps=6, workers=1)
    # 4 prompts of 5 tokens first; all groups finish together and are scored one after the other
    assert found.seconds_by_stage["generate"] == pytest.approx(0.4 + 0.8)
    assert found.seconds_by_stage["score"] == pytest.approx(1.0)


def test_groups_of_equal_rewards_are_not_trained_on():
    # a quarter of the groups; 2 x 10 completion tokens a group
    found = simulated(config(), costs(equal_share=0.25, train_fixed_s=0.0, train_token_s=0.01), steps=6, workers=1)
    assert found.seconds_by_stage["train"] == pytest.approx(3 * 20 * 0.01)
    kept = config(algo__drop_zero_variance="false")
    found = simulated(kept, costs(equal_share=0.25, train_fixed_s=0.0, train_token_s=0.01), steps=6, workers=1)
    assert found.seconds_by_stage["train"] == pytest.approx(4 * 20 * 0.01)


def test_costs_are_found_again_in_rows_that_were_made_with_them():
    def row(longest: float, tokens: float, trained: float) -> dict[str, float]:
        return {
            "length/completion_max": longest,
            "length/prompt_mean": 50.0,
            "perf/generated_tokens": tokens,
            "perf/generate_s": 0.01 * longest + 0.001 * tokens,
            "perf/tokens_trained": trained,
            "perf/train_s": 0.2 + 0.0005 * trained,
            "perf/score_s": 0.02,
            "perf/sync_s": 0.05,
            "perf/completions": 100.0,
            "reward/zero_variance_share": 0.25,
        }

    rows = [row(30, 900, 2000), row(50, 1500, 4000), row(40, 400, 1000)]
    steps = [
        (one, one["perf/generate_s"] + one["perf/train_s"] + 0.02 + 0.05 + 0.1) for one in rows
    ]  # 0.1 s between stages
    machine = Machine(engine_threads=1, learner_threads=2, max_num_seqs=64, scorers=1)
    found = measured(steps, [9, 11], machine)
    assert (found.engine.fixed_s, found.engine.each_s) == (pytest.approx(0.01), pytest.approx(0.001))
    assert (found.train_fixed_s, found.train_token_s) == (pytest.approx(0.2), pytest.approx(0.0005))
    assert found.completion_s == pytest.approx(0.001)
    assert found.score_group_s == pytest.approx(0.02 / 8)
    assert (found.engine.cores, found.learner_cores, found.engine.slots) == (1, 2, 64)


def test_costs_are_never_negative():
    rows = [
        {
            "length/completion_max": 10.0 * k,
            "length/prompt_mean": 5.0,
            "perf/generated_tokens": 100.0 * k * k,
            "perf/generate_s": 0.001 * 100 * k * k - 0.001 * k,
            "perf/tokens_trained": 100.0 * k,
            "perf/train_s": 0.01 * 100 * k - 0.05,
            "perf/score_s": 0.0,
            "perf/sync_s": 0.0,
            "perf/completions": 10.0,
            "reward/zero_variance_share": 0.0,
        }
        for k in (1, 2, 3)
    ]
    machine = Machine(engine_threads=1, learner_threads=1, max_num_seqs=8, scorers=1)
    found = measured([(row, 10.0) for row in rows], [3], machine)
    assert found.engine.fixed_s >= 0
    assert found.engine.each_s > 0
    assert found.train_fixed_s == 0.0
    assert found.train_token_s == pytest.approx(0.0099, rel=0.05)


def write_run(folder, *, prompts: int, staleness: int = 0, wall: float, steps: int = 8) -> None:
    """A run whose costs are 0.001 s a sampled token and 0.0005 s a trained one."""
    folder.mkdir()
    made = config(pipeline__max_staleness=staleness, pipeline__steps=steps, cluster__cpus=2, rollout__workers=1)
    pipeline = made.pipeline.model_copy(update={"prompts_per_step": prompts})
    (folder / "config.yaml").write_text(to_yaml(made.model_copy(update={"pipeline": pipeline})))
    tokens = prompts * 2 * 10.0
    rows = [
        {
            "step": step,
            "perf/elapsed_s": 100.0 + wall * step,
            "perf/completions": prompts * 2.0,
            "perf/generated_tokens": tokens,
            "perf/generate_s": 0.001 * tokens,
            "perf/score_s": 0.0,
            "perf/tokens_trained": tokens,
            "perf/train_s": 0.0005 * tokens,
            "perf/sync_s": 0.01,
            "length/completion_max": 10.0,
            "length/prompt_mean": 5.0,
            "reward/zero_variance_share": 0.0,
        }
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample = {"step": 1, "completions": [{"tokens": 10}, {"tokens": 10}]}
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")


def test_runs_predict_a_run_of_another_size(tmp_path):
    for name, prompts in (("a", 100), ("b", 200)):
        write_run(tmp_path / name, prompts=prompts, wall=prompts * (0.02 + 0.01) + 0.01)
    costs = calibrated([read_run(tmp_path / name) for name in "ab"])
    write_run(tmp_path / "c", prompts=400, wall=400 * (0.02 + 0.01) + 0.01)
    found = predict(read_run(tmp_path / "c"), costs)
    assert found.measured_s == pytest.approx(12.01)
    assert found.error == pytest.approx(0.0, abs=0.01)


def test_check_says_which_run_is_off(tmp_path, capsys):
    write_run(tmp_path / "a", prompts=100, wall=3.01)
    write_run(tmp_path / "b", prompts=100, wall=6.02)
    assert main([f"calibrate=[{tmp_path}/a]", f"check=[{tmp_path}/a,{tmp_path}/b]"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("a: measured 3.010 s")
    assert first.endswith("within 15 %")
    assert second.endswith("-50.0 %: beyond 15 %")


def test_evaluations_and_checkpoints_are_no_part_of_a_step(tmp_path):
    write_run(tmp_path / "a", prompts=100, wall=3.01)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    for row in rows[4:]:
        row["perf/elapsed_s"] += 50.0
    rows.insert(4, {"step": 4, "perf/elapsed_s": rows[3]["perf/elapsed_s"] + 30.0, "perf/evaluate_s": 30.0})
    rows.insert(5, {"step": 4, "perf/elapsed_s": rows[3]["perf/elapsed_s"] + 50.0, "perf/checkpoint_s": 20.0})
    (tmp_path / "a" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [wall for _, wall in read_run(tmp_path / "a").steps] == pytest.approx([3.01] * 5)


def test_costs_are_not_fitted_to_runs_that_overlap(tmp_path):
    write_run(tmp_path / "a", prompts=4, staleness=1, wall=1.0)
    with pytest.raises(RunUnusable, match="max_staleness=0"):
        calibrated([read_run(tmp_path / "a")])


def test_a_folder_without_steps_is_refused(tmp_path):
    write_run(tmp_path / "a", prompts=4, wall=1.0, steps=3)
    with pytest.raises(RunUnusable, match="holds 3 steps: at least 4"):
        read_run(tmp_path / "a")


def test_more_devices_do_more_and_being_ahead_helps():
    rows = list(table(SimulationConfig(devices=(2, 4), max_staleness=(0, 1), steps=6)))
    by_place = {(row.devices, row.max_staleness): row for row in rows}
    assert set(by_place) == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert by_place[4, 0].found.completions_per_s > 1.8 * by_place[2, 0].found.completions_per_s
    assert by_place[4, 1].found.completions_per_s > by_place[4, 0].found.completions_per_s
    assert by_place[4, 1].ranks + by_place[4, 1].workers == 4
    assert limit(by_place[4, 0]).startswith("rollout")
    assert limit(by_place[4, 1]).startswith("learner")


def test_a_slow_driver_is_named():
    (row,) = table(SimulationConfig(devices=(4,), max_staleness=(1,), steps=6, completion_s=0.01))
    assert row.driver_s == pytest.approx(64 * 32 * 0.01)
    assert limit(row).startswith("driver")
