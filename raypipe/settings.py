"""The base class of every config model.

In: keyword arguments or a parsed YAML mapping. Out: a frozen, validated object.
Does not know: which configs exist; each stands beside the code that it configures.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen config whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
