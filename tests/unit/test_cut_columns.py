"""Columns that prompts leave out: which, for which questions, and which golds need one of them."""

import json
import sqlite3
from pathlib import Path

import pytest

from benchmarks.carriers import Question
from benchmarks.generation.policy import _tell
from conf.load import load
from conf.schema.benchmark import BirdBenchmark
from conf.schema.prompt import PromptConfig
from operate.ask.__main__ import unshown
from records.run_folder import RunFolder
from rewards.carriers import SqlTask
from rewards.sql.reads import ColumnsRead
from rollout.carriers import Prompt
from rollout.prompt import PromptRenderer
from rollout.prompt.cut import CutPrompt, cut_prompts, cut_sentence
from tests.unit.test_prompt import WordTokenizer
from trainer.data import PreparedData

CONFIG = PromptConfig(schema_format="columns", template="bare", example_values=0, thinking=False)


@pytest.fixture
def database(tmp_path: Path) -> str:
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, "Zip Code" TEXT, note TEXT);
            CREATE TABLE sale (id INTEGER PRIMARY KEY, customer_id INT REFERENCES customer (id), amount REAL, day TEXT);
            CREATE VIEW dear AS SELECT id, amount, day FROM sale WHERE amount > 9;
            """
        )
    connection.close()
    return str(file)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT Name FROM customer", {"customer.name"}),
        ("SELECT * FROM customer", {"customer.id", "customer.name", "customer.zip code", "customer.note"}),
        ("SELECT count(*) FROM customer", set()),
        ("SELECT \"zip code\" FROM customer AS c WHERE c.note IS NULL -- n", {"customer.zip code", "customer.note"}),
        ("SELECT day FROM dear", {"dear.day"}),
        ("WITH q AS (SELECT amount AS a, day FROM sale) SELECT a FROM q", {"sale.amount", "sale.day"}),
        ("SELECT 1 FROM customer JOIN sale USING (id)", {"customer.id", "sale.id"}),
        ("SELECT name FROM customer NATURAL JOIN sale", {"customer.id", "customer.name", "sale.id"}),
        ("SELECT name FROM customer WHERE EXISTS (SELECT 1 FROM sale WHERE customer_id = customer.id)",
         {"customer.name", "customer.id", "sale.customer_id"}),
        ("SELECT size FROM customer", None),
        ("SELECT name FROM customer; SELECT note FROM customer", None),
        ("", None),
    ],
)  # fmt: skip
def test_columns_that_a_query_reads(sql: str, columns: set[str] | None, database: str) -> None:
    found = ColumnsRead().of(database, sql)
    assert (None if found is None else {".".join(read) for read in found}) == columns


def task(name: str, database: str, *golds: str, question: str = "What is the total amount?") -> SqlTask:
    return SqlTask(id=name, db_id="shop", question=question, gold_sqls=golds, databases=(database,))


def rendered(database: str, budget: int) -> list[Prompt]:
    renderer = PromptRenderer(CONFIG.model_copy(update={"max_tokens": budget}), WordTokenizer())
    return [
        renderer.render(task("amount", database, "SELECT sum(amount) FROM sale", "SELECT total(amount) FROM dear")),
        renderer.render(task("note", database, "SELECT note FROM customer", "SELECT name FROM customer")),
        renderer.render(task("names", database, "SELECT name, day FROM customer, sale")),
    ]


def test_what_is_left_out_is_counted_with_the_golds_that_need_it(database: str, tmp_path: Path) -> None:
    whole = rendered(database, 1000)
    length = whole[0].whole_tokens
    assert [prompt.cut_columns for prompt in whole] == [()] * 3
    assert length == len(whole[0].token_ids)
    assert cut_prompts(whole) == ()
    # Four lines of two words each must go: no word of theirs is asked for, and ties go from the schema's end.
    prompts = rendered(database, length - 8)
    cut = cut_prompts(prompts)
    assert [one.id for one in cut] == ["amount", "note", "names"]
    assert {one.columns for one in cut} == {("customer.note", "sale.day", "dear.id", "dear.day")}
    assert [one.whole_tokens for one in cut] == [length] * 3
    assert [one.golds_that_need_them for one in cut] == [(), (1,), (1,)]
    for prompt in prompts:
        assert not {line.split(":")[0] for line in prompt.text.splitlines()} & set(cut[0].columns)


def test_a_known_cut(database: str, tmp_path: Path) -> None:
    def prompt(name: str, cut: tuple[tuple[str, str], ...], tokens: int, *golds: str) -> Prompt:
        return Prompt(
            task=task(name, database, *golds), text="", token_ids=(1,), dropped_columns=len(cut), cut_columns=cut,
            whole_tokens=tokens,
        )  # fmt: skip

    prompts = [
        prompt("easy", (("customer", "note"),), 310, "SELECT name FROM customer"),
        prompt("whole", (), 90, "SELECT note FROM customer"),
        prompt("either", (("customer", "note"),), 300, "SELECT name FROM customer", "SELECT note FROM customer"),
        prompt("lost", (("customer", "Zip Code"), ("sale", "day")), 280, "SELECT `ZIP CODE` FROM customer"),
        prompt("odd", (("sale", "day"),), 270, "SELECT nothing FROM nowhere"),
    ]
    cut = cut_prompts(prompts)
    assert [(one.id, one.golds_that_need_them) for one in cut] == [
        ("easy", ()),
        ("either", (2,)),
        ("lost", (1,)),
        ("odd", ()),
    ]
    assert cut[2].columns == ("customer.`Zip Code`", "sale.day")
    sentence = (
        "4 of 5 training prompts leave columns of their schema out for prompt.max_tokens=192 (whole, the longest takes "
        "310), and 2 of 6 golds need such a column: either, lost, easy, ... (runs/x/cut_columns.jsonl)"
    )
    file = Path("runs/x/cut_columns.jsonl")
    assert cut_sentence(cut, prompts=prompts, of="training", limit=192, file=file) == sentence
    data = PreparedData(
        stream=None, prompts={p.task.id: p for p in prompts}, heldout=(), dropped=(), cut={"training": cut}
    )
    assert list(data.cut_sentences(192, file)) == [sentence]
    with RunFolder(tmp_path / "run") as folder:
        folder.write_cut(cut)
    rows = [json.loads(line) for line in (tmp_path / "run" / "cut_columns.jsonl").read_text().splitlines()]
    assert [(row["id"], row["golds"], row["golds_that_need_them"]) for row in rows] == [
        ("easy", 1, []),
        ("either", 2, [2]),
        ("lost", 1, [1]),
        ("odd", 1, []),
    ]


def test_ask_and_benchmarks_tell_it_too(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.model_copy(update={"max_tokens": 33})
    renderer = PromptRenderer(config, WordTokenizer())
    asked = {"key": 7, "db_id": "shop", "question": "What is the total amount?", "databases": (database,)}
    prompt = renderer.render(Question(position=0, gold="SELECT day FROM dear", **asked).task("bird"))
    assert unshown(prompt, config) == (
        "the policy does not see 2 columns of this database: the prompt would take 37 tokens, and the run was trained "
        "with prompt.max_tokens=33 (raise it in the next one); left out: dear.id, dear.day"
    )
    assert unshown(rendered(database, 37)[0], config) == ""
    settings = ["model.path=x", "prompt.max_tokens=33", "data.root=x", "output=x"]
    _tell(load(BirdBenchmark, "benchmark_bird", settings), renderer, [prompt], tmp_path)
    assert capsys.readouterr().err == (
        "1 of 1 question prompts leave columns of their schema out for prompt.max_tokens=33 (whole, the longest takes "
        f"37), and 1 of 1 golds needs such a column: bird-7 ({tmp_path}/cut_columns.jsonl)\n"
    )
    assert json.loads((tmp_path / "cut_columns.jsonl").read_text())["columns"] == ["dear.id", "dear.day"]


def test_what_a_terminal_would_obey_is_shown_as_text() -> None:
    prompt = Prompt(
        task=task("a\x1b[2Jb", "none.sqlite"), text="", token_ids=(1,), cut_columns=(("t", "c\x1b]0;x\x07"),)
    )
    told = unshown(prompt, CONFIG)
    assert told.isprintable()
    assert r"\x1b]0;x\x07" in told
    cut = [CutPrompt(id="a\x1b[2Jb", split="train", columns=(), whole_tokens=9, golds=1, golds_that_need_them=())]
    assert cut_sentence(cut, prompts=[prompt], of="training", limit=1, file=Path("f")).isprintable()
