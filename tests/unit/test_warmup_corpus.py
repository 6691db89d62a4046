"""What the warm-up learns from: an exact tokenizer, prompts as the engine sees them, traces, and a content hash."""

import asyncio
import random
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import Qwen2Config

from conf.schema.data import DemoData
from conf.schema.model import TinyModel
from conf.schema.prompt import PromptConfig
from conf.schema.stages import WarmupConfig
from rollout.prompt import PromptRenderer
from rollout.prompt.tokenizer import load_tokenizer
from rollout.tasks import TaskSet, Trace, load_tasks
from trainer.policy_folder import WarmupLost, last_told
from trainer.warmup.cache import content_hash, publishing
from trainer.warmup.corpus import answer_text, build_corpus, tokenizer_texts
from trainer.warmup.tokenizer import SMALLEST_VOCABULARY, train_tokenizer

BARE = PromptConfig(schema_format="compact", template="bare", example_values=0, thinking=False, max_tokens=200)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> TaskSet:
    root = str(tmp_path_factory.mktemp("demo"))
    return load_tasks(DemoData(root=root, warmup_size=200, train_size=50, heldout_size=10))


@pytest.fixture(scope="module")
def tokenizer(tasks):
    return train_tokenizer(tokenizer_texts(tasks, [], thinking=False), 700, 512)


def test_any_composed_text_round_trips(tokenizer):
    rng = random.Random(0)
    noise = "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(160, 0x2FFF), 10, 9))) for _ in range(2000))
    texts = ("SELECT  'é' ,\n\t\"漢字\" -- 🦆\r\n  ", "<think>a</think>SELECT 1", " leading", noise)
    for text in (unicodedata.normalize("NFC", text) for text in texts):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=True) == text


def test_words_are_tokens_and_numbers_are_digits(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("SELECT name FROM pilot WHERE age >= 64"))
    assert tokens == ["SELECT", "Ġname", "ĠFROM", "Ġpilot", "ĠWHERE", "Ġage", "Ġ>=", "Ġ", "6", "4"]


def test_auto_tokenizer_loads_the_same_tokenizer_beside_a_qwen2_config(tokenizer, tmp_path):
    Qwen2Config().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "<think>x</think>SELECT author.author_id FROM author WHERE age >= 64 AND name = 'O''Hara'"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.eos_token_id == tokenizer.eos_token_id


def test_the_chat_template_ends_where_the_answer_begins(tokenizer):
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert text == "<|begin|><|system|>S<|user|>U<|assistant|>"
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "A"}], tokenize=False)
    assert whole == text + "A<|end|>"
    assert len(tokenizer.encode(text, add_special_tokens=False)) == 6


def test_vocabulary_is_bounded_and_the_smallest_still_round_trips(tasks):
    texts = tokenizer_texts(tasks, [], thinking=False)
    assert len(train_tokenizer(texts, 300, 512)) == 300
    smallest = train_tokenizer(texts, SMALLEST_VOCABULARY, 512)
    assert len(smallest) == SMALLEST_VOCABULARY
    assert smallest.decode(smallest.encode(texts[0])) == texts[0]


def test_examples_are_engine_prompts_followed_by_the_teachers_answer(tasks, tokenizer):
    corpus = build_corpus(tasks, prompt=BARE, tokenizer=tokenizer, end_token=tokenizer.eos_token_id, max_tokens=300)
    assert (len(corpus.examples), corpus.dropped) == (200, ())
    renderer = PromptRenderer(BARE, tokenizer)
    for task, example in zip(tasks.warmup, corpus.examples, strict=True):
        assert example.input_ids[: example.prompt_tokens] == renderer.render(task).token_ids
        assert example.input_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(example.input_ids[example.prompt_tokens : -1]) == tasks.traces[task.id].sql
    wrong = sum(tasks.traces[task.id].sql != task.gold_sqls[0] for task in tasks.warmup)
    assert 0.2 < wrong / len(tasks.warmup) < 0.5


def test_long_traces_and_prompts_are_dropped_with_their_reason(tasks, tokenizer):
    end = tokenizer.eos_token_id
    whole = build_corpus(tasks, prompt=BARE, tokenizer=tokenizer, end_token=end, max_tokens=300)
    limit = sorted(len(example.input_ids) for example in whole.examples)[100]
    cut = build_corpus(tasks, prompt=BARE, tokenizer=tokenizer, end_token=end, max_tokens=limit)
    assert max(len(example.input_ids) for example in cut.examples) == limit
    assert {entry.reason for entry in cut.dropped} == {"trace too long"}
    assert len(cut.examples) + len(cut.dropped) == 200
    short = BARE.model_copy(update={"max_tokens": 12})
    none = build_corpus(tasks, prompt=short, tokenizer=tokenizer, end_token=end, max_tokens=300)
    assert {entry.reason for entry in none.dropped} == {"prompt too long"}


def test_answers_with_and_without_thinking():
    trace = Trace(reasoning="because", sql="SELECT 1")
    assert answer_text(trace, thinking=True) == "<think>because</think>SELECT 1"
    assert answer_text(trace, thinking=False) == "SELECT 1"


def test_the_hash_covers_what_decides_the_weights_and_nothing_else(tasks):
    def digest(tasks=tasks, model=None, prompt=BARE, seed=0, **warmup):
        model, settings = model or TinyModel(), WarmupConfig(enabled=True, **warmup)
        return content_hash(tasks, model=model, prompt=prompt, warmup=settings, seed=seed)

    first = digest()
    assert digest(cache="elsewhere", threads=7, stall_timeout_s=1.0) == first
    one = next(iter(tasks.traces))
    retold = {**tasks.traces, one: Trace(reasoning="", sql="SELECT 0")}
    changed = [
        digest(seed=1),
        digest(steps=3),
        digest(model=TinyModel(layers=3)),
        digest(prompt=BARE.model_copy(update={"example_values": 1})),
        digest(
            tasks=TaskSet(warmup=tasks.warmup[1:], train=tasks.train, heldout=tasks.heldout, traces=tasks.traces),
        ),
        digest(tasks=TaskSet(warmup=tasks.warmup, train=tasks.train, heldout=tasks.heldout, traces=retold)),
    ]
    assert len({first, *changed}) == 7


def test_a_policy_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "cache" / "abc"

    def interrupted() -> None:
        with publishing(target) as scratch:
            (scratch / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(target.parent.iterdir()) == []
    with publishing(target) as scratch:
        (scratch / "config.json").write_text("{}")
    assert [file.name for file in target.iterdir()] == ["config.json"]
    with publishing(target) as scratch:
        (scratch / "other").write_text("late")
    assert [file.name for file in target.parent.iterdir()] == ["abc"]


async def told(*messages, pause_s=0.0):
    async def one(message):
        return message

    for message in messages:
        await asyncio.sleep(pause_s)
        yield one(message)
    await asyncio.sleep(3600)


def test_a_warm_up_that_goes_silent_ends_with_its_limit():
    notes: list[str] = []
    step = SimpleNamespace(step=40, steps=400, loss=1.25)

    async def heard(*messages, limit_s, pause_s=0.0):
        return await last_told(told(*messages, pause_s=pause_s), notes.append, limit_s=limit_s)

    # Each report within the limit, all of them beyond it.
    assert asyncio.run(heard(*[step] * 4, Path("folder"), pause_s=0.15, limit_s=0.5)) == Path("folder")
    assert notes == ["warm-up step 40/400  loss 1.250"] * 4
    with pytest.raises(WarmupLost, match=r"stall_timeout_s=0\.05: it hangs, .* or the cluster lacks a CPU or GPU"):
        asyncio.run(heard(step, limit_s=0.05))
