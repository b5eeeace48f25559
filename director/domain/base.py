"""The base of every shape that crosses an edge: HTTP, Temporal or a JSON column."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel

T = TypeVar("T")


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


class PlacedError(ValueError):
    """A problem that lies further inside of what a validator looks at; `at` says where."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


class Body(Shape):
    """A request body: an unknown field is an error, so that a typo never runs for ever."""

    model_config = ConfigDict(extra="forbid")


def example(**body: Any) -> ConfigDict:
    """The model configuration that shows a body in the API's description."""
    return ConfigDict(json_schema_extra={"examples": [body]})


def _no_control(text: str) -> str:
    if any(ord(char) < 32 and char not in "\t\n\r" for char in text):
        raise ValueError("must not contain control characters")
    return text


def _not_null(value: T | None) -> T | None:
    # A default is not validated, so this sees a null only where the caller sent one.
    if value is None:
        raise ValueError("must not be null; leave it out to keep it as it is")
    return value


def _something(value: Any) -> Any:
    if value is None:
        raise ValueError("must be a string, or other JSON, but not null")
    return value


def no_nul(text: str) -> str:
    """Refuse a NUL, which neither an argument nor a variable of a process can hold."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


NotNull = AfterValidator(_not_null)
"""For a field of an update that can be left out but not cleared."""

Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, AfterValidator(_no_control)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_control)]
Description = Annotated[str, Field(max_length=10_000), AfterValidator(_no_control)]
Millis = Annotated[int, Strict(), Field(ge=1, le=30 * 24 * 3600 * 1000)]
Json = dict[str, Any]
Content = Annotated[Any, AfterValidator(_something)]
"""What somebody says or keeps: a text, or any JSON but null."""
