"""Does a query read a table? One that does not says the same whatever the database holds.

`reads_table` answers False only where FROM and IN name no table and no view of the database: SQLite's own tables
(`sqlite_...`), table-valued functions and common table expressions are none. Text that has no tokens or no syntax tree
here counts as reading one. A query that names a table and ignores its rows counts as reading it too: further instances
of the database show that.
"""

from collections.abc import Sequence

from sqlglot import exp

from rewards.sql.parse import ParseFailure, Token, lex, parse_query


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
