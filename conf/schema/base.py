"""The base of every configuration section: frozen, strict, documented by attribute docstrings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen configuration section; an unknown key is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )
