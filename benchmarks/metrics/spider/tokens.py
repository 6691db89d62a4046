"""Splits SQL as the official Spider parser does, which borrows an English tokenizer.

The consequences are part of the metric: `a=1` is one token (and refused later), a comma before a digit does not split,
back quotes are tokens of their own, and both kinds of quotation marks delimit strings.
Source: behaviour of `tokenize` in process_sql.py over the Treebank rules of NLTK's word tokenizer.
"""

import re

from benchmarks.metrics.spider.tree import Refused

SEPARATE = re.compile(
    r"[«“‘„»”’]|`+"
    r"|[:,](?=\D|$)"
    r"|\.{2,}"
    r"|[;@#$%&?!*\[\](){}<>\u2012-\u2015]"
    r"|--"
)
FINAL_PERIOD = re.compile(r"(?<=[^.])\.(?=[\])}>]*\s*$)")
CONTRACTIONS = re.compile(r"\b(?:(can)(not)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(wan)(na))\b", re.IGNORECASE)
COMPARISONS = ("!", ">", "<")


def tokenize(sql: str) -> list[str]:
    """Lower-case tokens; strings keep their letter case and stand between double quotes. Raises Refused."""
    text, strings = _hide_strings(sql.replace("'", '"'))
    text = FINAL_PERIOD.sub(" . ", text)
    text = SEPARATE.sub(r" \g<0> ", text)
    text = CONTRACTIONS.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    tokens = [strings.get(word.lower(), word.lower()) for word in text.split()]
    return _join_comparisons(tokens)


def _hide_strings(sql: str) -> tuple[str, dict[str, str]]:
    """The text with each quoted string replaced by a word, and what each word stands for."""
    marks = [position for position, character in enumerate(sql) if character == '"']
    if len(marks) % 2:
        raise Refused("a quotation mark without its partner")
    strings = {}
    pieces = []
    end = 0
    for opening, closing in zip(marks[::2], marks[1::2], strict=True):
        word = f"__val_{opening}_{closing}__"
        strings[word] = sql[opening : closing + 1]
        pieces += [sql[end:opening], word]
        end = closing + 1
    return "".join([*pieces, sql[end:]]), strings


def _join_comparisons(tokens: list[str]) -> list[str]:
    """`!`, `>` or `<` and a following `=` become one operator."""
    joined: list[str] = []
    for token in tokens:
        if token == "=" and joined and joined[-1] in COMPARISONS:
            joined[-1] += "="
        else:
            joined.append(token)
    return joined
