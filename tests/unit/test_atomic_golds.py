"""The atomic similarity on real gold queries: themselves, rewritings that keep their meaning, mutants that change it,
and recorded predictions against what SQLite returns. Unit runs take a sample; the integration run takes all."""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from sqlglot import exp

from rewards.components.atomic import AtomicComparer
from rewards.instances.mutants import mutants
from rewards.sql.parse import has_top_level_order_by, lex, parse_query
from rewards.sql.schema import DatabaseSchema, read_schema

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "spider/dev.json").is_file(), reason="no data kit beside the repository")
SAMPLE = [pytest.param(61, id="sample"), pytest.param(1, id="all", marks=pytest.mark.integration)]


@dataclass(frozen=True)
class Gold:
    sql: str
    database: Path
    predictions: tuple[str, ...]


@cache
def golds() -> tuple[Gold, ...]:
    found = []
    spider = [(DATA / f"predictions/spider-codes-{size}.txt").read_text().splitlines() for size in ("3b", "15b")]
    for number, row in enumerate(json.loads((DATA / "spider/dev.json").read_text())):
        path = DATA / "spider/database" / row["db_id"] / f"{row['db_id']}.sqlite"
        found.append(Gold(row["query"], path, tuple(lines[number] for lines in spider)))
    bird = [json.loads((DATA / f"predictions/bird-codes-{size}.json").read_text()) for size in ("3b", "15b")]
    for number, row in enumerate(json.loads((DATA / "bird/dev.json").read_text())):
        path = DATA / "bird/dev_databases" / row["db_id"] / f"{row['db_id']}.sqlite"
        found.append(Gold(row["SQL"], path, tuple(p[str(number)].split("\t")[0] for p in bird)))
    return tuple(found)


@cache
def schema(database: Path) -> DatabaseSchema:
    return read_schema(database)


@cache
def written(sql: str) -> str:
    """As sqlglot writes it."""
    return parse_query(sql).sql(dialect="sqlite")


@cache
def comparer(database: Path) -> AtomicComparer:
    return AtomicComparer(schema(database))


def renamed_aliases(sql: str, gold: Gold) -> str:
    tree = parse_query(sql).copy()
    names: dict[str, str] = {}
    for alias in tree.find_all(exp.TableAlias):
        if alias.this is not None:
            names[alias.name.lower()] = f"zz{len(names)}_{alias.name[::-1]}"
    cte = {c.alias.lower() for c in tree.find_all(exp.CTE)}
    for alias in list(tree.find_all(exp.TableAlias)):
        if alias.this is not None:
            alias.set("this", exp.to_identifier(names[alias.name.lower()], quoted=True))
    for table in tree.find_all(exp.Table):
        if table.name.lower() in cte:
            table.set("this", exp.to_identifier(names[table.name.lower()], quoted=True))
    for column in tree.find_all(exp.Column):
        if column.table.lower() in names:
            column.set("table", exp.to_identifier(names[column.table.lower()], quoted=True))
    return tree.sql(dialect="sqlite")


def new_aliases(sql: str, gold: Gold) -> str:
    """An alias for every table that has none, where one SELECT is all there is."""
    tree = parse_query(sql).copy()
    if len(list(tree.find_all(exp.Select))) > 1:
        return sql
    names: dict[str, str] = {}
    for number, table in enumerate(list(tree.find_all(exp.Table))):
        if not table.alias:
            names[table.name.lower()] = f"x{number}"
            table.set("alias", exp.TableAlias(this=exp.to_identifier(f"x{number}")))
    for column in tree.find_all(exp.Column):
        if column.table.lower() in names:
            column.set("table", exp.to_identifier(names[column.table.lower()]))
    return tree.sql(dialect="sqlite")


def other_case(sql: str, gold: Gold) -> str:
    rng = random.Random(sql)
    tokens = lex(sql) or []
    words = []
    for token in tokens:
        bare = token.kind == "word" or (token.kind == "quoted" and token.text[0] in "`[")
        words.append(
            rng.choice((token.text.upper(), token.text.lower(), token.text.swapcase())) if bare else token.text
        )
    return " ".join(words).replace(" . ", ".")


def reversed_terms(sql: str, gold: Gold) -> str:
    tree = parse_query(sql).copy()
    for node in list(tree.find_all(exp.And, exp.Or)):
        left, right = node.this, node.expression
        node.set("this", _paren(right))
        node.set("expression", _paren(left))
    return tree.sql(dialect="sqlite")


def swapped_sides(sql: str, gold: Gold) -> str:
    tree = parse_query(sql).copy()
    for node in list(tree.find_all(exp.EQ, exp.NEQ)):
        left, right = node.this, node.expression
        node.set("this", _paren(right))
        node.set("expression", _paren(left))
    return tree.sql(dialect="sqlite")


def reordered_joins(sql: str, gold: Gold) -> str:
    """Sources of inner joins backwards, their conditions together at the last."""
    tree = parse_query(sql).copy()
    for select in list(tree.find_all(exp.Select)):
        joins = select.args.get("joins") or []
        inner = all(not j.side and not j.method and not j.args.get("using") for j in joins)
        if not joins or not inner or any(item.is_star for item in select.expressions):
            continue
        sources = [select.args["from_"].this.copy(), *(join.this.copy() for join in joins)][::-1]
        conditions = [exp.Paren(this=join.args["on"].copy()) for join in joins if join.args.get("on") is not None]
        select.set("from_", exp.From(this=sources[0]))
        select.set("joins", [exp.Join(this=source, kind="CROSS") for source in sources[1:]])
        if conditions:
            last = exp.Join(this=sources[-1], on=exp.and_(*conditions))
            select.set("joins", [*select.args["joins"][:-1], last])
    return tree.sql(dialect="sqlite")


