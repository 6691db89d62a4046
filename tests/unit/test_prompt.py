"""Prompts: what the serialisers write, what goes first under a token budget, and what is never cut."""

import sqlite3
import time

import pytest

from conf.errors import QuorumError
from conf.schema.prompt import PromptConfig
from rewards.carriers import SqlTask
from rewards.sql.schema import READ_STEPS
from rollout.prompt import PromptRenderer, PromptTooLong
from rollout.prompt.described import SchemaReader, quoted
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


def made(tmp_path, script: str) -> str:
    file = tmp_path / "made.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return str(file)


def test_views_and_generated_columns_are_shown_and_views_come_last(tmp_path):
    database = made(
        tmp_path,
        "CREATE TABLE item (id INT, total REAL AS (id * 2.5)); INSERT INTO item (id) VALUES (1);"
        "CREATE VIEW dear AS SELECT id, date('now') AS day FROM item; CREATE TABLE kind (name TEXT);",
    )
    assert schema_text(database, "compact", 1) == "item(id 1, total 2.5)\nkind(name)\ndear(id, day)"
    assert schema_text(database, "columns", 1).splitlines()[-2:] == ["dear.id: int", "dear.day"]
    text = schema_text(database, "ddl", 1)
    assert text.endswith("CREATE TABLE dear ( -- a view\n  id INT,\n  day\n);")
    sqlite3.connect(":memory:").executescript(text)


def test_keys_that_name_no_columns_are_shown(tmp_path):
    database = made(
        tmp_path,
        "CREATE TABLE country (code TEXT PRIMARY KEY); CREATE TABLE person (born TEXT REFERENCES Country);"
        "CREATE TABLE place (country_code TEXT REFERENCES nowhere);",
    )
    assert schema_text(database, "columns", 0).splitlines()[-1] == "person.born = country.code"
    assert schema_text(database, "compact", 0) == "country(code)\nperson(born -> country)\nplace(country_code)"


KEYWORDS = (
    "ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY CASCADE "
    "CASE CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME "
    "CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH ELSE END ESCAPE "
    "EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN FROM FULL GENERATED GLOB GROUP "
    "GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD INTERSECT INTO IS ISNULL JOIN "
    "KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL NULL NULLS OF OFFSET ON OR ORDER "
    "OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING PRIMARY QUERY RAISE RANGE RECURSIVE REFERENCES REGEXP REINDEX "
    "RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN "
    "TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE WINDOW WITH "
    "WITHOUT TRUE FALSE ROWID OID RANK"
).split()
"""All of SQLite's keywords, and words with a meaning of their own."""

COLUMN_QUERIES = (
    *("SELECT {} FROM held", "SELECT held.{} FROM held", "SELECT ({}) FROM held", "SELECT max({}) FROM held"),
    *("SELECT max(DISTINCT {}) FROM held", "SELECT DISTINCT {} FROM held", "SELECT a, {}, a FROM held"),
    *("SELECT a FROM held WHERE {0} = 7 AND {0} IN (7)", "SELECT a FROM held WHERE NOT {} = 3 AND 1"),
    *("SELECT {0} FROM held GROUP BY {0} HAVING {0} = 7 ORDER BY {0} DESC", "SELECT a + {} - a FROM held"),
    *("SELECT CASE WHEN {0} = 7 THEN {0} ELSE 0 END FROM held", "SELECT (SELECT {} FROM held)"),
    *("SELECT {} FROM held JOIN held AS again USING ({})".replace("{}", "{0}"), "SELECT x.{0} FROM held x"),
)
TABLE_QUERIES = (
    *("SELECT a FROM {}", "SELECT {0}.a FROM {0}", "SELECT {0}.* FROM {0}", "SELECT x.a FROM {} AS x"),
    *("SELECT x.a FROM {} x", "SELECT x.a FROM held x JOIN {0} ON x.a = {0}.a", "SELECT x.a FROM held x, {}"),
    *("SELECT x.a FROM {0} LEFT JOIN held x ON x.a = {0}.a", "SELECT a FROM {0} WHERE {0}.a = 7"),
    *("SELECT a FROM {0} ORDER BY {0}.a LIMIT 1", "SELECT a FROM {} UNION SELECT a FROM {}".replace("{}", "{0}")),
)


