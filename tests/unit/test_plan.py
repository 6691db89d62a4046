"""The plan's maths, with numbers worked by hand, and its refusals."""

import dataclasses
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

import trainer.plan.__main__
from conf.errors import ConfigError, QuorumError
from conf.load import load
from conf.schema.model import PretrainedModel
from conf.schema.root import TrainConfig
from rollout.shape import PUBLISHED, ModelShape, ShapeUnknown, from_config, shape_of, to_config
from trainer.plan.advice import advice, applied, build_or_advise
from trainer.plan.build import build, rollout_of
from trainer.plan.estimate import (
    GIB,
    Device,
    Learner,
    Rollout,
    Work,
    activation_bytes,
    forwarded_tokens,
    generate_seconds,
    kv_bytes_per_token,
    learner_memory,
    sequences_that_fit,
    step_cost,
    train_seconds,
)
from trainer.plan.layout import Demand, Machine, PlanImpossible, place
from trainer.plan.machine import assumed
from trainer.plan.scaling import scaled
from trainer.plan.start import check_plan
from trainer.plan.text import cost, places, table

SHAPE = ModelShape(
    hidden=8, intermediate=16, layers=2, heads=2, kv_heads=1, head_dim=4, vocabulary=100, tied=True, biases=True
)
LEARNER = Learner(
    ranks=1,
    zero_stage=0,
    weight_bytes=2,
    gradient_checkpointing=False,
    micro_batch_tokens=10,
    logit_tokens=4,
    shared_prefix=False,
    adapter_rank=0,
    reference=False,
)
ROLLOUT = Rollout(workers=1, tensor_parallel=1, weight_bytes=2, max_len=100, max_seqs=8)
WORK = Work(prompts=2, group=4, prompt_tokens=10, completion_tokens=5, overlapped=False)
DEVICE = Device(train_flops=1e6, prefill_flops=1e6, decode_bytes=1e5, link_bytes=1e4, dollars_hour=3.6)


def learner(**changes: object) -> Learner:
    return dataclasses.replace(LEARNER, **changes)  # type: ignore[arg-type]


def test_parameters_are_counted_matrix_by_matrix():
    # Layer: q 8*8+8, k and v 8*4+4 each, o 8*8, three 8*16, two norms of 8 = 72 + 72 + 64 + 384 + 16 = 608.
    assert SHAPE.parameters == 100 * 8 + 2 * 608 + 8 == 2024
    assert dataclasses.replace(SHAPE, tied=False).parameters == 2824
    assert PUBLISHED["Qwen/Qwen2.5-Coder-3B-Instruct"].parameters == 3_085_938_688
    assert PUBLISHED["Qwen/Qwen2.5-Coder-7B-Instruct"].parameters == 7_615_616_512


def test_memory_by_zero_stage_follows_the_paper():
    def split(stage: int, ranks: int) -> tuple[float, float, float]:
        found = learner_memory(SHAPE, learner(zero_stage=stage, ranks=ranks))
        return found.weights / 2024, found.gradients / 2024, found.optimizer / 2024

    assert split(0, 1) == (4, 4, 8)
    assert split(1, 4) == (2, 2, 3)
    assert split(2, 4) == (2, 0.5, 3)
    assert split(3, 4) == (0.5, 0.5, 3)


def test_adapters_alone_have_gradients_and_moments():
    # Rank 2: a layer has 2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16) = 128 inputs and outputs.
    assert SHAPE.adapter_parameters(2) == 2 * 2 * 128
    found = learner_memory(SHAPE, learner(adapter_rank=2))
    assert (found.weights, found.gradients, found.optimizer) == (4 * (2024 + 512), 4 * 512, 8 * 512)
    assert train_seconds(SHAPE, learner(adapter_rank=2), WORK, DEVICE) == pytest.approx(4 * 2024 * 120 / 1e6)


def test_activations_and_logits_by_hand():
    # A layer: 6*8 + (2*8 + 2*4) + 4*16 = 136 numbers a token; 10 tokens, 2 layers, 2 bytes.
    assert activation_bytes(SHAPE, LEARNER) == 10 * 2 * 136 * 2
    assert activation_bytes(SHAPE, learner(gradient_checkpointing=True)) == 10 * (2 * 8 + 136) * 2
    # 3 copies of 4 tokens x 100 words, and 100 x 8 gradients, float32.
    assert learner_memory(SHAPE, LEARNER).logits == 4 * 100 * (3 * 4 + 8)


