"""Logging: one line an event, the ids of the request or run on every line, never a secret."""

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor


def set_up_logs(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Route structlog and the standard library's logging to stderr in one format."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _merge_temporal_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                _drop_temporal_extras,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in ("alembic", "docker", "urllib3", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # the default formatter shows local variables, secrets among them
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _merge_temporal_ids(_: Any, __: str, event: EventDict) -> EventDict:
    """Add the run, session and step of the activity that logs, where one does."""
    from temporalio import activity

    if activity.in_activity():
        info = activity.info()
        event.setdefault("temporal_workflow_id", info.workflow_id)
        event.setdefault("activity_attempt", info.attempt)
    return event


def _drop_temporal_extras(_: Any, __: str, event: EventDict) -> EventDict:
    for key in [key for key in event if key in ("temporal_activity", "temporal_workflow")]:
        details = event.pop(key)
        if isinstance(details, dict) and details.get("workflow_id"):
            event.setdefault("temporal_workflow_id", details["workflow_id"])
    return event
