"""`experiment=spider_smoke` on Spider's published questions and databases, made small."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SPIDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "spider"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (SPIDER / "dev.json").is_file(), reason="the public questions are not here"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    command = [
        *(sys.executable, "-m", "trainer", "experiment=spider_smoke", f"data.root={SPIDER}"),
        *(f"run.dir={place}", f"warmup.cache={place}/warmup", "logging.progress=plain"),
        *("data.train_limit=48", "data.heldout_limit=6", "model.layers=2", "warmup.steps=4", "rollout.workers=1"),
        *("rollout.sampling.max_tokens=16", "rollout.group_size=4", "pipeline.prompts_per_step=4", "evaluation.n=2"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    return place / "spider_smoke"


def test_three_steps_leave_finite_metrics(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {0, 1, 2, 3}
    assert all(value is not None and math.isfinite(value) for row in rows for value in row.values())
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"


def test_the_checkpoint_answers_a_real_prompt(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run / "checkpoints" / "step-000003" / "policy"
    sample = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
    ids = AutoTokenizer.from_pretrained(folder)(sample["prompt"], return_tensors="pt")
    assert ids["input_ids"].shape[1] == sample["prompt_tokens"]
    assert AutoModelForCausalLM.from_pretrained(folder)(**ids).logits.isfinite().all()