def test_keys_and_values_bound_the_sequences_of_an_engine():
    assert kv_bytes_per_token(SHAPE, 2) == 2 * 2 * 1 * 4 * 2 == 32
    # Weights take 4,048 bytes, a sequence 3,200.
    assert sequences_that_fit(SHAPE, ROLLOUT, 4048 + 3 * 3200 + 3199) == 3
    assert sequences_that_fit(SHAPE, ROLLOUT, 4000) == 0
    assert sequences_that_fit(SHAPE, ROLLOUT, 1e9) == 8


def test_tokens_and_seconds_of_training():
    assert forwarded_tokens(LEARNER, WORK) == 2 * 4 * 15
    assert forwarded_tokens(learner(shared_prefix=True), WORK) == 2 * (10 + 20)
    assert train_seconds(SHAPE, LEARNER, WORK, DEVICE) == pytest.approx(6 * 2024 * 120 / 1e6)
    # Two ranks: half the FLOPs each; 2 x 2 bytes x parameters x 1/2 over the link; recomputing adds 2 of 6.
    two = learner(ranks=2, gradient_checkpointing=True)
    assert train_seconds(SHAPE, two, WORK, DEVICE) == pytest.approx(8 * 2024 * 60 / 1e6 + 2 * 2024 / 1e4)


def test_seconds_of_generation_follow_the_slower_of_reading_and_computing():
    # 8 sequences in two rounds of 4: 5 steps each of (4,048 + 4 * 12.5 * 32) bytes; prefill 2 * 2024 * 20 FLOPs.
    expected = 2 * 2024 * 20 / 1e6 + 2 * 5 * (4048 + 1600) / 1e5
    assert generate_seconds(SHAPE, ROLLOUT, WORK, DEVICE, fits=4) == pytest.approx(expected)
    slow = dataclasses.replace(DEVICE, prefill_flops=1e4)
    expected = 2 * 2024 * 20 / 1e4 + 2 * 5 * 2 * 2024 * 4 / 1e4
    assert generate_seconds(SHAPE, ROLLOUT, WORK, slow, fits=4) == pytest.approx(expected)


def test_a_step_adds_its_stages_or_overlaps_them_and_is_paid_for_all_devices():
    plain = step_cost(SHAPE, LEARNER, ROLLOUT, WORK, DEVICE, fits=4, devices=2)
    assert plain.sync_s == pytest.approx(4048 / 1e4)
    assert plain.step_s == pytest.approx(plain.generate_s + plain.train_s + plain.sync_s)
    assert plain.dollars == pytest.approx(plain.step_s * 2 * 0.001)
    ahead = step_cost(SHAPE, LEARNER, ROLLOUT, dataclasses.replace(WORK, overlapped=True), DEVICE, fits=4, devices=2)
    assert ahead.step_s == pytest.approx(max(plain.generate_s, plain.train_s) + plain.sync_s)


def config(*overrides: str) -> TrainConfig:
    return load(TrainConfig, "train", ["experiment=finer_3b_spider", "data.root=x", *overrides])


def test_two_that_share_a_device_too_small_are_refused_with_the_sum():
    settings = config("plan.gpu_memory_gib=80")
    with pytest.raises(PlanImpossible, match=r"on a shared device learner \d+\.\d \+ rollout 40\.0 = \d+\.\d GiB"):
        build(settings, shape_of(settings.model), assumed(settings))
    larger = config("plan.gpu_memory_gib=140", "rollout.engine.gpu_memory_utilization=0.4")
    plan = build(larger, shape_of(larger.model), assumed(larger))
    assert {one.devices for one in plan.places if one.devices} == {(0,)}
    # Rank 0 keeps a bfloat16 copy that the engines read.
    assert dict(plan.places[0].demand.gpu_parts)["weights to send"] == 2 * shape_of(larger.model).parameters
    assert "together" in cost(larger, plan)


