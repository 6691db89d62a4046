"""Does a query say something about the database? One that reads no table says the same whatever the database holds,
and so, but for how often, does one that uses nothing of the rows it reads.

`reads_table` answers False only where FROM and IN name no table and no view of the database: SQLite's own tables
(`sqlite_...`), table-valued functions and common table expressions are none. Text that has no tokens or no syntax tree
here counts as reading one. `uses_rows` answers False only where a query names no column (nor joins by one), has no
star, counts nothing and asks for no existence: `SELECT 3 FROM dog LIMIT 1`. A column that is named and changes nothing
counts as used: further instances of the database show that.
"""

from collections.abc import Sequence

from sqlglot import exp

from rewards.sql.parse import ParseFailure, Token, lex, parse_query

_COUNTING = frozenset({"count", "sum", "total", "group_concat", "json_group_array", "json_group_object"})
"""Functions that say how many rows there are, whatever is given to them."""
_BEFORE_COLUMN = frozenset({"select", "distinct", "where", "by"})
_NO_COLUMN = frozenset(
    "all case cast current_date current_time current_timestamp distinct exists false not null raise true".split()
)
_BEFORE_STAR = frozenset({"select", "distinct", "all", "(", ",", "."})


def is_constant(sql: str, golds: Sequence[str]) -> bool:
    """Whether a query says nothing about the database in a way in which every gold does.

    >>> is_constant("SELECT 3 FROM dog LIMIT 1", ["SELECT count(*) FROM dog"])
    True
    """
    return any(not says(sql) and all(map(says, golds)) for says in (reads_table, uses_rows))


def uses_rows(sql: str) -> bool:
    """Whether the rows that are read matter. Seldom needs the syntax tree.

    >>> uses_rows("SELECT count(*) FROM dog"), uses_rows("SELECT max(3) FROM dog")
    (True, False)
    """
    tokens = lex(sql)
    if tokens is None or _plainly_uses_rows(tokens):
        return True
    try:
        tree = parse_query(sql)
    except ParseFailure:
        return True
    kinds = (exp.Column, exp.Star, exp.Exists, exp.Window, exp.Anonymous, exp.Join)
    return any(_uses(node) for node in tree.find_all(*kinds))


def _uses(node: exp.Expr) -> bool:
    if isinstance(node, exp.Join):
        return node.args.get("using") is not None or node.method == "NATURAL"
    return not isinstance(node, exp.Anonymous) or node.name.lower() in _COUNTING


def _plainly_uses_rows(tokens: Sequence[Token]) -> bool:
    """A star, or a bare name where an expression begins."""
    ends = Token("op", ";")
    for before, token, after in zip([ends, *tokens], tokens, [*tokens[1:], ends], strict=False):
        previous = before.text.lower()
        if token.text == "*" and previous in _BEFORE_STAR:
            return True
        if token.kind == "word" and previous in _BEFORE_COLUMN and after.text != "(":
            if token.text.lower() not in _NO_COLUMN:
                return True
    return False


def reads_table(sql: str) -> bool:
    """Whether a table or view of the database is named where rows come from. Seldom needs the syntax tree.

    >>> reads_table("SELECT name FROM dog"), reads_table("SELECT 'rex' UNION ALL SELECT 'ace'")
    (True, False)
    """
    tokens = lex(sql)
    if tokens is None:
        return True
    words = {token.text.lower() for token in tokens if token.kind == "word"}
    if not words & {"from", "in"}:
        return False
    if "with" not in words and _plainly_names_one(tokens):
        return True
    try:
        tree = parse_query(sql)
    except ParseFailure:
        return True
    return any(_is_table(node) for node in tree.find_all(exp.Table, exp.In))


def _plainly_names_one(tokens: Sequence[Token]) -> bool:
    """FROM and a bare name, in a text without WITH."""
    ends = Token("op", ";")
    for before, word, name, after in zip([ends, *tokens], tokens, tokens[1:], [*tokens[2:], ends], strict=False):
        if word.kind == "word" and word.text.lower() == "from" and before.text.lower() != "distinct":
            if name.kind == "word" and not name.text.lower().startswith("sqlite_") and after.text not in ("(", "."):
                return True
    return False


def _is_table(node: exp.Expr) -> bool:
    """Of a source after FROM, or of what stands behind IN."""
    source = node.args.get("field") if isinstance(node, exp.In) else node
    if not isinstance(source, exp.Column | exp.Table) or not isinstance(source.this, exp.Identifier):
        return False
    name = source.name.lower()
    qualified = source.args.get("table" if isinstance(source, exp.Column) else "db") is not None
    return not name.startswith("sqlite_") and (qualified or not _is_common_table(name, node))


def _is_common_table(name: str, node: exp.Expr) -> bool:
    """Whether a WITH around the node defines the name."""
    around = node.parent
    while around is not None:
        defined = around.args.get("with_")
        if defined is not None and any(cte.alias.lower() == name for cte in defined.expressions):
            return True
        around = around.parent
    return False
