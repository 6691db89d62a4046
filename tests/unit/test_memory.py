"""The memory component: known cosines, the gate on a real schema, snapshots, order, exact restoring, exclusions."""

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conf.schema.reward import HashingEmbedder as HashingSettings
from conf.schema.reward import MemoryReward, SentenceTransformersEmbedder
from rewards.carriers import SqlTask
from rewards.components.copies import is_copy
from rewards.components.memory import MemoryComponent, bigram_ratio, column_mentions, column_phrases
from rewards.embedders.base import EmbedderUnavailable, Vectors, unit_rows
from rewards.embedders.builder import build_embedder
from rewards.embedders.hashing import HashingEmbedder
from rewards.memory_store import MemoryStoreInvalid, TraceStore, VerifiedTrace
from rewards.neighbours import EXACT_LIMIT, ApproximateIndex, ExactIndex, IndexUnavailable

ROOT = Path(__file__).resolve().parents[2]
GOOD = (
    "The question asks for the first name of each singer, so first_name is needed from the singer table. "
    "It also restricts the birth year: birth_year must be above 1980. Sorting by song count descending "
    "then gives the wanted singer, and first_name together with birth_year is returned."
)


class ByLetter:
    """Vectors that can be reckoned by hand: one axis for each of the letters a to d."""

    name = "by-letter"
    dimensions = 4

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = [[text.count(letter) for letter in "abcd"] for text in texts]
        return unit_rows(np.array(counts, dtype=np.float32).reshape(-1, 4))


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "music.sqlite"
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE singer (first_name TEXT, birth_year INT, "Song Count (total)" INT)')
    connection.close()
    return str(path)


def task(number: int, database: str = "-", db_id: str = "music") -> SqlTask:
    return SqlTask(id=f"t{number}", db_id=db_id, question="?", gold_sqls=("SELECT 1",), databases=(database,))


def trace(number: int, reasoning: str, db_id: str = "other", correct: bool = True) -> VerifiedTrace:
    return VerifiedTrace(task_id=f"t{number}", db_id=db_id, reasoning=reasoning, correct=correct)


def component(**changes: object) -> MemoryComponent:
    return MemoryComponent(MemoryReward.model_validate(changes), ByLetter())


def test_cosine_to_the_centroid_of_the_nearest() -> None:
    memory = component(neighbours=2)
    memory.remember([trace(1, "a"), trace(2, "b"), trace(3, "c")])
    # nearest to a^2 b: (1,0,0,0) and (0,1,0,0); their mean is (.5,.5,0,0); cosine (2+1)/sqrt(5)/sqrt(2)
    assert memory.score(task(9), ["aab" * 20], [False]) == pytest.approx([3 / np.sqrt(10)], abs=1e-6)


def test_right_is_1_short_is_0_and_so_is_an_empty_store() -> None:
    memory = component()
    long = "ab" * 20
    assert memory.score(task(1), [long, long], [True, False]) == [1.0, 0.0]
    memory.remember([trace(2, "ab")])
    assert memory.score(task(1), [long, "ab" * 15, "ab" * 15 + "a"], [False] * 3)[:2] == [1.0, 0.0]
    assert memory.score(task(1), ["ab" * 15 + "a"], [False])[0] > 0.99


def test_own_question_and_own_database_are_left_out() -> None:
    long = "a" * 40
    memory = component()
    memory.remember([trace(1, "a", db_id="music")])
    assert memory.score(task(2), [long], [False]) == [0.0]
    same = component(same_database=True)
    same.remember([trace(1, "a", db_id="music"), trace(2, "b", db_id="music")])
    assert same.score(task(2), [long], [False]) == [1.0]
    assert same.score(task(1), [long], [False]) == [0.0]