def test_a_rank_that_no_device_holds_is_refused_part_by_part():
    settings = config("cluster=split", "plan.gpu_memory_gib=24")
    with pytest.raises(
        PlanImpossible, match=r"weights 5\.7 \+ gradients 5\.7 \+ optimizer 34\.5 .* a device has 24\.0"
    ):
        build(settings, shape_of(settings.model), assumed(settings))


def test_too_few_devices_are_refused_and_more_nodes_take_them():
    more = ("cluster=split", "rollout.workers=10")
    settings = config(*more)
    with pytest.raises(PlanImpossible, match="ask for 11 devices of 8"):
        build(settings, shape_of(settings.model), assumed(settings))
    settings = config(*more, "cluster=nodes")
    plan = build(settings, shape_of(settings.model), assumed(settings))
    assert plan.nodes == 2
    assert len({(one.node, one.devices) for one in plan.places if one.devices}) == 11
    assert "rollout worker 9" in places(plan)


@pytest.mark.parametrize(
    ("asked", "said", "advice"),
    [
        (["rollout.workers=10"], "lower rollout.workers until they ask for 8, or raise", ["rollout.workers=7"]),
        (["rollout.workers=10"], "or raise cluster.nodes or cluster.gpus_per_node", ["cluster.nodes=2"]),
        (
            ["learner.ranks=8", "pipeline.prompts_per_step=8"],
            "lower learner.ranks until they ask for 8",
            ["learner.ranks=7", "pipeline.prompts_per_step=7"],
        ),
        (["cluster.gpus_per_node=1"], "choose cluster=single_gpu, or raise", ["cluster.gpus_per_node=2"]),
        (
            ["rollout.engine.tensor_parallel_size=16"],
            "lower rollout.engine.tensor_parallel_size to 8 at most",
            ["rollout.engine.tensor_parallel_size=8", "cluster.nodes=2"],
        ),
        (
            ["rollout.engine.tensor_parallel_size=8"],
            "lower rollout.engine.tensor_parallel_size until they ask for 8",
            ["rollout.engine.tensor_parallel_size=4"],
        ),
        (
            ["rollout.engine.tensor_parallel_size=3"],
            "does not divide the model's 16 attention heads: set it to 2",
            ["rollout.engine.tensor_parallel_size=2"],
        ),
        (["cluster.learner_gpus=9"], "lower cluster.learner_gpus to 8 at most", ["cluster.learner_gpus=2"]),
    ],
)
def test_a_want_of_devices_names_the_settings_that_ask_for_them(asked, said, advice):
    """Applied, the advice leads to a plan."""
    settings = config("cluster=split", *asked)
    with pytest.raises(PlanImpossible, match=said):
        build(settings, shape_of(settings.model), assumed(settings))
    settings = config("cluster=split", *asked, *advice)
    build(settings, shape_of(settings.model), assumed(settings))


def test_an_engine_whose_share_holds_not_one_sequence_is_refused():
    settings = config("cluster=split", "rollout.engine.gpu_memory_utilization=0.05", "plan.gpu_memory_gib=80")
    # 80 x 0.05 - 1.5 GiB; a sequence is 3,548 tokens x 36 layers x 2 x 2 heads x 128 x 2 bytes.
    assert rollout_of(settings).max_len == 3548
    with pytest.raises(PlanImpossible, match=r"holds 2\.5 GiB .* weights 5\.7 \+ one sequence of 3548 tokens 0\.12"):
        build(settings, shape_of(settings.model), assumed(settings))


EXPERIMENTS = ("finer_0_5b_bird", "finer_3b_bird", "finer_3b_spider")


@cache
def experiment(name: str, *overrides: str) -> TrainConfig:
    return load(TrainConfig, "train", [f"experiment={name}", "data.root=x", *overrides])


def on_devices_of(settings: TrainConfig, gib: int) -> TrainConfig:
    return applied(settings, {"plan.gpu_memory_gib": gib})


def advised(settings: TrainConfig) -> list[str] | None:
    """The settings that a refusal names; None: nothing is refused. Raises AssertionError for a refusal without."""
    said = refusal(settings)
    if said is None:
        return None
    named = re.search(r"it fits with ((?:[\w.]+=\S+ ?)+); as it is, it needs a device of (\d+) GiB$", said)
    assert named, said
    larger = on_devices_of(settings, int(named[2]))
    build(larger, shape_of(larger.model), assumed(larger))
    return named[1].split()


