"""Names of tables and columns as SQL writes and compares them. Standard library only: the sandbox uses it."""


def identifier(name: str) -> str:
    """A name in double quotes, as SQL needs it.

    >>> identifier('the "old" name')
    '"the ""old"" name"'
    """
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def fold(name: str) -> str:
    """SQLite's case folding of identifiers, which is ASCII only."""
    return name.lower() if name.isascii() else "".join(c.lower() if c.isascii() else c for c in name)
