"""What a real engine computes for the completions of one prompt, and that they still are samples of the policy."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from conf.schema.rollout import EngineConfig
from rollout.vllm_backend import environment

pytestmark = pytest.mark.integration


def sampled(policy: Path) -> dict[str, Any]:
    """The rounds of an engine with this policy, whose log-probabilities are those of transformers."""
    module = "tests.integration.shared_prompts_process"
    done = subprocess.run(
        [sys.executable, "-m", module, str(policy)],
        env=os.environ | environment(EngineConfig(), "cpu"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    for found in rounds.values():
        for group in found["groups"]:
            for tokens, logprobs in group["completions"]:
                with torch.no_grad():
                    logits = model(torch.tensor([[*group["prompt"], *tokens]])).logits[0, len(group["prompt"]) - 1 : -1]
                expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
                assert (expected - torch.tensor(logprobs)).abs().max() <= 1e-4
    return rounds


def test_a_prompt_is_read_once_for_its_group(tiny_policy: Path) -> None:
    once, waiting = sampled(tiny_policy).values()
    assert once["together"] > 0
    assert once["computed"] == least(once["groups"])
    # A prompt is read again where its last reader had ended before the next group began.
    assert least(waiting["groups"]) <= waiting["computed"] < 1.2 * least(waiting["groups"])


def test_a_block_that_a_window_has_left_is_not_copied(tiny_policy: Path, tmp_path: Path) -> None:
    policy = shutil.copytree(tiny_policy, tmp_path / "windowed")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=700, num_key_value_heads=2, sliding_window=8, initializer_range=0.2, **sizes)
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(policy)
    sampled(policy)


def least(groups: list[dict]) -> int:
    """Tokens to compute: each prompt once, its last token again for every other completion, and all completions but
    their last tokens."""
    completions = [tokens for group in groups for tokens, _ in group["completions"]]
    prompts = {tuple(group["prompt"]) for group in groups}
    return sum(len(prompt) - 1 for prompt in prompts) + sum(len(tokens) for tokens in completions)


def test_the_benchmark_samples_with_and_without_the_fused_forward_pass(tiny_policy: Path) -> None:
    sizes = {"prompt-tokens": 40, "group-size": 4, "completion-tokens": 8, "batches": 1, "rounds": 1}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    command = [sys.executable, "-m", "measure.engine", str(tiny_policy), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"fused_decoding=(\w+) +(\d+) tokens/s .* ([\d.]+) ms a step", done.stdout)
    assert [fused for fused, _, _ in found] == ["false", "true"]
    assert all(int(rate) > 0 and float(step) > 0 for _, rate, step in found)
