"""`python -m operate.replay` on a kept batch: real DeepSpeed, a tiny policy, one infinite advantage."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import Qwen2ForCausalLM

from conf.load import load, to_yaml
from conf.schema.root import TrainConfig
from tests.tiny_qwen2 import tiny_qwen2
from trainer.carriers import SkippedUpdates, TrainingSequence
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
    policy = tiny()
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
        [sys.executable, "-m", "operate.replay", str(file)], capture_output=True, text=True, timeout=300
    )


def test_the_completion_that_makes_the_gradient_infinite_is_named(run):
    answer = replay(run / SKIPPED / "step-000001" / BATCH)
    assert answer.returncode == 3, answer.stderr[-3000:]
    lines = [line for line in answer.stdout.splitlines() if "not finite" in line or "completion " in line]
    assert lines[0] == "group 1, task wild: not finite"
    assert lines[1].startswith("  completion 1: ")
    assert "advantage inf" in lines[1]
    assert lines[1].endswith("cause: its advantage is inf")
    assert len(lines) == 2


def test_a_finite_batch_is_told_as_such(run):
    answer = replay(run / SKIPPED / "step-000002" / BATCH)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "step 2: 3 completions, gradient norm" in answer.stdout


def kept(folder: Path, policy: Qwen2ForCausalLM, batch: SkippedBatch, *settings: str) -> Path:
    """A run of one skipped step; the file of its batch."""
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(load(TrainConfig, "train", ["experiment=quickstart", *settings])))
    file = folder / SKIPPED / "step-000001" / BATCH
    policy.save_pretrained(file.parent / "policy")
    write_batch(file, batch)
    return file


def tiny() -> Qwen2ForCausalLM:
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    return tiny_qwen2(initializer_range=0.02, **shape)


def infinite_kl(folder: Path) -> Path:
    """The policy has come to be sure of one token; its reference thinks e^100 times more of the others."""
    reference, policy = tiny(), tiny()
    reference.save_pretrained(folder / "reference")
    with torch.no_grad():
        policy.model.norm.weight.mul_(1e5)
        logps = policy(torch.tensor([[5, 6, 7]])).logits[0, 2].log_softmax(-1)
    unlikely, likely = int(logps.argmin()), int(logps.argmax())
    assert logps[unlikely] < -100
    row = sequence(0, 1.0)
    good, bad = (replace(row, completion_ids=(token,), logprobs=(-4.0,)) for token in (likely, unlikely))
    batch = SkippedBatch(
        step=1,
        sequences=(good, replace(good, group_index=1), replace(bad, group_index=1)),
        task_ids=("calm", "wild"),
        skipped=SkippedUpdates(updates=(0,), groups=frozenset({0, 1})),
        reference=str(folder / "reference"),
    )
    return kept(folder / "run", policy, batch, "algo=finer")


def infinite_ratio(folder: Path, old: Literal["learner", "engine"]) -> Path:
    """Of the second update; compared with itself, neither of its completions would be extreme."""
    rows = [sequence(0, 1.0), sequence(0, -1.0), sequence(1, 1.0), sequence(1, -1.0)]
    far = (-150.0, -4.0)
    if old == "engine":
        rows[3] = replace(rows[3], logprobs=far)
        skipped = None
    else:
        kept_old = ((), (), (-4.0, -4.0), far)
        skipped = SkippedUpdates(updates=(1,), groups=frozenset({1}), old_logprobs=kept_old)
    batch = SkippedBatch(step=1, sequences=tuple(rows), task_ids=("calm", "wild"), skipped=skipped)
    return kept(folder / "run", tiny(), batch, "algo.updates_per_step=2", f"algo.old_logprobs={old}")


def test_what_one_update_alone_and_without_its_reference_would_not_show_is_named(tmp_path):
    for name in ("kl", "learner", "engine"):
        (tmp_path / name).mkdir()
    files = [infinite_kl(tmp_path / "kl"), *(infinite_ratio(tmp_path / old, old) for old in ("learner", "engine"))]
    # In one process: starting one takes longer than a replay.
    script = "import sys; from operate.replay import main; print([main([file]) for file in sys.argv[1:]])"
    answer = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, timeout=300)
    assert answer.stdout.splitlines()[-1:] == ["[3, 3, 3]"], answer.stderr[-3000:]
    _, kl, *ratios = answer.stdout.split("step 1: ")
    lines = kl.splitlines()[1:]
    assert lines[0] == "group 1, task wild: not finite"
    assert lines[1].startswith("  completion 1: ")
    assert "cause: the reference policy gives token 1 e^" in lines[1]
    assert len(lines) == 2
    for told in ratios:
        lines = told.splitlines()[1:4]
        assert lines[:2] == ["update 2 of 2: not finite", "group 1, task wild: not finite"]
        assert lines[2].startswith("  completion 1: ")
        assert "cause: the ratio of token 1 to the old policy is e^14" in lines[2]
    assert len(ratios) == 2


def test_a_wrong_file_is_one_sentence(tmp_path):
    answer = replay(tmp_path / "nothing.json")
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr
