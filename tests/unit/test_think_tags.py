"""Think tags between prompt and completion: what chat templates open or close, and tags that are special tokens.

Templates are those of the models named, as far as they matter here, on a real tokenizer built on the spot.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.generation.policy import _kept
from conf.schema.prompt import PromptConfig
from conf.schema.reward import FormatReward, RewardConfig
from conf.schema.rollout import SamplingConfig
from conf.schema.stages import EvaluationConfig
from operate.ask.answer import NoAnswer, choose
from rewards.carriers import RewardResult, SqlTask
from rewards.components.format import extract, format_reward
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Completion, Group, Prompt
from rollout.detokenizer import Detokenizer
from rollout.prompt import PromptRenderer
from rollout.prompt.opened import TemplateUnfit
from rollout.tasks.carriers import TaskSet, Trace
from tests.dogs import write_dogs
from trainer.evaluate import evaluate
from trainer.pipeline.producer import Producer
from trainer.warmup.corpus import build_corpus

ROLES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}{% if add_generation_prompt %}"
PLAIN = ROLES + "<|assistant|>{% endif %}"
R1 = ROLES + "<|assistant|><think>\n{% endif %}"
SEEDED = ROLES + "<|assistant|><think>\nOkay, {% endif %}"
QWEN3 = (
    ROLES + "<|assistant|>{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
CLOSED = ROLES + "<|assistant|><think>\n\n</think>\n\n{% endif %}"
WHY = "The question asks for the names of all dogs, so the table dog is read and its column name is returned whole."


def tokenizer_of(template: str, *, special_tags: bool = False) -> PreTrainedTokenizerFast:
    letters = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<|end|>", "<|pad|>", "<|assistant|>")])
    tags = [AddedToken(tag, special=special_tags) for tag in ("<think>", "</think>")]
    backend.add_special_tokens(tags) if special_tags else backend.add_tokens(tags)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("dogs") / "dogs.sqlite"
    write_dogs(file, [("rex", 3), ("ace", 5)])
    return str(file)


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutorPool]:
    with ExecutorPool(1) as executors:
        yield executors


def task(database: str, question: str = "Which dogs are there?") -> SqlTask:
    gold = ("SELECT name FROM dog",)
    return SqlTask(id="t", db_id="dogs", question=question, gold_sqls=gold, databases=(database,))


def rendered(template: str, database: str, question: str = "Which dogs are there?", *, thinking: bool = True) -> Prompt:
    renderer = PromptRenderer(PromptConfig(thinking=thinking), tokenizer_of(template))
    renderer.check()
    return renderer.render(task(database, question))


def completion(text: str) -> Completion:
    return Completion(text=text, token_ids=(1,), logprobs=(-1.0,), version_spans=((0, 0),), finish_reason="stop")


@pytest.mark.parametrize(
    ("template", "thinking", "opened"),
    [
        (PLAIN, True, ""),
        (PLAIN, False, ""),
        (R1, True, "<think>"),
        (SEEDED, True, "<think>"),
        (QWEN3, True, ""),
        (QWEN3, False, ""),
        (CLOSED, False, ""),
    ],
)
@pytest.mark.parametrize("question", ["Which dogs are there?", "What is <think>?", "</think> or <think>", "so <think>"])
def test_what_the_template_opens(template: str, thinking: bool, opened: str, question: str, database: str) -> None:
    assert rendered(template, database, question, thinking=thinking).opened == opened


@pytest.mark.parametrize(
    ("template", "thinking", "message"),
    [
        (CLOSED, True, "prompt.thinking=false"),
        (R1, False, "prompt.thinking=true"),
        (SEEDED, False, "prompt.thinking=true"),
        (PLAIN.replace("m.content | trim", "m.content | upper"), True, "changes the text"),
        ("{{ raise_exception('System role not supported') }}" + PLAIN, True, "System role not supported"),
        ("{% for m in messages %}{{ m.content.nothing.at_all }}{% endfor %}", True, "refuses the messages"),
    ],
)
def test_a_template_that_no_completion_can_follow_is_refused_at_once(
    template: str, thinking: bool, message: str, database: str
) -> None:
    renderer = PromptRenderer(PromptConfig(thinking=thinking), tokenizer_of(template))
    for use in (renderer.check, lambda: renderer.render(task(database))):
        with pytest.raises(TemplateUnfit, match=message):
            use()


@pytest.mark.parametrize(
    ("template", "text", "form", "sql"),
    [
        (R1, f"{WHY}\n</think>\n\nSELECT 1", 1.0, "SELECT 1"),
        (R1, f"<think>{WHY}</think>SELECT 1", 0.0, "SELECT 1"),
        (R1, "SELECT 1", 0.0, None),
        (R1, f"{WHY}</think>", 0.0, None),
        (R1, f"{WHY}</think>SELECT 1<think>", 0.0, None),
        (R1, f"{WHY}</think>{WHY}</think>SELECT 1", 0.0, "SELECT 1"),
        (PLAIN, f"{WHY}\n</think>\n\nSELECT 1", 0.0, "SELECT 1"),
        (PLAIN, f"<think>{WHY}</think>SELECT 1", 1.0, "SELECT 1"),
    ],
)
def test_the_format_counts_what_the_prompt_has_opened(
    template: str, text: str, form: float, sql: str | None, database: str
) -> None:
    group = Group(id="0.0", prompt=rendered(template, database), completions=(completion(text),))
    found = extract(group.answers[0], FormatReward())
    assert (format_reward(found, FormatReward()), found.sql) == (form, sql)
    assert _kept(group) == [{"text": group.answers[0], "logprob": -1.0, "tokens": 1}]


class OneText:
    """A policy that always writes the same."""

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        return Group(id=group_id, prompt=prompt, completions=(completion("so</think>SELECT 1"),) * n)


class Heard:
    """Keeps what it is asked to score."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def score(self, task, completions, *, lengths=None):
        self.texts += completions
        return tuple(RewardResult(status="scored", total=0.0) for _ in completions)


