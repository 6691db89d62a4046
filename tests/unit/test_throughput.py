"""The comparison's figures from records with known numbers, its settings, its data and its plot."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conf.errors import ConfigError
from conf.load import load
from conf.schema.data import DemoData
from conf.schema.prompt import PromptConfig
from conf.schema.root import TrainConfig
from conf.schema.throughput import ThroughputConfig
from measure.processes import RunFailed
from measure.throughput.arithmetic import GroupLengths
from measure.throughput.blocks import Block, check_same_data
from measure.throughput.comparison import compare, table
from measure.throughput.curves import Curve, draw
from measure.throughput.device import settings_of, summary
from measure.throughput.jobs import VARIANTS, Job, base_settings, make_job, sized_settings, two_cores
from measure.throughput.peer_options import grpo_options
from measure.throughput.steps import Step, figures, our_steps, our_tasks, peer_steps, recorded_lengths
from measure.throughput.tasks import write_long_tasks
from rollout.prompt import PromptRenderer
from rollout.shape import ModelShape
from rollout.tasks.jsonl import read_split

SHAPE = {
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
    "tie_word_embeddings": True,
    "model_type": "qwen2",
}


def our_row(step: int, elapsed: float, **more: float) -> dict[str, float]:
    return {
        "step": step,
        "perf/elapsed_s": elapsed,
        "perf/completions": 8.0,
        "perf/generated_tokens": 80.0,
        "perf/tokens_trained": 60.0,
        "perf/tokens_forwarded": 100.0,
        "perf/generate_s": 0.5,
        "perf/score_s": 0.1,
        "perf/train_s": 0.3,
        "perf/sync_s": 0.05,
        "perf/rss_gib": 2.0,
        "reward/total/mean": float(step),
        **more,
    }


def write_lines(file: Path, rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_our_run(folder: Path) -> None:
    """Steps of 1, 2 and 3 s after a first one; a checkpoint's row repeats the last step."""
    rows = [our_row(n + 1, elapsed) for n, elapsed in enumerate((10.0, 11.0, 13.0, 16.0))]
    write_lines(folder / "metrics.jsonl", [*rows, {"step": 4, "perf/elapsed_s": 17.0, "perf/checkpoint_s": 1.0}])
    write_lines(
        folder / "ledger.jsonl",
        [{"step": n, "trained": [["g", f"t{n}", 0]], "dropped": [["h", f"d{n}", "equal"]]} for n in range(1, 5)],
    )
    completions = [{"text": text, "tokens": tokens} for text, tokens in (("a", 2), ("b", 3), ("a", 2))]
    sample = {"prompt_tokens": 3, "completions": completions}
    write_lines(folder / "samples.jsonl", [sample | {"step": 1}, sample | {"step": 4}])


def peer_row(step: int, end: float) -> dict:
    return {
        "step": step,
        "end": end,
        "completions": 8,
        "generated_tokens": 80,
        "tokens_trained": 80,
        "tokens_forwarded": 400,
        "seconds": {"generate": 3.0, "score": 0.5},
        "reward": 0.5,
        "tasks": [f"t{step}", f"d{step}"],
    }


def test_wall_time_is_taken_from_row_to_row(tmp_path):
    write_our_run(tmp_path)
    assert [step.wall_s for step in our_steps(tmp_path)] == [None, 1.0, 2.0, 3.0]
    assert our_tasks(tmp_path)[1] == {"t2", "d2"}
    assert recorded_lengths(tmp_path, step=4) == [GroupLengths(prompt=3, completions=(2, 3, 2), distinct=(2, 3))]


def test_the_peers_training_is_what_generation_and_scoring_leave(tmp_path):
    write_lines(tmp_path / "trl.jsonl", [peer_row(1, 5.0), peer_row(2, 11.0)])
    first, second = peer_steps(tmp_path / "trl.jsonl")
    assert first.wall_s is None
    assert second.wall_s == 6.0
    assert second.seconds == {"generate": 3.0, "score": 0.5, "train": 2.5, "sync": 0.0}


def test_figures_are_medians_over_blocks(tmp_path):
    write_our_run(tmp_path)
    steps = our_steps(tmp_path)[1:]
    found = figures([steps[:2], steps[2:]])
    assert found.step_s == 2.0
    assert found.completions_per_s == 4.0
    assert found.by_round == (pytest.approx(8 / 1.5), pytest.approx(8 / 3))
    assert found.trained_over_forwarded == pytest.approx(0.6)
    assert found.seconds_by_stage["other"] == pytest.approx(2.0 - 0.95)


