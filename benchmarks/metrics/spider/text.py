"""What the official Spider scripts do to SQL text before they run it.

Source: `evaluate` in evaluation.py, `postprocess` and `replace_cur_year` in exec_eval.py, `remove_distinct` in
parse.py.
"""

import re
from functools import lru_cache

SPLIT_COMPARISONS = (("> =", ">="), ("< =", "<="), ("! =", "!="))
CURRENT_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)
PIECES = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)
    |'(?:''|\\'|[^'])*'|"(?:""|\\"|[^"])*"|`(?:``|[^`])*`|(?<![\w\])])\[[^\]\[]+\]
    |[^\W\d]\w*|\d\w*|;|\s+|.""",
    re.VERBOSE | re.DOTALL,
)


def read_prediction(line: str) -> str:
    """The query in one line of an official prediction file: what stands before the first tab."""
    return line.strip().partition("\t")[0]


def plug_placeholder(predicted: str) -> str:
    """Replaces a lower-case `value` anywhere in a prediction, names and strings included, by 1."""
    return predicted.replace("value", "1")


@lru_cache(maxsize=50_000)
def executable(sql: str, *, keep_distinct: bool) -> str:
    """The text that the official script runs, for a gold query or for a prediction."""
    for split, joined in SPLIT_COMPARISONS:
        sql = sql.replace(split, joined)
    if not keep_distinct:
        sql = without_distinct(sql)
    return CURRENT_YEAR.sub("2020", sql)


def without_distinct(sql: str) -> str:
    """The first statement without any DISTINCT token; strings, quoted names and comments are left alone."""
    if ";" not in sql and "distinct" not in sql.lower():
        return sql
    kept = []
    for piece in PIECES.findall(sql):
        if piece.lower() != "distinct":
            kept.append(piece)
        if piece == ";":
            break
    return "".join(kept)


def order_matters(gold: str) -> bool:
    """Official rule: the gold's text contains "order by" anywhere, subqueries and strings included."""
    return "order by" in gold.lower()
