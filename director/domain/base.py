"""The base of every shape that crosses an edge: HTTP, Temporal or a JSON column."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel


class Shape(BaseModel):
    """An immutable value: camelCase outside, snake_case inside. Unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        from_attributes=True,
        frozen=True,
    )


class Body(Shape):
    """A request body: an unknown field is an error, so that a typo never runs for ever."""

    model_config = ConfigDict(extra="forbid")


def _no_control(text: str) -> str:
    if any(ord(char) < 32 and char not in "\t\n\r" for char in text):
        raise ValueError("must not contain control characters")
    return text


Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, AfterValidator(_no_control)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_control)]
Description = Annotated[str, Field(max_length=10_000), AfterValidator(_no_control)]
Millis = Annotated[int, Strict(), Field(ge=1, le=30 * 24 * 3600 * 1000)]
Json = dict[str, Any]
