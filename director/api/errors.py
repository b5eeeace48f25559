"""Every error becomes the same envelope, those of the framework included."""

import re
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic.alias_generators import to_camel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from director.api.envelope import ErrorAnswer, failure
from director.domain import errors
from director.domain.base import PlacedError

log = structlog.get_logger()

_SECRET_FIELDS = re.compile(r"password|token|secret|environment|api_?key|authorization", re.I)

_ISSUES = {
    "missing": "is required",
    "union_tag_not_found": "is required",
    "extra_forbidden": "is no known field",
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "timezone_aware"),
        "must be a time with its zone, such as 2026-01-31T12:00:00Z",
    ),
}
_BOUNDS = {
    "union_tag_invalid": "is no known type; known: {expected_tags}",
    "string_too_short": "must have a length of at least {min_length}",
    "too_short": "must have a length of at least {min_length}",
    "string_too_long": "must have a length of at most {max_length}",
    "too_long": "must have a length of at most {max_length}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}
_ABSENT = ("missing", "union_tag_not_found")
_TAGS = ("union_tag_invalid", "union_tag_not_found")
_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a JSON object",
    "model_type": "a JSON object",
    "model_attributes_type": "a JSON object",
}

_BY_STATUS: dict[int, type[errors.DirectorError]] = {
    400: errors.ValidationError,
    401: errors.AuthenticationError,
    403: errors.AuthorizationError,
    405: errors.MethodNotAllowedError,
    413: errors.PayloadTooLargeError,
    415: errors.MediaTypeError,
    503: errors.UnavailableError,
}


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers; what none of them knows is a 500 without a trace."""
    app.add_exception_handler(errors.DirectorError, _director_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_error)


def documented(*kinds: type[errors.DirectorError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for errors that a route can answer beside the usual ones."""
    usual: list[type[errors.DirectorError]] = [errors.ValidationError, errors.AuthenticationError]
    return {
        kind.status: {"model": ErrorAnswer, "description": (kind.__doc__ or "").split("\n")[0]}
        for kind in (*usual, *kinds)
    }


def error_response(error: errors.DirectorError) -> JSONResponse:
    """The answer for an error, with the headers that its status wants."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if (seconds := error.details.get("retryAfter")) is not None:
        headers["Retry-After"] = str(seconds)
    return JSONResponse(failure(error), status_code=error.status, headers=headers)


def told(error: Exception) -> errors.DirectorError | None:
    """The error that a caller is told for what a route has raised; None for a fault of ours."""
    if isinstance(error, RequestValidationError):
        return invalid(error.errors(), error.body)
    return error if isinstance(error, errors.DirectorError) else None


async def _director_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.DirectorError)  # noqa: S101 - tells the type checker
    if error.status >= 500:
        log.warning("request failed", code=error.code, message=error.message)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - tells the type checker
    return error_response(invalid(error.errors(), error.body))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - tells the type checker
    if error.status_code == 404:
        return error_response(errors.NotFoundError("path", request.url.path))
    kind = _BY_STATUS.get(error.status_code, errors.DirectorError)
    message = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed(request)
        message = f"{request.method[:20]} is not allowed on {request.url.path[:200]}"
        message += f"; allowed: {headers['Allow']}"
    response = error_response(kind(message))
    response.headers.update(headers)
    return response


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    """Another process holds the database, or its disk is full: that passes, or is in the log."""
    log.error("the database did not answer", why=str(error.__cause__ or error))
    return error_response(errors.UnavailableError("the database did not answer; try it again"))


def _allowed(request: Request) -> str:
    """All methods of a path; the framework names those of one of its routes only."""
    return ", ".join(
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        for scope in ({**request.scope, "method": method},)
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    )


def invalid(problems: Sequence[Any], body: Any = None) -> errors.ValidationError:
    """A ValidationError that tells the first problem, and all of them under `errors`."""
    details = _merged([(problem["type"], _detail(problem, body)) for problem in problems])
    first = details[0] if details else {"field": "body", "issue": "invalid"}
    message = f"Invalid input data: {first['field']}: {first['issue']}"
    return errors.ValidationError(message, **first, errors=details[:100])


def _merged(found: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Tell one problem for each field: where a value may be of several types, the model complains
    once for each, also when it is of the right type and something inside of it is wrong."""
    told: list[dict[str, Any]] = []
    by_type: dict[str, dict[str, Any]] = {}
    better = {detail["field"] for kind, detail in found if kind not in _TYPES}
    fields = {detail["field"] for _, detail in found}
    inside = {field[:at] for field in fields for at, char in enumerate(field) if char == "."}
    for kind, detail in found:
        field = detail["field"]
        if kind == "too_short" and field in inside:
            continue  # what is wrong inside was not counted
        if kind not in _TYPES:
            told.append(detail)
        elif field in by_type:
            by_type[field]["issue"] += f" or {_TYPES[kind]}"
        elif field not in better | inside:
            by_type[field] = detail
            told.append(detail)
    return told


def _detail(problem: Any, body: Any) -> dict[str, Any]:
    kind, value = problem["type"], problem.get("input")
    if kind in _TAGS and isinstance(value, dict):
        problem = {**problem, "loc": (*problem["loc"], "type"), "input": value.get("type")}
    cause = (problem.get("ctx") or {}).get("error")
    if isinstance(cause, PlacedError):
        problem = {**problem, "loc": (*problem["loc"], *cause.at), "input": None}
    field = _field(problem, body)
    detail: dict[str, Any] = {"field": field, "issue": _issue(problem)}
    if _may_be_shown(kind, field, problem.get("input")):
        detail["value"] = problem["input"]
    return detail


def _issue(problem: Any) -> str:
    kind = problem["type"]
    if kind in _ISSUES:
        return _ISSUES[kind]
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**problem["ctx"])
    return str(problem["msg"]).removeprefix("Value error, ")


def _may_be_shown(problem: str, field: str, value: Any) -> bool:
    # An unknown field may be a mistyped `password`, and a body that is no object anything.
    if problem in ("missing", "extra_forbidden") or field == "body":
        return False
    if _SECRET_FIELDS.search(field):
        return False
    return isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= 200)


def _field(problem: Any, body: Any) -> str:
    """The path as the caller wrote it: without `body` and without the tags of unions."""
    source, *steps = problem["loc"] or ("body",)
    if source != "body":
        return ".".join(str(step) for step in steps) or str(source)
    names: list[str] = []
    value, tagged = body, False
    for number, step in enumerate(steps, 1):
        key, rest = _key(value, step), list(steps[number:])
        tagged = not tagged and _is_tag(value, key, step, rest)
        if not tagged and key is not None:
            names.append(str(key))
            value = value[key]
        elif not rest and problem["type"] in _ABSENT and isinstance(value, dict):
            names.append(str(step))
    return ".".join(names) or "body"


def _key(value: Any, step: Any) -> Any:
    """The key or index of `value` that a step of a location means, if there is one."""
    if isinstance(value, list):
        return step if isinstance(step, int) and step < len(value) else None
    if not isinstance(value, dict) or not isinstance(step, str):
        return None
    return step if step in value else next((key for key in value if to_camel(key) == step), None)


def _is_tag(value: Any, key: Any, step: Any, rest: Sequence[Any]) -> bool:
    """Tell a union's tag from a field: a criterion of type `command` has a field `command`."""
    if not isinstance(value, dict) or value.get("type") != step:
        return False
    if key is None:
        return True
    return bool(rest) and (rest[0] in value or not isinstance(value[key], dict | list))