def build_with(settings: TrainConfig, change: dict[str, object]) -> None:
    changed = applied(settings, change)
    build(changed, shape_of(changed.model), assumed(changed))


def refusal(settings: TrainConfig) -> str | None:
    try:
        build_or_advise(settings, shape_of(settings.model), assumed)
    except PlanImpossible as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_fits_the_device_that_it_names(name: str) -> None:
    assert advised(experiment(name)) is None
    assert advised(on_devices_of(experiment(name, "cluster=split"), 80)) is None


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("cluster", ["single_gpu", "split"])
@pytest.mark.parametrize("gib", [24, 40, 80, 141])
def test_what_a_refusal_advises_fits_and_each_of_it_is_needed(name: str, cluster: str, gib: int) -> None:
    settings = on_devices_of(experiment(name, f"cluster={cluster}"), gib)
    if advised(settings) is None:
        return
    values = advice(settings, shape_of(settings.model), assumed)
    assert advised(applied(settings, values)) is None
    for left_out in set(values) - {"learner.zero_stage", "pipeline.prompts_per_step"}:
        rest = {setting: value for setting, value in values.items() if setting != left_out}
        with pytest.raises((PlanImpossible, ValidationError)):
            build_with(settings, rest)


@pytest.mark.parametrize("gib", [40, 80])
def test_what_a_refusal_advises_is_accepted_on_the_command_line(gib: int) -> None:
    found = advised(on_devices_of(experiment("finer_3b_bird"), gib))
    assert found is not None
    assert advised(experiment("finer_3b_bird", f"plan.gpu_memory_gib={gib}", *found)) is None


def test_advice_costs_speed_before_devices_and_devices_before_what_is_learned() -> None:
    settings = experiment("finer_3b_bird")
    assert advised(on_devices_of(settings, 80)) == [
        "learner.micro_batch_tokens=8192",
        "rollout.engine.gpu_memory_utilization=0.2",
    ]
    many = advised(on_devices_of(settings, 40))
    assert many is not None
    assert many[0] == "cluster=split"
    few = advised(applied(settings, {"cluster.colocate": False, "cluster.gpus_per_node": 2, "plan.gpu_memory_gib": 40}))
    assert few is not None
    assert "learner.lora.rank=32" in few


def test_a_machine_that_no_setting_fits_is_said_so() -> None:
    settings = load(TrainConfig, "train", ["experiment=quickstart", "plan.process_gib=1e6"])
    with pytest.raises(PlanImpossible, match="none of the changes that were tried fits this machine$"):
        build_or_advise(settings, shape_of(settings.model), assumed)
    small = Machine(nodes=1, gpus_per_node=0, gpu_bytes=0.0, host_bytes=9.5 * GIB, source="s")
    cache = load(TrainConfig, "train", ["experiment=quickstart", "rollout.engine.kv_cache_gib=4"])
    with pytest.raises(PlanImpossible, match=r"it fits with rollout\.engine\.kv_cache_gib=(\S+)$") as told:
        build_or_advise(cache, shape_of(cache.model), lambda _: small)
    fitting = load(TrainConfig, "train", ["experiment=quickstart", str(told.value).split()[-1]])
    build(fitting, shape_of(fitting.model), small)


def test_host_memory_counts_too():
    demand = Demand(name="a", gpus=0.0, gpu_parts=(), host_parts=(("p", 3 * GIB),), remedy="r")
    machine = Machine(nodes=1, gpus_per_node=0, gpu_bytes=0.0, host_bytes=4.0 * GIB, source="s")
    assert place([demand], machine)[0].node == 0
    with pytest.raises(PlanImpossible, match=r"6\.0 GiB of 4\.0 GiB host memory"):
        place([demand, demand], machine)


def test_the_table_grows_to_1024_devices_and_keeps_ranks_and_prompts_consistent():
    settings = config("cluster=split")
    rows = scaled(settings, shape_of(settings.model), assumed(settings))
    assert [row.devices for row in rows] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert all(row.prompts % row.ranks == 0 for row in rows)
    assert all(row.ranks + row.workers == max(row.devices, 2) for row in rows)
    assert rows[-1].groups_per_s > 100 * rows[1].groups_per_s
    assert table(rows).count("\n") == 12


