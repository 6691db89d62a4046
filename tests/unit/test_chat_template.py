"""Chat templates of other models: what they refuse, hide or break is one sentence, or mended in every prompt."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rollout.prompt import PromptRenderer
from rollout.prompt.opened import TemplateUnfit
from tests.unit.test_think_tags import PLAIN, tokenizer_of

GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "[INST] {{ m.content }} [/INST]{% endfor %}"
)
USERS_ONLY = "{% for m in messages if m.role == 'user' %}<|user|>{{ m.content }}{% endfor %}<|assistant|>"


@pytest.fixture
def task(tmp_path: Path) -> SqlTask:
    file = tmp_path / "dogs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE dog (name TEXT)")
    connection.close()
    return SqlTask(id="t", db_id="d", question="Which dogs are there?", gold_sqls=("SELECT 1",), databases=(str(file),))


@pytest.mark.parametrize(
    ("template", "remark"),
    [
        (GEMMA, "refuses a system message (System role not supported)"),
        (MISTRAL, "refuses a system message (Conversation roles must alternate user/assistant/user/assistant/...)"),
        (USERS_ONLY, "shows no system message"),
        ("<|user|>{{ messages[0].content }}<|assistant|>", "shows no question beside a system message"),
    ],
)
def test_a_template_without_system_messages_gets_them_in_the_users(template: str, remark: str, task: SqlTask) -> None:
    renderer = PromptRenderer(PromptConfig(), tokenizer_of(template))
    renderer.check()
    assert remark in renderer.remark
    text = renderer.render(task).text
    system = PromptRenderer(PromptConfig(), tokenizer_of(PLAIN)).render(task).text.split("<|system|>")[1]
    assert text == PromptRenderer(PromptConfig(), tokenizer_of(template)).render(task).text  # without a check
    rules, user = system.removesuffix("<|assistant|>").split("<|user|>")
    assert f"{rules}\n\n{user}" in text
    assert text.count("Which dogs are there?") == text.count("You translate questions") == 1


def test_a_template_that_shows_both_messages_is_left_alone(task: SqlTask) -> None:
    renderer = PromptRenderer(PromptConfig(), tokenizer_of(PLAIN))
    renderer.check()
    assert renderer.remark == ""
    assert renderer.render(task).text.startswith("<|system|>You translate")
    bare = PromptRenderer(PromptConfig(template="bare"), tokenizer_of(GEMMA))
    bare.check()
    assert bare.remark == ""


@pytest.mark.parametrize("form", ["finer", "bare"])
def test_a_template_that_escapes_is_refused_before_any_question_needs_it(form: str) -> None:
    renderer = PromptRenderer(PromptConfig(template=form), tokenizer_of(PLAIN.replace(".content", ".content | e")))
    with pytest.raises(TemplateUnfit, match="changes the text of the question"):
        renderer.check()


def test_a_question_that_the_template_refuses_is_named(task: SqlTask) -> None:
    template = "{% if 'cats' in messages[-1].content %}{{ raise_exception('no cats') }}{% endif %}" + PLAIN
    renderer = PromptRenderer(PromptConfig(), tokenizer_of(template))
    renderer.check()
    assert renderer.render(task).text
    with pytest.raises(TemplateUnfit, match=r"^task t7: the chat template .* refuses the messages \(no cats\)"):
        renderer.render(replace(task, id="t7", question="Which cats are there?"))


@pytest.mark.parametrize("form", ["finer", "bare"])
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }", "unexpected '}'"),
        ("{{ nothing.at.all }}" + PLAIN, "'nothing' is undefined"),
        ("{{ 1 + messages[0].content }}" + PLAIN, "unsupported operand"),
        ("{{ 1 / 0 }}" + PLAIN, "division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + PLAIN, "recursion"),
        ({"rag": PLAIN}, "multiple chat templates with no default"),
        ("{{ raise_exception('Only tools are served') }}", "Only tools are served"),
        ("Hello", "does not show it"),
        (
            "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}",
            "does not show it",
        ),
        ("{{ messages | tojson }}", "changes the text of the question"),
        ("{% for m in messages %}{{ m.content | truncate(20) }}{% endfor %}", "changes the text of the question"),
    ],
)
def test_a_broken_template_is_one_sentence(template: str, message: str, form: str, task: SqlTask) -> None:
    renderer = PromptRenderer(PromptConfig(template=form), tokenizer_of(template))
    for use in (renderer.check, lambda: renderer.render(task)):
        with pytest.raises(TemplateUnfit, match="chat template of the policy's tokenizer") as caught:
            use()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