def test_training_and_evaluation_score_what_the_prompt_has_opened(database: str) -> None:
    prompt, heard, sampling = rendered(R1, database), Heard(), SamplingConfig(max_tokens=4)
    producer = Producer(prompt_at=lambda _: prompt, source=OneText(), scoring=heard, group_size=2, sampling=sampling)
    asyncio.run(producer.produce(0, 0))
    asyncio.run(evaluate([prompt], source=OneText(), judge=heard, config=EvaluationConfig(n=2), sampling=sampling))
    assert heard.texts == ["<think>so</think>SELECT 1"] * 5


def test_a_question_is_answered_behind_the_block_that_the_prompt_opened(database: str, pool: ExecutorPool) -> None:
    prompt = rendered(R1, database)

    def answer(text: str) -> str:
        return choose(
            [completion(text)],
            database=database,
            question="?",
            voter="value_aware",
            denotation="bird",
            reward=RewardConfig(),
            executors=pool,
            opened=prompt.opened,
        ).sql

    assert answer("so</think>```sqlite3\nSELECT name FROM dog; -- all\n```") == "SELECT name FROM dog; -- all"
    with pytest.raises(NoAnswer, match="holds a query"):
        answer("SELECT name FROM dog")


@pytest.mark.parametrize(("template", "answer"), [(PLAIN, "<think>why</think>SELECT 1"), (R1, "why</think>SELECT 1")])
def test_the_warm_up_does_not_open_a_block_twice(template: str, answer: str, database: str) -> None:
    tokenizer, one = tokenizer_of(template), task(database)
    traces = {"t": Trace(reasoning="why", sql="SELECT 1")}
    tasks = TaskSet(warmup=(one,), train=(one,), heldout=(), traces=traces, dropped=())
    corpus = build_corpus(tasks, prompt=PromptConfig(), tokenizer=tokenizer, end_token=0, max_tokens=9999)
    (example,) = corpus.examples
    assert tokenizer.decode(example.input_ids[example.prompt_tokens : -1]) == answer


@pytest.mark.parametrize("special_tags", [False, True])
def test_think_tags_stay_in_the_text_and_other_special_tokens_do_not(special_tags: bool, tmp_path: Path) -> None:
    tokenizer_of(PLAIN, special_tags=special_tags).save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = [f"<think>{WHY}</think>SELECT 'é'", "no tags", ""]
    ids = [tokenizer.encode(f"{text}<|end|>", add_special_tokens=False) for text in texts]
    ids[1] = [tokenizer.convert_tokens_to_ids("<|assistant|>"), *ids[1], tokenizer.pad_token_id]
    assert tokenizer.decode(ids[0], skip_special_tokens=True).count("think>") == (0 if special_tags else 2)
    assert Detokenizer(tokenizer).texts(ids) == texts