def test_failed_traces_are_deducted_only_on_request() -> None:
    plain, contrast = component(), component(keep_failed=True)
    for memory in (plain, contrast):
        memory.remember([trace(1, "b"), trace(2, "a", correct=False)])
    good, bad = 3 / np.sqrt(13), 2 / np.sqrt(13)
    assert plain.score(task(9), ["aabbb" * 9], [False]) == pytest.approx([good], abs=1e-6)
    assert contrast.score(task(9), ["aabbb" * 9], [False]) == pytest.approx([good], abs=1e-6)
    good, bad = 2 / np.sqrt(13), 3 / np.sqrt(13)
    assert plain.score(task(9), ["aaabb" * 9], [False]) == pytest.approx([good], abs=1e-6)
    assert contrast.score(task(9), ["aaabb" * 9], [False]) == pytest.approx([good - (bad - good)], abs=1e-6)
    assert len(contrast) == 1


OTHER = (
    "We need the number of stadiums that hosted a concert after the year 2014. The concert table keeps the year and "
    "the stadium id, so I filter it by year, join it with the stadium table on the id and count distinct stadium ids."
)
COPIES = {
    "verbatim": GOOD,
    "case": GOOD.upper(),
    "white space": "\n\n".join(GOOD.split()),
    "punctuation": GOOD.replace(".", " -").replace(",", ";"),
    "a word put in": GOOD.replace("restricts", "clearly restricts"),
    "a word left out": GOOD.replace("also ", ""),
    "a word exchanged": GOOD.replace("wanted", "required"),
    "cut at the end": GOOD[:120],
    "cut at both ends": GOOD[60:200],
    "cut, and a word put in": " ".join([*GOOD.split()[:10], "then", *GOOD.split()[10:20]]),
    "two in a row": f"{GOOD} {OTHER}",
    "two halves": f"{GOOD[:150]} {OTHER[100:]}",
    "sentences exchanged": " ".join(GOOD.split(". ")[::-1]),
    "between other words": f"{'This is what I think of it. ' * 9}{GOOD}{' So be it, as we have seen.' * 9}",
}
HONEST = (
    "The question asks for the name of each dog, so name is needed from the dog table. Its age must be above 7, which "
    "is a plain condition, and no other table has to be joined. The rows come in no particular order."
)


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_copied_reasoning_is_paid_as_published_and_nothing_where_copies_are_not(copy: str) -> None:
    published, strict = (MemoryComponent(MemoryReward(copy_overlap=share)) for share in (None, 0.7))
    for memory in (published, strict):
        memory.remember([trace(1, GOOD), trace(2, OTHER, db_id="another")])
    assert strict.score(task(9), [copy], [False]) == [0.0]
    assert published.score(task(9), [copy], [False])[0] > 0.4
    assert strict.score(task(9), [copy], [None]) == [0.0]


def test_reasoning_of_its_own_words_is_paid_the_same_with_and_without_the_look_at_copies() -> None:
    published, strict = (MemoryComponent(MemoryReward(copy_overlap=share)) for share in (None, 0.7))
    for memory in (published, strict):
        memory.remember([trace(1, GOOD), trace(2, OTHER, db_id="another")])
    assert strict.score(task(9), [HONEST], [False]) == published.score(task(9), [HONEST], [False])
    assert strict.score(task(9), [HONEST], [False])[0] > 0.3


def test_copies_are_those_of_traces_that_pay() -> None:
    memory = MemoryComponent(MemoryReward(copy_overlap=0.7))
    memory.remember([trace(1, GOOD, db_id="music"), trace(2, OTHER, db_id="another")])
    (own_database,) = memory.score(task(9), [GOOD], [False])
    assert 0.0 < own_database < 0.5  # nearness to OTHER alone


def test_shares_of_runs_by_hand() -> None:
    # a b c d e has two runs of four words, b c d e f shares one of them, and so does a string of both
    assert is_copy("a b c d e", ["b c d e f"], 0.5)
    assert not is_copy("a b c d e", ["b c d e f"], 0.51)
    assert is_copy("a b c d e", ["b c d e f", "A, b. c-d"], 1.0)
    assert is_copy("one two a b c d e three four", ["a b c d e"], 1.0)
    assert not is_copy("", ["a b c d"], 0.1)
    assert not is_copy("a b c d", ["", "!"], 0.1)
    assert is_copy("Ab", ["ab"], 1.0)


