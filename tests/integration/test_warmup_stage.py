"""The warm-up with TRL's SFTTrainer: learns, is reproducible, and leaves a folder that transformers loads."""

from pathlib import Path

import pytest

from conf.errors import ConfigError, QuorumError
from conf.schema.data import DemoData, SpiderData
from conf.schema.model import PretrainedModel, TinyModel
from conf.schema.prompt import PromptConfig
from conf.schema.stages import WarmupConfig
from rollout.tasks import TaskSet, load_tasks

pytestmark = pytest.mark.integration

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "spider"
BARE = PromptConfig(schema_format="compact", template="bare", example_values=0, thinking=False, max_tokens=200)
SMALL = TinyModel(hidden_size=64, heads=1, kv_heads=1, layers=2, intermediate_size=128)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> TaskSet:
    root = str(tmp_path_factory.mktemp("demo"))
    return load_tasks(DemoData(root=root, warmup_size=640, train_size=50, heldout_size=10))


def warm(tasks, cache, *, model=SMALL, prompt=BARE, seed=0, losses=None, **settings):
    from trainer.warmup.stage import warm_up

    warmup = WarmupConfig(
        **{"enabled": True, "steps": 40, "learning_rate": 5e-3, "threads": 1, "cache": str(cache), **settings}
    )
    collected = [] if losses is None else losses
    return warm_up(
        tasks,
        model=model,
        prompt=prompt,
        warmup=warmup,
        seed=seed,
        gpu=False,
        report=lambda progress: collected.append(progress.loss),
    )


def test_it_learns_and_is_found_again(tasks, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    losses: list[float] = []
    first = warm(tasks, tmp_path, losses=losses)
    assert not first.cached
    assert len(losses) == 10
    assert losses[-1] < 0.5 * losses[0]
    policy = AutoModelForCausalLM.from_pretrained(first.folder)
    tokenizer = AutoTokenizer.from_pretrained(first.folder)
    assert policy.config.model_type == "qwen2"
    assert policy.config.tie_word_embeddings
    assert policy.config.eos_token_id == tokenizer.eos_token_id
    assert all(torch.isfinite(weight).all() for weight in policy.parameters())
    again = warm(tasks, tmp_path)
    assert again.cached
    assert again.folder == first.folder
    repeated = AutoModelForCausalLM.from_pretrained(warm(tasks, tmp_path / "other").folder)
    for one, other in zip(policy.parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_folder_is_warmed_up_further_with_its_own_tokenizer(tasks, tmp_path):
    from transformers import AutoTokenizer

    base = warm(tasks, tmp_path, steps=2).folder
    further = warm(tasks, tmp_path, steps=2, model=PretrainedModel(path=str(base))).folder
    assert further != base
    texts = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (base, further)]
    assert texts[0] == texts[1]


def test_what_cannot_be_learned_from_is_one_clear_error(tasks, tmp_path):
    with pytest.raises(QuorumError, match="no warm-up task fits warmup.max_tokens=10"):
        warm(tasks, tmp_path, max_tokens=10)
    with pytest.raises(ConfigError, match="model.vocabulary=100 is too small"):
        warm(tasks, tmp_path, model=TinyModel(vocabulary=100))
    with pytest.raises(QuorumError, match="no tokenizer can be loaded from"):
        warm(tasks, tmp_path, model=PretrainedModel(path=str(tmp_path / "absent")))
    (tmp_path / "file").write_text("")
    with pytest.raises(QuorumError, match="warmup.cache=.*cannot be written"):
        warm(tasks, tmp_path / "file", steps=1)


@pytest.mark.skipif(not (PUBLIC / "dev.json").is_file(), reason="the public questions are not here")
def test_spider_questions_without_traces_are_learned_through_their_golds(tmp_path):
    spider = load_tasks(SpiderData(root=str(PUBLIC), train_file="dev.json", train_limit=60, heldout_limit=5))
    prompt = BARE.model_copy(update={"max_tokens": 1500})
    policy = warm(spider, tmp_path, prompt=prompt, model=SMALL, steps=3, batch_size=4)
    assert policy.dropped == ()
    assert (policy.folder / "model.safetensors").is_file()
