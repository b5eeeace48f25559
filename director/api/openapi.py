"""The API's description: what the framework adds wrongly goes, what every route can say comes."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from director.api.errors import documented
from director.api.once import HEADER, REPLAYED
from director.domain.errors import (
    AuthorizationError,
    ConflictError,
    DirectorError,
    MediaTypeError,
    PayloadTooLargeError,
)

_METHODS = ("get", "post", "put", "patch", "delete")
_ENVELOPE = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}


def install_openapi(app: FastAPI, more: Sequence[type[BaseModel]] = ()) -> None:
    """Complete the description that the framework makes of the routes, with the schemas of what
    no route of it has."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            _complete(schema)
            schema["components"]["schemas"].update(_schemas(more))
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: dict[str, Any]) -> None:
    for path in schema["paths"].values():
        for method in _METHODS:
            if method in path:
                _complete_operation(method, path[method])
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _schemas(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(each, "validation") for each in models]
    template = "#/components/schemas/{model}"
    _, found = models_json_schema(wanted, ref_template=template)
    schemas: dict[str, Any] = found.get("$defs", {})
    return schemas


def _summarise(operation: dict[str, Any]) -> None:
    """The first sentence of a route's docstring, instead of the name of its function."""
    first, _, rest = operation.get("description", "").replace("\n", " ").partition(". ")
    if first:
        operation["summary"], operation["description"] = first.rstrip("."), rest or first


def _complete_operation(method: str, operation: dict[str, Any]) -> None:
    _summarise(operation)
    responses = operation["responses"]
    responses.pop("422", None)  # validation is a 400 here
    kinds: list[type[DirectorError]] = [DirectorError]
    if operation.get("security") and method != "get":
        kinds.append(AuthorizationError)
    if any(parameter["name"] == HEADER for parameter in operation.get("parameters", ())):
        kinds.append(ConflictError)
        _tell_replays(responses)
    if "requestBody" in operation:
        kinds += [PayloadTooLargeError, MediaTypeError]
    for kind in kinds:
        description = documented(kind)[kind.status]["description"]
        told = {"description": description, "content": {"application/json": _ENVELOPE}}
        responses.setdefault(str(kind.status), told)


def _tell_replays(responses: dict[str, Any]) -> None:
    header = {
        "description": "`true` where this is the first answer to an earlier, equal request.",
        "schema": {"type": "string", "enum": ["true"]},
    }
    for status, response in responses.items():
        if status.startswith("2"):
            response.setdefault("headers", {})[REPLAYED] = header
