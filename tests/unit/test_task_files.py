"""Spider, BIRD and jsonl files: what they yield, and the one clear message when they cannot be used."""

import json
from pathlib import Path

import pytest

from conf.schema.data import BirdData, JsonlData, SpiderData
from rollout.tasks import DataError, Trace, load_tasks
from tests.dogs import write_dogs

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"


def make_database(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_dogs(file, [("Rex", 3), ("Ada", 5)])


@pytest.fixture
def spider(tmp_path):
    for name in ("dogs", "dogs_v2", "dogs_a"):
        make_database(tmp_path / "database" / "dogs" / f"{name}.sqlite")
    entries = [
        {"db_id": "dogs", "question": f"Question {index}?", "query": f"SELECT {index} FROM dog"} for index in range(10)
    ]
    entries[4]["db_id"] = "cats"
    (tmp_path / "dev.json").write_text(json.dumps(entries))
    return tmp_path


def write_lines(file: Path, *lines: object) -> Path:
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_spider_instances_start_with_the_primary(spider):
    tasks = load_tasks(SpiderData(root=str(spider), train_file="dev.json"))
    names = [Path(path).name for path in tasks.heldout[0].databases]
    assert names == ["dogs.sqlite", "dogs_a.sqlite", "dogs_v2.sqlite"]
    assert tasks.heldout[3].gold_sqls == ("SELECT 3 FROM dog",)
    assert (tasks.heldout[3].split, tasks.train[3].split) == ("heldout", "train")
    assert not {task.id for task in tasks.heldout} & {task.id for task in tasks.train}


def test_spider_reports_the_missing_database_and_keeps_the_rest(spider):
    tasks = load_tasks(SpiderData(root=str(spider), train_file="dev.json"))
    assert len(tasks.train) == len(tasks.heldout) == 9
    assert tasks.dropped_counts() == {"database missing": 2}
    assert "dev.json entry 4" in tasks.dropped[0].detail
    assert "cats.sqlite" in tasks.dropped[0].detail


def test_training_reads_entries_with_and_without_ids(tmp_path):
    """Train files have no question_id and dev files have one; what is joined from both trains, named by place."""
    make_database(tmp_path / "dev_databases" / "dogs" / "dogs.sqlite")
    entry = {"db_id": "dogs", "question": "How many?", "SQL": "SELECT count(*) FROM dog"}
    (tmp_path / "dev.json").write_text(json.dumps([entry, {**entry, "question_id": 7}, {**entry, "question_id": None}]))
    tasks = load_tasks(BirdData(root=str(tmp_path), train_file="dev.json", train_databases="dev_databases"))
    assert [task.id for task in tasks.train] == [f"bird-train-{place}" for place in range(3)]


def test_limits_are_spread_over_the_file(spider):
    tasks = load_tasks(SpiderData(root=str(spider), train_file="dev.json", train_limit=2))
    assert [task.gold_sqls[0] for task in tasks.train] == ["SELECT 0 FROM dog", "SELECT 5 FROM dog"]


def test_a_missing_training_file_says_what_to_set(spider):
    with pytest.raises(DataError, match="train_spider.json is missing and only dev.json is there.*data.train_file=dev"):
        load_tasks(SpiderData(root=str(spider)))
    with pytest.raises(DataError, match="data.train_file=dev.json data.train_databases=dev_databases"):
        load_tasks(BirdData(root=str(spider)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"db_id": "dogs",\n "question": }]', "dev.json line 2 column 14: not valid JSON"),
        ('{"db_id": "dogs"}', "a JSON list of questions is expected, not a dict"),
        (
            '[{"db_id": "dogs", "question": "q"}]',
            r"dev.json entry 0: key 'query' is missing \(found: db_id, question\)",
        ),
        ('[{"db_id": "dogs", "question": 3, "query": "x"}]', "dev.json entry 0: 'question' must be a string, not int"),
        ('[{"db_id": "dogs", "question": " ", "query": "x"}]', "dev.json entry 0: 'question' is empty"),
        ("[" * 200_000, "dev.json line 1: JSON that cannot be read: maximum recursion depth"),
        (f"[{'1' * 5000}]", "dev.json line 1: JSON that cannot be read: Exceeds the limit"),
        ('[{"db_id": "dogs", "question": "\\ud800", "query": "x"}]', "entry 0: 'question' holds half of a surrogate"),
        ("[7]", "dev.json entry 0: a JSON object is expected, not a int"),
        ('[{"db_id": "cats", "question": "q", "query": "x"}]', "no training task remains: 2 x database missing"),
    ],
)
def test_bad_files_name_the_place(spider, text, message):
    (spider / "dev.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_tasks(SpiderData(root=str(spider), train_file="dev.json"))


def test_bird_carries_evidence_and_difficulty(tmp_path):
    make_database(tmp_path / "dev_databases" / "dogs" / "dogs.sqlite")
    entry = {"db_id": "dogs", "question": "q", "evidence": "hint", "SQL": "SELECT 1", "difficulty": "simple"}
    (tmp_path / "dev.json").write_text(json.dumps([entry, {**entry, "evidence": None, "difficulty": None}]))
    config = BirdData(root=str(tmp_path), train_file="dev.json", train_databases="dev_databases")
    first, second = load_tasks(config).heldout
    assert (first.evidence, first.difficulty, first.denotation) == ("hint", "simple", "bird")
    assert (second.evidence, second.difficulty) == ("", None)


def test_jsonl_fields(tmp_path):
    make_database(tmp_path / "pets.sqlite")
    make_database(tmp_path / "more" / "dogs" / "dogs.sqlite")
    train = write_lines(
        tmp_path / "train.jsonl",
        {"question": "a", "database": "pets.sqlite", "sql": "SELECT 1", "trace": "<think>easy</think>SELECT 2"},
        "",
        {"question": "b", "db_id": "dogs", "sql": ["SELECT 1", "SELECT 2"], "id": "mine", "evidence": "e"},
        {
            "question": "c",
            "databases": ["pets.sqlite", "more/dogs/dogs.sqlite"],
            "sql": "SELECT 3",
            "trace": "SELECT 4",
        },
    )
    tasks = load_tasks(JsonlData(train=str(train), databases=str(tmp_path / "more")))
    first, second, third = tasks.train
    assert (first.id, first.db_id, first.databases) == ("jsonl-train-0", "pets", (str(tmp_path / "pets.sqlite"),))
    assert (second.id, second.gold_sqls, second.evidence) == ("mine", ("SELECT 1", "SELECT 2"), "e")
    assert len(third.databases) == 2
    assert tasks.traces == {
        "jsonl-train-0": Trace(reasoning="easy", sql="SELECT 2"),
        "jsonl-train-2": Trace(reasoning="", sql="SELECT 4"),
    }
    assert tasks.heldout == ()
    assert tasks.warmup == tasks.train


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "train.jsonl line 2 column 2: not valid JSON"),
        ('{"sql": ' + "[" * 200_000, "train.jsonl line 2: JSON that cannot be read: maximum recursion depth"),
        ({"question": "q", "sql": "x"}, "line 2: a question needs 'database'"),
        ({"question": "q", "sql": "x", "db_id": "dogs"}, "names db_id 'dogs', so data.databases must name the folder"),
        ({"question": "q", "sql": [], "database": "pets.sqlite"}, "'sql' must be a string or a list of non-empty"),
        ({"question": "q", "sql": ["x", "\ud800"], "database": "pets.sqlite"}, "line 2: 'sql' holds half of a surrog"),
        ({"question": "q", "sql": ["x", 3], "database": "pets.sqlite"}, "line 2: 'sql' must be a string, not int"),
        ({"question": "q", "gold": "x", "database": "pets.sqlite"}, "line 2: unknown key 'gold'"),
        ({"question": "q", "sql": "x", "database": "pets.sqlite", "id": "one"}, "line 2: id 'one' is used twice"),
        ({"question": "q", "sql": "x", "database": "pets.sqlite", "trace": "<think>x"}, "'trace' must be <think>"),
    ],
)
def test_bad_lines_name_the_line(tmp_path, line, message):
    make_database(tmp_path / "pets.sqlite")
    good = {"question": "q", "database": "pets.sqlite", "sql": "SELECT 1", "id": "one"}
    train = write_lines(tmp_path / "train.jsonl", good, line)
    with pytest.raises(DataError, match=message):
        load_tasks(JsonlData(train=str(train)))