def test_an_answer_that_does_not_run_is_paid_only_as_published() -> None:
    long = "ab" * 20
    for needs, expected in ((False, [1.0, 1.0]), (True, [0.0, 1.0])):
        memory = component(needs_execution=needs)
        memory.remember([trace(2, "ab")])
        assert memory.score(task(1), [long, long], [False, False], runs=[False, True]) == pytest.approx(expected)


def test_gate_takes_columns_from_the_schema(database: str) -> None:
    memory = MemoryComponent(MemoryReward())
    without_columns = GOOD.replace("first_name", "it").replace("birth_year", "that").replace("first name", "thing")
    without_columns = without_columns.replace("birth year", "date").replace("song count", "sum")
    few_words = "first_name birth_year " * 5
    repeated = ("first_name of singer " * 30).strip()
    reasonings = [GOOD, without_columns, few_words, repeated, GOOD]
    assert memory.score(task(1, database), reasonings, [True] * 4 + [False])[:4] == [1.0] * 4
    assert [t.reasoning for t in memory.take_verified()] == [GOOD]
    assert memory.take_verified() == []


def test_mentions_and_ratio_by_hand() -> None:
    phrases = column_phrases(["first_name", "name", "Song Count (total)"])
    assert column_mentions("The first name, Name and FIRST_NAME; song count (total) but not song count", phrases) == 4
    assert column_mentions("surname filename", phrases) == 0
    assert bigram_ratio("a b a b".split()) == pytest.approx(2 / 3)


def test_scores_use_the_state_before_the_batch(database: str) -> None:
    memory = MemoryComponent(MemoryReward())
    other = task(2, database, db_id="elsewhere")
    before = memory.score(other, [GOOD + " so"], [False])
    memory.score(task(1, database), [GOOD], [True])
    assert memory.score(other, [GOOD + " so"], [False]) == before == [0.0]
    assert memory.remember(memory.take_verified()) == 1
    assert memory.score(other, [GOOD + " so"], [False])[0] > 0.9


def test_near_duplicates_are_not_added_whatever_the_order() -> None:
    traces = [trace(n, text) for n, text in enumerate(("aaaab", "aaaac", "b", "aab", "c", "cccd", "cd"))]
    stores = [TraceStore(ByLetter(), duplicate_cosine=0.9) for _ in range(2)]
    assert stores[0].add(traces) == stores[1].add(traces[::-1]) == 4
    # cosines: aaaab and aaaac 16/17, aaaab and aab 9/sqrt(85), c and cccd 3/sqrt(10); c and cd only 1/sqrt(2)
    kept = [[t.reasoning for t in store._shelves[True].traces] for store in stores]
    assert kept[0] == kept[1] == ["aaaab", "b", "c", "cd"]


def test_a_restored_store_gives_the_same_scores(tmp_path: Path, database: str) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(300)]
    texts = [" ".join(rng.choice(words, 40)) for _ in range(200)]
    memory = MemoryComponent(MemoryReward(keep_failed=True))
    memory.remember([trace(n, text, db_id=f"d{n % 7}", correct=n % 3 > 0) for n, text in enumerate(texts)])
    memory.save(tmp_path / "folder" / "memory.sqlite")
    restored = MemoryComponent(MemoryReward(keep_failed=True, store=str(tmp_path / "folder" / "memory.sqlite")))
    queries = [" ".join(rng.choice(words, 40)) for _ in range(50)]
    scores = memory.score(task(1, database), queries, [False] * 50)
    assert len(set(scores)) > 40
    assert restored.score(task(1, database), queries, [False] * 50) == scores
    assert memory.score(task(1, database), queries[::-1], [False] * 50) == scores[::-1]
    assert [memory.score(task(1, database), [query], [False])[0] for query in queries] == scores
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["memory.sqlite"]
    more = [trace(1000 + n, text, db_id="new") for n, text in enumerate(queries)]
    assert restored.remember(more) == memory.remember(more)
    assert restored.score(task(2, database), queries, [False] * 50) == memory.score(
        task(2, database), queries, [False] * 50
    )


