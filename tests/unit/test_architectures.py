"""Which architectures the learner computes exactly, that it refuses the others, and by what it tells them apart."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from conf.errors import QuorumError
from conf.load import load
from conf.schema.learner import LoraConfig
from conf.schema.model import PretrainedModel
from conf.schema.root import TrainConfig
from rollout.prompt.tokenizer import load_tokenizer
from tests.architectures import ARCHITECTURES, config_of, outcome_of, row_of
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner import exactness, logits, policy, state
from trainer.learner.attention import prefix
from trainer.learner.errors import PolicyNotLoadable
from trainer.learner.exactness import adapter_fault, check_model, fault_of
from trainer.learner.gather import gathered_weights
from trainer.learner.logits import Logits
from trainer.learner.logprobs import token_logprobs
from trainer.learner.lora import add_adapters
from trainer.learner.policy import load_model
from trainer.learner.small_copy import small_config
from trainer.model_check import check_policy
from trainer.warmup.policy import pretrained_policy

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_exact_or_refused(name):
    assert outcome_of(name) == ARCHITECTURES[name][0]


def test_the_documented_table_is_the_tested_one():
    rows = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.endswith(("exact |", "refused |"))
    ]
    assert rows == [row_of(name, outcome) for name, (outcome, *_) in ARCHITECTURES.items()]


@pytest.mark.parametrize("name", ["Cohere", "Gemma 2", "Granite", "Falcon-H1", "MiniCPM3", "RecurrentGemma"])
def test_logits_that_are_more_than_products_are_found_out(monkeypatch, name):
    monkeypatch.setattr(logits, "_LOGITS", {})
    assert "log-probabilities differ from the model's own by up to" in str(fault_of(config_of(name), packing="padded"))


@pytest.mark.parametrize("name", ["GPT-2", "OPT", "Granite"])
def test_dropout_in_training_is_found_out(monkeypatch, name):
    monkeypatch.setattr(exactness, "without_noise", lambda model: None)
    assert "in training differ from those in sampling" in str(fault_of(config_of(name), packing="padded"))


def test_a_window_that_attention_does_not_hear_of_is_found_out(monkeypatch):
    monkeypatch.setattr(prefix, "refuse_unserved", lambda *asked: None)
    for name in ("Mistral", "Phi-3", "Starcoder2"):
        assert "differ from the model's own" in str(fault_of(config_of(name), packing="shared_prefix"))


def test_a_wrong_gradient_is_found_out(monkeypatch):
    right = policy.token_logprobs

    def half(hidden: torch.Tensor, *rest: object, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
        return right((hidden + hidden.detach()) / 2, *rest, **settings)

    monkeypatch.setattr(policy, "token_logprobs", half)
    assert "the gradient of" in str(fault_of(config_of("Llama"), packing="padded"))


def saved(folder: Path, config: PreTrainedConfig) -> str:
    config.save_pretrained(folder)
    return str(folder)


def test_a_refusal_names_the_settings_that_serve_the_model(tmp_path):
    folder = saved(tmp_path, config_of("Mistral"))
    with pytest.raises(PolicyNotLoadable) as refused:
        check_model(folder, packing="shared_prefix", longest=17)
    told = str(refused.value)
    assert told.startswith(f"the model at {folder} (mistral) cannot be trained with learner.packing=shared_prefix: ")
    assert told.endswith(
        "a sliding window that sequences go beyond, which rows of learner.packing=shared_prefix do not serve; choose "
        "learner.packing=padded, which computes this model exactly, or let prompt.max_tokens and "
        "rollout.sampling.max_tokens be 16 together at most"
    )
    check_model(folder, packing="shared_prefix", longest=16)
    check_model(folder, packing="padded", longest=17)


def test_a_mixture_of_experts_is_refused_for_its_names(tmp_path):
    with pytest.raises(PolicyNotLoadable, match=r"names that engines and checkpoints do not know.*experts"):
        check_model(saved(tmp_path, config_of("Qwen3-MoE")), packing="padded")


def test_a_folder_of_another_class_is_refused(tmp_path):
    config = config_of("Qwen2")
    config.architectures = ["Qwen2ForRewardModel"]
    with pytest.raises(PolicyNotLoadable, match="names Qwen2ForRewardModel, and what can be trained of it is Qwen2For"):
        check_model(saved(tmp_path, config), packing="padded")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"model_type": "t5", "d_model": 32}, "transformers has no causal language model of this kind"),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 2}}, "it is more than a language model"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "awq", "bits": 4}},
            r"its weights are quantised \(awq\).*give the model's plain folder",
        ),
    ],
)
def test_what_is_no_plain_language_model_is_refused_in_plain_words(tmp_path, entries, words):
    (tmp_path / "config.json").write_text(json.dumps(entries))
    with pytest.raises(PolicyNotLoadable, match=words):
        check_model(str(tmp_path), packing="padded")


def test_code_that_a_model_folder_brings_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("configuration_own", "tokenization_own"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.Own"}}
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("builtins.input", lambda asked: "y")
    with pytest.raises(PolicyNotLoadable, match="contains custom code"):
        check_model(str(tmp_path), packing="padded")
    with pytest.raises(QuorumError, match="contains custom code"):
        load_tokenizer(tmp_path)
    with pytest.raises(QuorumError, match="contains custom code"):
        pretrained_policy(PretrainedModel(path=str(tmp_path)), 0, torch.float32)
    assert not ran.exists()


def test_how_many_layers_have_a_window_is_no_length(tmp_path):
    config = CONFIG_MAPPING["gemma3_text"](
        **{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "head_dim": 8},
        **{"num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 512, "sliding_window_pattern": 6},
    )
    with pytest.raises(PolicyNotLoadable, match=r"be 512 together at most$"):
        check_model(saved(tmp_path, config), packing="shared_prefix", longest=1500)


@pytest.mark.parametrize("name", ["Falcon-H1", "Mamba 2"])
def test_layers_that_take_no_adapters_are_refused_with_them(tmp_path, name):
    folder = saved(tmp_path, config_of(name))
    with pytest.raises(PolicyNotLoadable, match=r"learner.lora.rank=4: .*incompatible.*choose learner.lora.rank=0$"):
        check_model(folder, packing="padded", lora=LoraConfig(rank=4))
    check_model(folder, packing="padded", lora=LoraConfig(rank=0))


@pytest.mark.parametrize("name", ["GPT-2", "Qwen2", "Qwen3.5"])
def test_adapters_that_engines_would_not_hear_of_are_found_out(monkeypatch, name):
    packing = "padded" if name == "Qwen3.5" else "shared_prefix"
    asked = {"lora": LoraConfig(rank=4), "packing": packing, "longest": None}
    assert adapter_fault(config_of(name), **asked) is None
    monkeypatch.setattr(exactness, "gathered_weights", lambda model, sharded: [])
    assert "differ from those of the merged weights" in str(adapter_fault(config_of(name), **asked))


ROPES = {
    "dynamic": {"factor": 4.0},
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [8.0, 4.0, 2.0, 1.0], "factor": 4.0},
    "yarn": {"factor": 4.0},
}


@pytest.mark.parametrize("kind", ROPES)
def test_frequencies_that_change_with_length_are_refused_where_sequences_reach_it(kind):
    rope = ROPES[kind] | {"rope_type": kind, "rope_theta": 1e4, "original_max_position_embeddings": 128}
    size = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 128}
    config = CONFIG_MAPPING["llama"](vocab_size=96, num_hidden_layers=2, rope_parameters=rope, **size)
    assert fault_of(config, packing="padded", longest=128) is None
    assert (fault_of(config, packing="padded", longest=129) is None) == (kind == "yarn")


def test_a_small_copy_keeps_one_layer_of_each_kind_and_few_heads():
    size = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "intermediate_size": 11008}
    config = CONFIG_MAPPING["qwen3"](num_hidden_layers=36, head_dim=128, **size)
    small = small_config(config, 2048, narrow=True)
    assert (small.num_hidden_layers, small.hidden_size, small.num_attention_heads) == (2, 512, 4)
    assert (small.num_key_value_heads, small.head_dim, small.intermediate_size) == (2, 128, 64)
    gemma = CONFIG_MAPPING["gemma3_text"](num_hidden_layers=26, sliding_window=512)
    small = small_config(gemma, 600, narrow=True)
    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
    assert small.num_hidden_layers == len(small.layer_types) < 8
    assert small.sliding_window < 10
    assert small_config(gemma, 512, narrow=True).sliding_window > 100_000


def test_the_driver_refuses_in_a_process_of_its_own(tmp_path):
    given = ["experiment=quickstart", "model=pretrained", f"model.path={tmp_path}", "learner.packing=shared_prefix"]
    config = load(TrainConfig, "train", given)
    saved(tmp_path, config_of("Mistral"))
    with pytest.raises(PolicyNotLoadable, match="choose learner.packing=padded"):
        check_policy(config, tmp_path)


def test_weights_that_a_folder_lacks_are_not_made_up(tmp_path):
    model = tiny_qwen2()
    weights = model.state_dict()
    del weights["model.layers.1.mlp.up_proj.weight"], weights["lm_head.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(PolicyNotLoadable, match=r"lack 1 tensors.*first model.layers.1.mlp.up_proj.weight"):
        load_model(str(tmp_path), packing="padded", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("name", ["Bloom", "Falcon-H1", "Gemma 2", "GPT-2", "Mamba 2", "OPT", "Qwen3.5", "StableLM"])
def test_a_checkpoint_holds_every_tensor_that_engines_are_sent(tmp_path, name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32)
    model.register_buffer("quorum_buffer", torch.tensor([3.0]))
    weights = dict(gathered_weights(model, sharded=False))
    assert weights["quorum_buffer"].item() == 3.0
    state._save_policy(tmp_path, model, weights, tmp_path)
    written = state.load_file(tmp_path / "model.safetensors")
    assert written.keys() >= weights.keys()
    for key, tensor in weights.items():
        assert torch.equal(written[key], tensor), key
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for key, tensor in gathered_weights(again, sharded=False):
        assert torch.equal(tensor, weights[key]), key


def test_adapters_of_maps_that_are_kept_transposed_are_merged_rightly():
    plain, adapted = (AutoModelForCausalLM.from_config(config_of("GPT-2")).eval() for _ in range(2))
    adapted.load_state_dict(plain.state_dict())
    add_adapters(adapted, LoraConfig(rank=2), seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[5, 9, 2, 7]])
    before = plain(ids).logits
    plain.load_state_dict(dict(gathered_weights(adapted, sharded=False)), strict=False)
    assert (plain(ids).logits - before).abs().max() > 1e-3
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [Logits(cap=3.0), Logits(factor=0.25), Logits(factor=2.0, cap=5.0)])
def test_capped_and_scaled_logits_have_exact_gradients(made):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 9, (11,), generator=generator)
    upstream = torch.randn(2, 11, generator=generator, dtype=torch.float64)
    products = made.factor * (hidden @ weight.T)
    shaped = products if made.cap is None else made.cap * torch.tanh(products / made.cap)
    log_p = torch.log_softmax(shaped / 0.7, dim=-1)
    plain = log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(-1)
    expected = torch.autograd.grad((upstream[0] * plain[0] + upstream[1] * plain[1]).sum(), (hidden, weight))
    logp, entropy = token_logprobs(hidden, weight, targets, temperature=0.7, chunk=4, made=made)
    torch.testing.assert_close((logp, entropy), plain)
    found = torch.autograd.grad((upstream[0] * logp + upstream[1] * entropy).sum(), (hidden, weight))
    torch.testing.assert_close(found, expected)
