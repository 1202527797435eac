"""The base of everything that is written in YAML or posted as JSON: strict and frozen."""

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Model(BaseModel):
    """A strict, frozen document: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def mistake_at(path: tuple[str | int, ...], message: str) -> ValidationError:
    """An error for a validator to raise: about the value at `path` below the one it validates."""
    kind = PydanticCustomError("value_error", "{error}", {"error": message})
    return ValidationError.from_exception_data(
        "mistake", [InitErrorDetails(type=kind, loc=path, input=None)]
    )