def test_a_comparison_of_recorded_blocks(tmp_path, monkeypatch):
    """Whole, but for the processes: their records lie there already."""
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text(json.dumps(SHAPE))
    job = Job(name="short", policy=policy, settings=(), micro_batch=4, variants=("synchronous",))
    write_our_run(tmp_path / "short-synchronous-0")
    write_lines(tmp_path / "short-trl-0.jsonl", [peer_row(1, 5.0), peer_row(2, 11.0), peer_row(3, 19.0)])

    def ended(*arguments, **named) -> int:
        return 0

    monkeypatch.setattr("measure.throughput.blocks.run_process", ended)
    monkeypatch.setattr("measure.throughput.comparison.measured_peak", lambda config: 1e4)
    config = load(ThroughputConfig, "throughput", ["against=trl", "steps=2", "warmup_steps=1", "rounds=1"])
    found = compare(job, config, tmp_path)
    # ours: 1 and 2 s, TRL: 6 and 8 s
    assert found["ours_completions_per_s"] == pytest.approx(8 / 1.5)
    assert found["trl_completions_per_s"] == pytest.approx(8 / 7)
    assert found["ratio"] == pytest.approx(7 / 1.5)
    assert found["seconds_by_stage"]["trl"]["train"] == pytest.approx(3.5)
    # inputs 3 + 1 + 2, keys 6 + 4 + 9, logits 1 + 1 + 2: see test_throughput_arithmetic; the copy is sampled as well
    once = 2 * 2 * 120 * 6 + 4 * 2 * 2 * 2 * 19 + 2 * 40 * 4
    sampled = 2 * 2 * 120 * 7 + 4 * 2 * 2 * 2 * 23 + 2 * 40 * 5
    floor = (sampled + 3 * once) / 1e4
    assert found["floor"]["floor_s"] == pytest.approx(floor)
    assert found["floor"]["ours_over_floor"] == pytest.approx(1.5 / floor)
    assert "synchronous" in table(found)


def test_random_weights_tell_what_the_device_makes_of_every_variant(tmp_path, monkeypatch):
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text(json.dumps(SHAPE))
    variants = ("synchronous", "one_step_ahead")
    job = Job(name="device", policy=policy, settings=(), micro_batch=4, variants=variants)
    for variant in variants:
        write_our_run(tmp_path / f"device-{variant}-0")
    write_lines(tmp_path / "device-trl-0.jsonl", [peer_row(1, 5.0), peer_row(2, 11.0), peer_row(3, 19.0)])
    monkeypatch.setattr("measure.throughput.blocks.run_process", lambda *arguments, **named: 0)
    monkeypatch.setattr("measure.throughput.comparison.measured_peak", lambda config: 1e4)
    settings = ["against=trl", "weights=random", "steps=2", "warmup_steps=1", "rounds=1"]
    found = compare(job, load(ThroughputConfig, "throughput", settings), tmp_path)["variants"]
    assert found.keys() == set(variants)
    # generation and scores 0.6 of 1.5 s
    assert all(one["device"]["trainer_wait_share"] == pytest.approx(0.4) for one in found.values())


def test_blocks_of_different_tasks_are_no_comparison():
    ours, theirs = Block(steps=[], tasks=[{"a"}, {"b"}]), Block(steps=[], tasks=[{"a"}, {"c"}])
    check_same_data(ours, ours)
    with pytest.raises(RunFailed, match="step 2"):
        check_same_data(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("job", ["short", "long", "device"])
def test_every_variant_is_a_valid_configuration(job, variant):
    config = load(TrainConfig, "train", ["experiment=quickstart", *two_cores(job, variant), *VARIANTS[variant]])
    assert (config.learner.ranks, config.learner.threads) == (2, 1)
    assert config.rollout.workers == (1 if job != "short" and config.pipeline.max_staleness else 2)
    assert config.algo.drop_zero_variance == variant.startswith("dropping")
    assert config.pipeline.max_staleness == variant.endswith("one_step_ahead")


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="give against=trl, or weights=random"):
        load(ThroughputConfig, "throughput", [])
    with pytest.raises(ConfigError, match="trl.generation=vllm needs device=gpu"):
        load(ThroughputConfig, "throughput", ["against=trl", "trl.generation=vllm"])


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_device_is_measured_with_a_valid_configuration(tmp_path, device):
    given = [f"device={device}", "model=qwen2_5_coder_3b", "weights=random", "measure.completion_tokens=200"]
    config = load(ThroughputConfig, "throughput", given)
    names = settings_of(config, policy=tmp_path, tasks=tmp_path / "tasks.jsonl", lengths=tmp_path / "lengths.txt")
    train = load(TrainConfig, "train", [*names, *VARIANTS["synchronous"]])
    assert train.cluster.accelerator == device
    assert (train.rollout.engine.dtype, train.learner.dtype) == (
        ("bfloat16", "bfloat16") if device == "gpu" else ("float32", "float32")
    )
    assert train.learner.packing == "shared_prefix"
    assert train.rollout.lengths == str(tmp_path / "lengths.txt")


