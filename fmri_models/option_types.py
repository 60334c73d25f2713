"""Types of options that say what a value may be, and in which words; options of a dataclass are checked by them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from .reading import checked


def in_words(expected: str) -> WrapValidator:
    """A validator of an annotated type: whatever does not fit the type is told what was expected in these words."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(expected) from error

    return WrapValidator(validate)


Share = Annotated[float, Field(ge=0, le=1), in_words("a number from 0 to 1")]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False), in_words("a positive number")]
# Text that becomes a part of paths, logs and tables.
Line = Annotated[str, Field(max_length=4096)]
Names = Annotated[list[Line], Field(min_length=1)]
NumberFromZero = Annotated[float, Field(ge=0, allow_inf_nan=False), in_words("a number from 0")]


def check_fields(
    values: Mapping[str, Any], dataclass: type, prefix: str, mend: str, checked_elsewhere: Sequence[str] = ()
) -> None:
    """Checks those values that are fields of a dataclass by the types of these; of another class nothing is known.

    Args:
        values: Name ▶ value.
        dataclass: The class.
        prefix: What stands before a name in a message.
        mend: What to do about it, as the end of a sentence.
        checked_elsewhere: Names that are left out.

    Raises:
        FmriModelsError: Names the first one that does not fit.
    """
    if not is_dataclass(dataclass):
        return
    hints = get_type_hints(dataclass, include_extras=True)
    for name in (each.name for each in fields(dataclass)):
        if name in values and name not in checked_elsewhere:
            checked(values[name], hints[name], f"{prefix}{name}", mend)
