"""`python -m trainer.replay` on a kept batch: real DeepSpeed, a tiny policy, one infinite advantage."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from conf.load import load, to_yaml
from conf.schema.root import TrainConfig
from tests.tiny_qwen2 import tiny_qwen2
from trainer.carriers import TrainingSequence
from trainer.skipped import BATCH, SKIPPED, SkippedBatch, write_batch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def sequence(group: int, advantage: float) -> TrainingSequence:
    return TrainingSequence(
        group_index=group, prompt_ids=(5, 6, 7), completion_ids=(8, 9), logprobs=(-4.0, -4.0), advantage=advantage
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    (run / "config.yaml").write_text(to_yaml(load(TrainConfig, "train", ["experiment=quickstart"])))
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    policy = tiny_qwen2(initializer_range=0.02, **shape)
    for name in ("step-000001", "step-000002"):
        policy.save_pretrained(run / SKIPPED / name / "policy")
    good = [sequence(0, 1.0), sequence(0, -1.0), sequence(1, 0.5)]
    bad = SkippedBatch(step=1, sequences=(*good, sequence(1, math.inf)), task_ids=("calm", "wild"))
    write_batch(run / SKIPPED / "step-000001" / BATCH, bad)
    write_batch(
        run / SKIPPED / "step-000002" / BATCH, SkippedBatch(step=2, sequences=tuple(good), task_ids=("calm", "wild"))
    )
    return run


def replay(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer.replay", str(file)], capture_output=True, text=True, timeout=300
    )


def test_the_completion_that_makes_the_gradient_infinite_is_named(run):
    answer = replay(run / SKIPPED / "step-000001" / BATCH)
    assert answer.returncode == 3, answer.stderr[-3000:]
    lines = [line for line in answer.stdout.splitlines() if "not finite" in line or "completion " in line]
    assert lines[0] == "group 1, task wild: not finite"
    assert lines[1].startswith("  completion 1: ")
    assert "advantage inf" in lines[1]
    assert len(lines) == 2


def test_a_finite_batch_is_told_as_such(run):
    answer = replay(run / SKIPPED / "step-000002" / BATCH)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "step 2: 3 completions, gradient norm" in answer.stdout


def test_a_wrong_file_is_one_sentence(tmp_path):
    answer = replay(tmp_path / "nothing.json")
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr
