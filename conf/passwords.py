"""Keeps passwords and keys out of the settings, which config.yaml, reports, wandb and job records repeat, and out of
what is printed. A key is known by where it stands: one in a setting of another purpose is not recognised.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

from conf.schema.base import Kind

_USER_INFO = re.compile(r"(?<=://)\S*@")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
LONGEST_WORD = 16
"""Characters of a variable's name without an underscore; what is longer looks like a key of capitals."""

NO_PASSWORD = (
    "an address must hold no user name or password, which config.yaml, reports and job records would repeat: leave out "
    "what stands before the @, and put keys into the environment (a hosted model's into the variable that "
    "model.key_variable names)"
)
NO_KEY = (
    "the name of an environment variable expected, of capitals, digits and underscores, such as OPENAI_API_KEY: put "
    "the key itself into that variable"
)


def without_passwords(text: str) -> str:
    """The text with what stands before the @ of a URL replaced.

    >>> without_passwords("https://me:secret@host/v1 refused")
    'https://...@host/v1 refused'
    """
    return _USER_INFO.sub("...@", text)


def with_password(values: object, name: str = "") -> str | None:
    """The first setting, as a dotted name, whose value is an address with user information."""
    if isinstance(values, Mapping):
        below = ((f"{name}.{key}" if name else str(key), value) for key, value in values.items())
    elif isinstance(values, list | tuple):
        below = ((name, value) for value in values)
    else:
        return name if isinstance(values, str) and _USER_INFO.search(values) else None
    return next((found for key, value in below if (found := with_password(value, key)) is not None), None)


def without_secrets(override: str) -> str:
    """A setting as written, for messages: without what stands before an @ and behind the ? of an address, and
    without the value of a setting that should name a variable.

    >>> without_secrets("model.key_variable=sk-1"), without_secrets("model.api=me:secret@host")
    ('model.key_variable=...', 'model.api=...@host')
    """
    name, equals, value = override.partition("=")
    if not equals:
        return override
    if name.endswith("_variable"):
        return f"{name}=..."
    value = re.sub(r".*@", "...@", value, flags=re.DOTALL)
    return f"{name}={value.partition('?')[0]}?..." if "://" in value and "?" in value else f"{name}={value}"


def _variable_name(value: object) -> object:
    words = value.split("_") if isinstance(value, str) else []
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value) or (len(words) == 1 and len(value) > LONGEST_WORD):
        raise ValueError(NO_KEY)
    return value


VariableName = Annotated[str, BeforeValidator(_variable_name), Kind.WORD]
"""A setting that names an environment variable; the refusal of anything else does not repeat it."""