def test_a_store_of_another_embedder_or_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    component().save(path)
    memory = MemoryComponent(MemoryReward())
    memory.remember([trace(1, GOOD)])
    with pytest.raises(MemoryStoreInvalid, match="by-letter"):
        memory.load(path)
    (tmp_path / "text").write_text("no database " * 200)
    with pytest.raises(MemoryStoreInvalid, match="no memory store"):
        memory.load(tmp_path / "text")
    with pytest.raises(MemoryStoreInvalid, match="there is no"):
        memory.load(tmp_path / "missing")
    assert len(memory) == 1


def test_saving_replaces_the_file_and_a_failed_save_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.sqlite"
    memory = component()
    memory.remember([trace(1, "a")])
    memory.save(path)
    before = path.read_bytes()
    memory.remember([trace(2, "b")])

    def full(number: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        memory.save(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    memory.save(path)
    fresh = component()
    fresh.load(path)
    assert len(fresh) == 2


def test_hashing_does_not_depend_on_the_process() -> None:
    program = (
        "from rewards.embedders.hashing import HashingEmbedder;"
        "import hashlib;v=HashingEmbedder(64).embed(['Some words, some more words.','','\\ud800 ü']);"
        "print(hashlib.sha256(v.tobytes()).hexdigest())"
    )
    digests = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_hashing_vectors() -> None:
    embedder = HashingEmbedder(512)
    vectors = embedder.embed(["join singer with song", "singer joins songs", "group by year having count", ""])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_exact_index_by_hand() -> None:
    index = ExactIndex(2)
    index.add(np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], dtype=np.float32))
    query = np.array([[1, 0]], dtype=np.float32)
    everything = np.ones(4, dtype=np.bool_)
    assert index.search(query, 3, everything)[0].tolist() == [0, 3, 2]
    assert index.search(query, 3, np.array([False, True, True, False]))[0].tolist() == [2, 1]
    assert index.search(query, 3, np.zeros(4, dtype=np.bool_))[0].tolist() == []
    assert index.nearest_cosine(query).tolist() == [1.0]


def test_beyond_the_limit_the_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("rewards.memory_store.EXACT_LIMIT", 1)
    store = TraceStore(ByLetter(), duplicate_cosine=0.9)
    store.add([trace(1, "a")])
    with pytest.raises(IndexUnavailable, match="faiss-cpu"):
        store.add([trace(2, "b")])
    assert len(store) == 1
    assert EXACT_LIMIT == 100_000


def test_approximate_index_finds_the_exact_neighbours() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows = unit_rows(rng.normal(size=(3000, 16)).astype(np.float32))
    queries = unit_rows(rng.normal(size=(40, 16)).astype(np.float32))
    exact, approximate = ExactIndex(16), ApproximateIndex(16)
    exact.add(rows)
    approximate.add(rows)
    allowed = rng.random(3000) > 0.3
    found = zip(exact.search(queries, 20, allowed), approximate.search(queries, 20, allowed), strict=True)
    overlap = [len(set(a.tolist()) & set(b.tolist())) for a, b in found]
    assert np.mean(overlap) > 19
    assert (approximate.vectors(np.arange(3000)) == rows).all()


def test_a_missing_package_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderUnavailable, match="use the type hashing"):
        build_embedder(SentenceTransformersEmbedder(model="any"))
    assert build_embedder(HashingSettings(dimensions=32)).dimensions == 32