def more_parentheses(sql: str, gold: Gold) -> str:
    tree = parse_query(sql).copy()
    for node in list(
        tree.find_all(exp.EQ, exp.GT, exp.LT, exp.Like, exp.And, exp.Or, exp.Literal, exp.Div, exp.Between)
    ):
        if not isinstance(node.parent, (exp.Limit, exp.Offset)):
            node.replace(_paren(_paren(node.copy())))
    return tree.sql(dialect="sqlite")


def other_qualification(sql: str, gold: Gold) -> str:
    """Adds the qualifier that a single source allows to leave out, or leaves it out."""
    tree = parse_query(sql).copy()
    for select in list(tree.find_all(exp.Select)):
        source = select.args["from_"].this if select.args.get("from_") else None
        if not isinstance(source, exp.Table) or select.args.get("joins"):
            continue
        tables = {t.name.lower(): {c.name.lower() for c in t.columns} for t in schema(gold.database).tables}
        known = tables.get(source.name.lower(), set())
        for column in select.find_all(exp.Column):
            if column.find_ancestor(exp.Select) is not select or column.name.lower() not in known:
                continue
            if isinstance(column.find_ancestor(exp.Order), exp.Order) and not column.table:
                continue  # here it might be an alias
            column.set("table", None if column.table else exp.to_identifier(source.alias_or_name, quoted=True))
    return tree.sql(dialect="sqlite")


def _paren(node: exp.Expr) -> exp.Expr:
    return exp.Paren(this=node)


REWRITINGS: tuple[Callable[[str, Gold], str], ...] = (
    renamed_aliases,
    new_aliases,
    other_case,
    reversed_terms,
    swapped_sides,
    reordered_joins,
    more_parentheses,
    other_qualification,
)


@pytest.mark.parametrize("stride", SAMPLE)
def test_a_gold_is_like_itself(stride: int) -> None:
    unlike = [g.sql for g in golds()[::stride] if comparer(g.database).similarity(g.sql, g.sql).similarity != 1.0]
    assert unlike == []


@pytest.mark.parametrize("stride", SAMPLE)
@pytest.mark.parametrize("rewrite", REWRITINGS)
def test_rewriting_keeps_similarity_1(rewrite: Callable[[str, Gold], str], stride: int) -> None:
    changed = 0
    failures = []
    for gold in golds()[::stride]:
        other = rewrite(gold.sql, gold)
        changed += other != written(gold.sql)
        score = comparer(gold.database).similarity(gold.sql, other)
        if score.similarity != 1.0 or score.token_fallback:
            failures.append((gold.sql, other, score))
    assert failures == []
    assert changed > 0, "the rewriting changes nothing, so it shows nothing"


@pytest.mark.parametrize("stride", SAMPLE)
def test_mutants_are_below_1(stride: int) -> None:
    seen: Counter[str] = Counter()
    failures = []
    for gold in golds()[::stride]:
        for mutant in mutants(gold.sql, schema(gold.database)):
            seen[mutant.kind] += 1
            score = comparer(gold.database).similarity(gold.sql, mutant.sql)
            if score.similarity >= 1.0 or score.token_fallback:
                failures.append((mutant.kind, gold.sql, mutant.sql, score))
    assert failures == []
    assert len(seen) >= 14


@pytest.mark.parametrize("stride", SAMPLE)
def test_a_second_change_scores_lower(stride: int) -> None:
    """A change added to a changed query. Where the second touches what the first changed already, they may tie."""
    higher = total = 0
    for gold in golds()[::stride]:
        rng = random.Random(gold.sql)
        similar = comparer(gold.database).similarity
        first = mutants(gold.sql, schema(gold.database), kinds=("literal", "distinct", "order"))
        if not first:
            continue
        once = rng.choice(first)
        bound = similar(gold.sql, once.sql).similarity
        again = mutants(once.sql, schema(gold.database), kinds=("column", "operator"))
        for twice in again[:6]:
            total += 1
            higher += similar(gold.sql, twice.sql).similarity >= bound
    assert total > 30
    assert higher / total < 0.01


def results(connection: sqlite3.Connection, sql: str) -> list[tuple] | None:
    calls = iter(range(500))
    connection.set_progress_handler(lambda: next(calls, None) is None, 10_000)
    try:
        return connection.execute(sql).fetchall()
    except (sqlite3.Error, sqlite3.Warning):
        return None


def pairs(stride: int) -> Iterator[tuple[Gold, str]]:
    for gold in golds()[::stride]:
        for prediction in gold.predictions:
            yield gold, prediction


@pytest.mark.parametrize("stride", SAMPLE)
def test_similarity_1_means_equal_results(stride: int) -> None:
    connections: dict[Path, sqlite3.Connection] = {}
    ones = 0
    for gold, prediction in pairs(stride):
        if comparer(gold.database).similarity(gold.sql, prediction).similarity < 1.0:
            continue
        if gold.database not in connections:
            connections[gold.database] = sqlite3.connect(f"{gold.database.as_uri()}?mode=ro", uri=True)
            connections[gold.database].text_factory = bytes
        ones += 1
        ours, theirs = (results(connections[gold.database], sql) for sql in (gold.sql, prediction))
        assert theirs is not None, prediction
        if has_top_level_order_by(gold.sql):
            assert ours == theirs
        else:
            assert Counter(ours or ()) == Counter(theirs), (gold.sql, prediction)
    assert ones > 20
