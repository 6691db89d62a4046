"""Real DeepSpeed ranks in real processes over gloo: two ranks equal one, every ZeRO stage equals stage 0."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2ForCausalLM

from tests.tiny_qwen2 import tiny_qwen2

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
LEARNER = {"dtype": "float32", "learning_rate": 1e-3, "micro_batch_tokens": 60, "warmup_steps": 2, "max_grad_norm": 0.5}


def case(name: str, learner: dict[str, Any] | None = None, algo: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "learner": LEARNER | (learner or {}), "algo": algo or {}}


GRPO = {"loss": {"type": "grpo"}, "kl": {"coefficient": 0.05}, "importance": {"mode": "sequence_truncate"}}
OPTIONS = {
    "loss": {"type": "grpo", "delta": 3.0},
    "importance": {"mode": "token_mask", "cap": 1.2, "floor": 0.5, "max_token_staleness": 1},
    "entropy": {"bonus": 0.01, "top_share": 0.4},
}
IN_REWARD = {"kl": {"coefficient": 0.1, "place": "reward", "estimator": "k1"}, "loss": {"type": "gspo"}}
LORA = {"lora": {"rank": 4}, "packing": "shared_prefix"}
CASES = [
    case("padded"),
    case("shared", {"packing": "shared_prefix"}),
    case("checkpointing", {"packing": "shared_prefix", "gradient_checkpointing": True}),
    case("grpo", {"packing": "shared_prefix"}, GRPO),
    case("updates", None, {"updates_per_step": 2, "old_logprobs": "learner"}),
    case("updates_engine", None, {"updates_per_step": 2}),
    case("options", None, OPTIONS),
    case("options_shared", {"packing": "shared_prefix"}, OPTIONS),
    case("in_reward", None, IN_REWARD),
    case("lora", LORA),
    case("lora_checkpointing", LORA | {"gradient_checkpointing": True}),
    case("lora_zero2", LORA | {"zero_stage": 2}),
    case("lora_zero3", LORA | {"zero_stage": 3}),
    case("lora_zero3_divided", LORA | {"zero_stage": 3}),
    case("zero1", {"zero_stage": 1}),
    case("zero2", {"zero_stage": 2, "packing": "shared_prefix"}),
    case("zero3", {"zero_stage": 3, "packing": "shared_prefix"}),
    case("zero3_divided", {"zero_stage": 3, "packing": "shared_prefix"}),
    case(
        "options_zero3_divided", {"zero_stage": 3, "packing": "shared_prefix", "gradient_checkpointing": True}, OPTIONS
    ),
    case("bf16", {"dtype": "bfloat16", "packing": "shared_prefix"}),
    case("bf16_zero1", {"dtype": "bfloat16", "zero_stage": 1}),
]
EXACT = [c["name"] for c in CASES if not c["name"].startswith("bf16")]


def free_ports() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """[world size][rank][case name] -> what that rank got."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny_qwen2().save_pretrained(folder / "policy")
    (folder / "cases.json").write_text(json.dumps(CASES))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    script = str(Path(__file__).with_name("learner_rank_process.py"))
    processes: dict[int, list[subprocess.Popen[str]]] = {}
    # Both at once: a single rank leaves a core idle.
    for world_size in (1, 2):
        port = free_ports()
        processes[world_size] = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(world_size), str(port), str(folder)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world_size)
        ]
    found = {}
    for world_size, ranks in processes.items():
        outputs = [process.communicate(timeout=500)[0] for process in ranks]
        assert [p.returncode for p in ranks] == [0] * world_size, "\n".join(o[-3000:] for o in outputs)
        found[world_size] = [
            torch.load(folder / f"result-{rank}-of-{world_size}.pt", weights_only=True) for rank in range(world_size)
        ]
    start = Qwen2ForCausalLM.from_pretrained(folder / "policy").named_parameters()
    found[1][0]["start"] = {"weights": {name: p.detach() for name, p in start}}
    return found


def by_sequence(ranks: list[dict[str, Any]], name: str) -> dict[int, list[float]]:
    return {
        index: values
        for rank in ranks
        for indices, share in zip(rank[name]["indices"], rank[name]["logprobs"], strict=True)
        for index, values in zip(indices, share, strict=True)
    }


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    return max(((found[n] - w).norm() / w.norm().clamp(min=1e-6)).item() for n, w in expected.items())


