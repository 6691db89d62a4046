"""Prompts: what the serialisers write, what goes first under a token budget, and what is never cut."""

import sqlite3

import pytest

from conf.errors import QuorumError
from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rollout.prompt import PromptRenderer, PromptTooLong
from rollout.prompt.described import SchemaReader
from rollout.prompt.relevance import least_relevant_first, words
from rollout.prompt.renderer import SERIALISERS


class WordTokenizer:
    """One token a white-space separated word; a chat template that shows the roles."""

    chat_template = "roles"

    def __init__(self) -> None:
        self.thinking: list[bool] = []

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt, enable_thinking):
        assert not tokenize
        assert add_generation_prompt
        self.thinking.append(enable_thinking)
        return "".join(f"<{m['role']}>\n{m['content']}\n" for m in conversation) + "<assistant>\n"

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [hash(word) for word in text.split()]


@pytest.fixture
def database(tmp_path):
    file = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(
        """
        CREATE TABLE customer (id INTEGER PRIMARY KEY, full_name TEXT, "Zip Code" TEXT, note TEXT);
        CREATE TABLE "order" (
            id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer (id), amount REAL, day TEXT
        );
        """
    )
    connection.execute("INSERT INTO customer VALUES (1, 'O''Hara', '', 'two\nlines')")
    connection.execute("INSERT INTO customer VALUES (2, 'Mei', NULL, ?)", ("x" * 41,))
    connection.execute("INSERT INTO \"order\" VALUES (1, 2, 2.5, '2024-01-02')")
    connection.commit()
    connection.close()
    return str(file)


def task(database: str, question: str = "What is the total amount?", evidence: str = "") -> SqlTask:
    return SqlTask(
        id="t", db_id="shop", question=question, evidence=evidence, gold_sqls=("SELECT 1",), databases=(database,)
    )


def schema_text(database: str, form: str, example_values: int) -> str:
    return SERIALISERS[form](SchemaReader(example_values).read(database))


def test_ddl_is_a_schema_that_sqlite_accepts(database):
    text = schema_text(database, "ddl", 2)
    assert "  full_name TEXT, -- e.g. 'Mei', 'O''Hara'\n" in text
    assert "  note TEXT,\n" in text  # values with line breaks or beyond 40 characters are no examples
    assert "  `Zip Code` TEXT,\n" in text  # neither are NULL and the empty string
    assert "CREATE TABLE `order` (" in text
    assert "  FOREIGN KEY (customer_id) REFERENCES customer (id)\n" in text
    copy = sqlite3.connect(":memory:")
    copy.executescript(text)
    assert [row[1] for row in copy.execute("PRAGMA table_info(customer)")] == ["id", "full_name", "Zip Code", "note"]
    assert [row[2:5] for row in copy.execute('PRAGMA foreign_key_list("order")')] == [("customer", "customer_id", "id")]


def test_column_list(database):
    assert schema_text(database, "columns", 1).splitlines() == [
        "customer.id: integer; primary key; examples 2",
        "customer.full_name: text; examples 'Mei'",
        "customer.`Zip Code`: text",
        "customer.note: text",
        "`order`.id: integer; primary key; examples 1",
        "`order`.customer_id: integer; examples 2",
        "`order`.amount: real; examples 2.5",
        "`order`.day: text; examples '2024-01-02'",
        "`order`.customer_id = customer.id",
    ]


def test_compact_list(database):
    assert schema_text(database, "compact", 0) == (
        "customer(id, full_name, `Zip Code`, note)\n`order`(id, customer_id -> customer, amount, day)"
    )


def test_words_split_names_and_drop_plurals():
    assert words("customerNames of order_entries 2024") == {"customer", "name", "order", "entry", "2024"}
    assert words("Is it the XMLFile?") == {"xml", "file"}
    assert words("classes boxes movies glass") == words("class box movie glass")


def test_irrelevant_columns_go_first_and_keys_last(database):
    columns = SchemaReader(2).read(database)
    order = [f"{c.table}.{c.name}" for c in least_relevant_first(columns, "What amount did Mei spend?")]
    assert order == [
        "order.day",
        "customer.note",
        "customer.Zip Code",
        "customer.full_name",
        "order.amount",
        "order.customer_id",
        "order.id",
        "customer.id",
    ]


def test_the_budget_leaves_out_whole_columns_and_counts_them(database):
    config = PromptConfig(schema_format="columns", template="bare", example_values=0, thinking=False)
    whole = PromptRenderer(config, WordTokenizer()).render(task(database))
    assert whole.dropped_columns == 0
    known_lines = set(whole.text.splitlines())
    sizes = []
    for budget in range(len(whole.token_ids) - 1, 10, -1):
        prompt = PromptRenderer(config.model_copy(update={"max_tokens": budget}), WordTokenizer()).render(
            task(database)
        )
        assert len(prompt.token_ids) <= budget
        assert set(prompt.text.splitlines()) <= known_lines
        assert "What is the total amount?" in prompt.text
        sizes.append(prompt.dropped_columns)
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    with pytest.raises(PromptTooLong, match="with one column left, the budget is prompt.max_tokens=10"):
        PromptRenderer(config.model_copy(update={"max_tokens": 10}), WordTokenizer()).render(task(database))


def test_evidence_counts_as_relevant(database):
    config = PromptConfig(schema_format="columns", template="bare", example_values=0, max_tokens=28)
    text = PromptRenderer(config, WordTokenizer()).render(task(database, evidence="spend refers to the note")).text
    assert "customer.note" in text
    assert "day" not in text


def test_finer_messages_follow_the_settings(database):
    def render(**settings):
        tokenizer = WordTokenizer()
        config = PromptConfig(template="finer", max_tokens=1000, **settings)
        return PromptRenderer(config, tokenizer).render(task(database, evidence="a hint")).text, tokenizer.thinking

    text, thinking = render(thinking=True, aggregate_rule=True)
    system, user = text.split("<user>\n")
    assert "<think>" in system
    assert "list aggregates before the grouping columns" in system
    assert user.startswith("Database Schema:\nCREATE TABLE customer")
    assert user.index("Evidence: a hint") < user.index("Question: What is the total amount?")
    assert thinking == [True]
    text, thinking = render(thinking=False)
    assert "<think>" not in text
    assert "grouping columns" not in text
    assert thinking == [False]


def test_a_tokenizer_without_chat_template_is_refused():
    tokenizer = WordTokenizer()
    tokenizer.chat_template = None
    with pytest.raises(QuorumError, match="has no chat template"):
        PromptRenderer(PromptConfig(), tokenizer)