def means_seven(connection: sqlite3.Connection, query: str, name: str) -> bool:
    try:
        return {value for row in connection.execute(query.format(name)) for value in row} == {7}
    except sqlite3.OperationalError:
        return False


@pytest.mark.parametrize("word", KEYWORDS)
def test_a_name_is_bare_only_where_sqlite_reads_it_everywhere(tmp_path, word):
    database = made(
        tmp_path,
        f"CREATE TABLE held (a INT, `{word}` INT); INSERT INTO held VALUES (7, 7);"
        f"CREATE TABLE `{word}` (a INT); INSERT INTO `{word}` VALUES (7);",
    )
    name = quoted(word)
    connection = sqlite3.connect(database)
    for query in (*COLUMN_QUERIES, *TABLE_QUERIES):
        assert means_seven(connection, query, name), query
    text = schema_text(database, "ddl", 1)
    assert f"  {name} INT -- e.g. 7\n" in text
    copy = sqlite3.connect(":memory:")
    copy.executescript(text)
    assert [row[1] for row in copy.execute("PRAGMA table_info(held)")] == ["a", word]


@pytest.mark.parametrize(
    "word", "CAST current_date Current_Time CURRENT_TIMESTAMP except IF nothing null raise returning true with".split()
)
def test_a_word_that_means_something_else_is_quoted(word):
    assert quoted(word) == f"`{word}`"


def test_example_values_are_literals_that_find_their_rows(tmp_path):
    database = made(
        tmp_path,
        "CREATE TABLE t (a REAL, b TEXT, c TEXT COLLATE NOCASE, d INT, e BLOB);"
        "INSERT INTO t VALUES (9e999, CAST(x'4dfc6e' AS TEXT), 'Abc', 9223372036854775807, x'41'),"
        " (-9e999, 'M\N{REPLACEMENT CHARACTER}n', 'abc', -9223372036854775808, x'42'),"
        " (0.1, 'Mün', '', NULL, x''), (1e300, 'tab\there', '', NULL, x'');",
    )
    connection = sqlite3.connect(database)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    shown = {column.name: column.examples for column in SchemaReader(9).read(database)}
    assert shown == {
        "a": ("0.1", "1e+300"),
        "b": ("'Mün'",),
        "c": ("'Abc'", "'abc'"),
        "d": ("-9223372036854775808", "9223372036854775807"),
        "e": (),
    }
    for name, examples in shown.items():
        for example in examples:
            assert connection.execute(f"SELECT count(*) FROM t WHERE {name} = {example}").fetchone()[0] >= 1


def test_a_column_that_cannot_be_read_has_no_examples_and_an_absent_collation_does_not_matter(tmp_path):
    file = tmp_path / "made.sqlite"
    connection = sqlite3.connect(file)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.create_function("mine", 1, abs, deterministic=True)
    connection.executescript(
        "CREATE TABLE t (a TEXT COLLATE german, b TEXT COLLATE german UNIQUE, c INT, d INT AS (mine(c)));"
        "INSERT INTO t (a, b, c) VALUES ('x', 'y', 1);"
    )
    connection.close()
    assert schema_text(str(file), "compact", 1) == "t(a 'x', b 'y', c 1, d)"


def test_reading_example_values_is_bounded(tmp_path):
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS x FROM c"
    database = made(
        tmp_path,
        f"CREATE TABLE dog (name TEXT); INSERT INTO dog VALUES ('rex'); CREATE VIEW endless AS {endless};"
        "CREATE VIRTUAL TABLE search USING fts5(x, content='endless', content_rowid='x');",
    )
    begun = time.process_time()
    assert schema_text(database, "compact", 1) == "dog(name 'rex')\nsearch(x)\nendless(x)"
    assert time.process_time() - begun < READ_STEPS / 100_000


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