def signal(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the key biases, whose gradient is zero but for rounding (softmax's symmetry).

    AdamW's first steps turn such a gradient into +-learning rate, by the order in which ranks or packings sum.
    """
    return {name: w for name, w in weights.items() if not name.endswith("k_proj.bias")}


@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_equal_one(results, name):
    (one,), two = results[1], results[2]
    for step in range(3):
        for key in (
            "policy/loss",
            "policy/grad_norm",
            "policy/entropy",
            "mismatch/logp_abs_mean",
            "perf/tokens_trained",
        ):
            expected = one[name]["metrics"][step][key]
            assert two[0][name]["metrics"][step][key] == pytest.approx(expected, rel=1e-5, abs=1e-7), key
        assert two[0][name]["metrics"][step] == two[1][name]["metrics"][step]
    assert relative(signal(two[0][name]["weights"]), signal(one[name]["weights"])) < 1e-5
    expected_logprobs = by_sequence([one], name)
    for index, values in by_sequence(two, name).items():
        assert values == pytest.approx(expected_logprobs[index], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["shared", "checkpointing", "zero1", "zero2", "zero3", "zero3_divided"])
def test_packing_checkpointing_and_sharding_change_nothing(results, name):
    (one,) = results[1]
    for step in range(2):
        for key in ("policy/loss", "policy/grad_norm"):
            assert one[name]["metrics"][step][key] == pytest.approx(one["padded"]["metrics"][step][key], rel=1e-5)
    assert relative(signal(one[name]["weights"]), signal(one["padded"]["weights"])) < 1e-5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("options_shared", "options"),
        ("options_zero3_divided", "options"),
        ("lora_checkpointing", "lora"),
        ("lora_zero2", "lora"),
        ("lora_zero3", "lora"),
        ("lora_zero3_divided", "lora"),
    ],
)
def test_options_and_adapters_do_not_depend_on_packing_or_sharding(results, name, expected):
    (one,) = results[1]
    for step in range(2):
        for key in ("policy/loss", "policy/grad_norm", "policy/active_share"):
            assert one[name]["metrics"][step][key] == pytest.approx(one[expected]["metrics"][step][key], rel=1e-5)
    assert relative(signal(one[name]["weights"]), signal(one[expected]["weights"])) < 1e-5


def test_adapters_train_the_weights_that_they_sit_on_and_nothing_else(results):
    (one,) = results[1]
    full, lora = one["shared"]["weights"], one["lora"]["weights"]
    assert full.keys() == lora.keys()
    start = one["start"]["weights"]
    moved = {name for name, weight in lora.items() if not torch.equal(weight, start[name])}
    assert moved == {name for name in lora if name.endswith("_proj.weight")}


def test_options_choose_tokens_by_weight_age_and_entropy(results):
    (one,) = results[1]
    first = one["options"]["metrics"][0]
    assert 0.05 < first["policy/active_share"] < 0.4
    assert one["padded"]["metrics"][0]["policy/active_share"] == 1.0
    assert first["async/token_staleness_max"] == 2.0
    assert 0 < first["async/token_staleness_mean"] < 1


def test_a_second_pass_is_paid_only_where_it_is_needed(results):
    once, twice = ("padded", "shared", "grpo", "updates_engine", "in_reward", "lora"), ("updates", "options")
    for ranks in results.values():
        for name in (*once, *twice):
            # A rank with fewer passes than another idles along: sharded parameters need every rank.
            passes = sum(map(max, zip(*(rank[name]["passes"] for rank in ranks), strict=True)))
            for rank in ranks:
                assert rank[name]["forwards"] == passes * (2 if name in twice else 1), name


def test_the_divergence_in_the_reward_is_that_of_the_reference(results):
    # The reference is the policy before training: the engine's log-probabilities less its own, summed.
    (one,), two = results[1], results[2]
    values = [kl for share in one["in_reward"]["reference_kl"] for kl in share]
    finite = [kl for kl in values if kl == kl]
    assert len(finite) == len(values) - 1
    assert max(map(abs, finite)) > 0.1
    expected = {i: kl for i, kl in zip(one["in_reward"]["indices"][0], values, strict=True)}
    for rank in two:
        for index, kl in zip(rank["in_reward"]["indices"][0], rank["in_reward"]["reference_kl"][0], strict=True):
            assert kl == pytest.approx(expected[index], rel=1e-4, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", ["bf16", "bf16_zero1"])
def test_bfloat16_stays_near_float32(results, name):
    (one,) = results[1]
    found, expected = by_sequence([one], name), by_sequence([one], "padded")
    differences = [abs(a - b) for i, values in found.items() for a, b in zip(values, expected[i], strict=True)]
    assert 0 < sum(differences) / len(differences) < 0.05


@pytest.mark.parametrize("name", [c["name"] for c in CASES])
def test_resume_is_exact_and_a_gradient_that_is_not_finite_changes_nothing(results, name):
    for ranks in results.values():
        for rank in ranks:
            assert rank[name]["resumed_exactly"]
            assert rank[name]["skip_left_weights"]
            first, second, again, skipped = rank[name]["metrics"]
            assert again == second
            updates = 2 if name.startswith("updates") else 1
            assert first["policy/skipped_updates"] == 0
            assert skipped["policy/skipped_updates"] == updates
            # What several updates were compared with is told of each trained token.
            lengths = rank[name]["lengths"] if updates > 1 else [[]]
            assert rank[name]["made"] == [(False, of_update) for of_update in lengths]
            # two updates of warm-up, then constant
            assert first["policy/learning_rate"] == pytest.approx(1e-3 if updates == 2 else 5e-4)
            assert second["policy/learning_rate"] == pytest.approx(1e-3)


def test_two_updates_in_one_step_use_the_policy_before_the_first(results):
    (one,) = results[1]
    metrics = one["updates"]["metrics"][0]
    assert metrics["policy/ratio_max"] > 1.0
    assert metrics["policy/kl_old"] > 0.0
    assert one["padded"]["metrics"][0]["policy/ratio_max"] == 1.0


def test_shared_prefix_forwards_fewer_tokens(results):
    (one,) = results[1]
    padded, shared = one["padded"]["metrics"][0], one["shared"]["metrics"][0]
    assert shared["perf/tokens_trained"] == padded["perf/tokens_trained"]
    assert shared["perf/tokens_forwarded"] < 0.6 * padded["perf/tokens_forwarded"]
    assert 0 < shared["policy/masked_share"] < 0.2