PEER = {"micro_batch": 16, "steps": 3, "output": "trl.jsonl", "generation": "transformers"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_both_trainers_of_a_comparison_run_on_the_device_that_was_asked_for(tmp_path, device):
    given = ["against=trl", f"device={device}", "model=qwen2_5_coder_3b", "weights=random", "measure.group_size=8"]
    config = load(ThroughputConfig, "throughput", given)
    sized = sized_settings(config, policy=tmp_path, tasks=tmp_path / "tasks.jsonl", max_tokens=300)
    for settings in (base_settings(config, tmp_path), sized):
        train = load(TrainConfig, "train", [*settings, *VARIANTS["synchronous"]])
        assert train.cluster.accelerator == device
        options = grpo_options(train, PEER)
        assert options["use_cpu"] == (device == "cpu")
        assert options["bf16"] == (device == "gpu") == (train.learner.dtype == "bfloat16")
    assert (options["num_generations"], options["max_completion_length"]) == (8, 300)
    assert options["gradient_accumulation_steps"] == 16 * 8 // 16


def test_more_settings_hold_for_both_trainers(tmp_path, monkeypatch):
    monkeypatch.setattr("measure.throughput.jobs.warmed_up", lambda config, folder: tmp_path)
    config = load(ThroughputConfig, "throughput", ["against=trl", "settings=['rollout.group_size=4']"])
    job = make_job("short", config, tmp_path)
    # Both blocks are started with job.settings and nothing else of the configuration's.
    assert grpo_options(load(TrainConfig, "train", list(job.settings)), PEER)["num_generations"] == 4


class WordTokenizer:
    chat_template = "words"

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt, enable_thinking):
        return " ".join(message["content"] for message in conversation)

    def encode(self, text, *, add_special_tokens):
        return list(range(len(text.split())))


def test_long_prompts_have_the_length_that_was_asked_for(tmp_path):
    data = DemoData(root=str(tmp_path / "demo"), warmup_size=4, train_size=4, heldout_size=2)
    prompt = PromptConfig(schema_format="compact", template="bare", example_values=0, thinking=False, max_tokens=300)
    write_long_tasks(tmp_path / "long.jsonl", WordTokenizer(), prompt, data, tokens=300, count=3)
    config = load(TrainConfig, "train", ["data=jsonl", f"data.train={tmp_path}/long.jsonl"]).data
    loaded, _ = read_split(config, tmp_path / "long.jsonl", "train", None)
    rendered = [PromptRenderer(prompt, WordTokenizer()).render(task) for task in loaded.tasks]
    assert [len(one.token_ids) for one in rendered] == [300, 300, 300]
    assert all(one.dropped_columns == 0 for one in rendered)


def test_what_a_device_makes_of_a_step():
    shape = ModelShape(
        hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, head_dim=2, vocabulary=10, tied=True, biases=True
    )
    row = {"perf/rss_gib": 2.0, "perf/gpu_memory_gib": None, "perf/sync_transfer_s": 0.04}
    step = Step(
        wall_s=2.0,
        completions=8.0,
        generated_tokens=80.0,
        tokens_trained=60.0,
        tokens_forwarded=100.0,
        seconds={"generate": 0.5, "score": 0.1, "train": 0.4, "sync": 0.05},
        reward=0.0,
        row=row,
    )
    found = summary([step, step], shape, peak=6 * 316 * 1000.0)
    assert found["mfu_train"] == pytest.approx(100 / 0.4 / 1000)
    assert found["mfu_wall"] == pytest.approx(100 / 2.0 / 1000)
    assert found["generated_tokens_per_s"] == pytest.approx(160)
    assert found["trainer_wait_share"] == pytest.approx(0.3)
    assert found["gpu_memory_gib"] is None


def test_the_plot_shows_every_curve():
    curves = [
        Curve(label=label, x=(8.0, 16.0), mean=(0.5, level), low=(0.4, 0.5), high=(0.6, 0.9))
        for label, level in (("ours & theirs", 0.8), ("TRL", 0.7))
    ]
    svg = ElementTree.fromstring(draw(curves, x="samples", y="reward"))
    lines = svg.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
    ends = [line.attrib["points"].split()[-1].split(",") for line in lines]
    assert ends[0][0] == ends[1][0]
    assert float(ends[0][1]) < float(ends[1][1])
    assert "ours & theirs" in [text.text for text in svg.findall(".//{http://www.w3.org/2000/svg}text")]