def test_an_absent_or_binary_file_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="none.jsonl: cannot be read: No such file"):
        load_tasks(JsonlData(train=str(tmp_path / "none.jsonl")))
    (tmp_path / "bin.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 text at byte 0"):
        load_tasks(JsonlData(train=str(tmp_path / "bin.jsonl")))


@pytest.mark.parametrize("name", ["d" * 300, "dogs\0"])
def test_a_name_that_no_file_can_have_is_a_missing_database(tmp_path, name):
    good = {"question": "q", "database": "dogs.sqlite", "sql": "SELECT 1"}
    make_database(tmp_path / "dogs.sqlite")
    by_id = {"question": "q", "db_id": name, "sql": "SELECT 1"}
    by_path = {"question": "q", "database": f"{name}.sqlite", "sql": "SELECT 1"}
    tasks = load_tasks(
        JsonlData(train=str(write_lines(tmp_path / "train.jsonl", good, by_id, by_path)), databases=str(tmp_path))
    )
    assert (len(tasks.train), tasks.dropped_counts()) == (1, {"database missing": 2})
    entries = [{"db_id": name, "question": "q", "query": "SELECT 1"}]
    (tmp_path / "dev.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match="no training task remains: 2 x database missing"):
        load_tasks(SpiderData(root=str(tmp_path), train_file="dev.json"))


@pytest.mark.skipif(not (PUBLIC / "spider" / "dev.json").is_file(), reason="the public questions are not here")
def test_public_files_load_whole():
    spider = load_tasks(SpiderData(root=str(PUBLIC / "spider"), train_file="dev.json"))
    assert (len(spider.heldout), spider.dropped) == (1034, ())
    assert {len(task.databases) for task in spider.heldout} == {2}
    bird = load_tasks(
        BirdData(root=str(PUBLIC / "bird"), train_file="dev.json", train_databases="dev_databases", train_limit=100)
    )
    assert (len(bird.train), len(bird.heldout), bird.dropped) == (100, 1534, ())
    assert len({task.db_id for task in bird.train}) == 11