def test_shapes_come_from_settings_folders_and_published_names(tmp_path):
    assert shape_of(load(TrainConfig, "train", ["experiment=quickstart"]).model).layers == 4
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen2", "hidden_size": 8, "intermediate_size": 16, '
        '"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 100, '
        '"tie_word_embeddings": true}'
    )
    assert shape_of(PretrainedModel(path=str(tmp_path))) == SHAPE
    with pytest.raises(ShapeUnknown, match="no folder here"):
        shape_of(PretrainedModel(path="some/model"))
    with pytest.raises(KeyError):
        from_config({"model_type": "other"})


def test_an_efficiency_above_one_is_refused():
    with pytest.raises(ConfigError, match=r"plan\.train_efficiency"):
        config("plan.train_efficiency=1.5")


def test_a_run_shows_its_plan_and_is_refused_when_no_machine_holds_it(tmp_path):
    small = load(TrainConfig, "train", ["experiment=quickstart"])
    notes: list[str] = []
    check_plan(small, None, notes.append)
    assert notes[0].startswith("plan: 1 x learner rank, ")
    assert any(note.startswith("plan: 2 x reward actor") for note in notes)
    huge = load(TrainConfig, "train", ["experiment=quickstart", "plan.process_gib=1e6"])
    with pytest.raises(PlanImpossible, match=r"process 1000000\.0 .* of host memory, and the machine has"):
        check_plan(huge, None, notes.append)
    notes.clear()
    check_plan(
        load(TrainConfig, "train", ["experiment=quickstart", "plan.process_gib=1e6", "plan.refuse=false"]),
        None,
        notes.append,
    )
    assert "1000000.0" in notes[0]
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    notes.clear()
    check_plan(small, tmp_path, notes.append)
    assert notes[0].startswith("no plan: the shape of the model is not known")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_survives_its_configuration(name: str) -> None:
    shape = dataclasses.replace(PUBLISHED[name], head_dim=2 * PUBLISHED[name].head_dim)
    assert from_config({"model_type": "qwen2", **to_config(shape)}) == shape


def test_a_plan_of_a_model_folder_ends_with_the_check_of_the_model(tmp_path, monkeypatch, capsys):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"vocab_size": 100}))

    def refuse(config: TrainConfig, policy: Path) -> None:
        raise QuorumError(f"no good: {policy}")

    monkeypatch.setattr(trainer.plan.__main__, "check_policy", refuse)
    given = ["experiment=quickstart", "model=pretrained", f"model.path={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["plan", *given])
    assert trainer.plan.__main__.main() == 1
    out, err = capsys.readouterr()
    assert "learner rank 0" in out
    assert f"no good: {tmp_path}" in err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("cluster=split", "rollout.workers=9"), "rollout.workers"),
        (("cluster=split", "rollout.workers=1", "cluster.gpus_per_node=1"), "cluster"),
        (("cluster=split", "learner.ranks=9", "pipeline.prompts_per_step=9"), "learner.ranks"),
        (("cluster=split", "rollout.engine.tensor_parallel_size=3"), "rollout.engine.tensor_parallel_size"),
        (("cluster=split", "reward.server.actors=300"), "reward.server.actors"),
        (("reward.server.actors=300",), "reward.server.actors"),
    ],
)
def test_too_few_devices_and_too_little_host_memory_are_mended_by_their_own_settings(
    change: tuple[str, ...], named: str
) -> None:
    settings = experiment("finer_3b_bird", "plan.gpu_memory_gib=80", *change)
    said = refusal(settings)
    assert said is not None
    values = advice(settings, shape_of(settings.model), assumed)
    assert named in values
    build_with(settings, values)
    assert said.count("set it to") == 0 or f"set it to {values[named]};" in said


def test_host_memory_that_a_rank_lacks_is_not_blamed_on_its_device() -> None:
    said = refusal(experiment("finer_3b_bird", "plan.node_memory_gib=2"))
    assert said is not None
    assert "take a machine with more host memory; none of the changes that were tried fits" in said
    assert "micro_batch" not in said
