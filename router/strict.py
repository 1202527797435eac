"""The base of everything that is written in YAML or posted as JSON: strict and frozen."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A strict, frozen document: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
