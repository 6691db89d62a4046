"""The base of every configuration section (frozen, strict, documented by attribute docstrings) and its kinds of text.

A setting that is text has one of four types, never a bare `str`: what a relative path means, and whether a word may be
taken for a number, is decided by the type alone (conf/paths.py, conf/load.py). A test walks all sections.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen configuration section; an unknown key is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )


class Kind(StrEnum):
    """What a text setting names; metadata of its type."""

    WORD = "word"
    PATH = "path"
    BELOW = "below"
    MODEL = "model"


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty value: write one, or leave the setting out")
    return text


Word = Annotated[str, AfterValidator(_not_empty), Kind.WORD]
"""A name or another text that is no path."""
PathText = Annotated[str, AfterValidator(_not_empty), Kind.PATH]
"""A file or folder; a relative one is taken from the working directory of the command, once."""
PathBelow = Annotated[str, AfterValidator(_not_empty), Kind.BELOW]
"""A path below another setting's folder."""
ModelText = Annotated[str, AfterValidator(_not_empty), Kind.MODEL]
"""A model's folder, treated as a PathText where there is such a folder, or a name of the model hub, which stays."""
