"""The same rows over HTTP with FastAPI and SQLModel, and nothing else: no login, no envelope.

`python -m bench.bare.http_app PORT DATABASE_URL inline|threads`: sync sessions inline in the event
loop, or in the framework's threads."""

import os
import secrets
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from sqlalchemy import JSON, Engine, Index, UniqueConstraint, event
from sqlmodel import Field, Session, SQLModel, create_engine


def _now() -> datetime:
    return datetime.now(UTC)


class SessionRow(SQLModel, table=True):
    """As Director's."""

    __tablename__ = "bare_sessions"

    id: str = Field(primary_key=True)
    owner_id: str = Field(index=True)
    type: str
    name: str
    description: str | None = None
    status: str = "active"
    config: dict[str, Any] = Field(default={}, sa_type=JSON)
    expires_at: datetime | None = None
    deleted_at: datetime | None = None
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)


class EventRow(SQLModel, table=True):
    """As Director's: one for each session that is made."""

    __tablename__ = "bare_events"
    __table_args__ = (
        UniqueConstraint("subject", "seq"),
        Index("ix_bare_events_session", "session_id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    subject: str
    seq: int
    type: str
    owner_id: str
    session_id: str | None = None
    workflow_id: str | None = None
    data: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=_now)


class SessionCreate(SQLModel):
    """The body."""

    type: str
    name: str
    description: str | None = None
    config: dict[str, Any] = {}


def application(engine: Engine, inline: bool) -> FastAPI:
    """Two routes."""
    app = FastAPI()

    def create(body: SessionCreate) -> SessionRow:
        row = SessionRow(id=f"ses_{secrets.token_hex(13)}", owner_id="bare", **body.model_dump())
        told = EventRow(
            subject=row.id,
            seq=1,
            type="session.created",
            owner_id=row.owner_id,
            session_id=row.id,
            data={"sessionId": row.id, "status": row.status},
        )
        with Session(engine, expire_on_commit=False) as session:
            session.add(row)
            session.add(told)
            session.commit()
        return row

    def get(session_id: str) -> SessionRow:
        with Session(engine, expire_on_commit=False) as session:
            row = session.get(SessionRow, session_id)
        if row is None:
            raise HTTPException(404)
        return row

    app.post("/sessions", status_code=201, response_model=SessionRow)(_as(create, inline))
    app.get("/sessions/{session_id}", response_model=SessionRow)(_as(get, inline))
    return app


def _as(route: Callable[..., SessionRow], inline: bool) -> Callable[..., Any]:
    if not inline:
        return route
    if route.__name__ == "create":

        async def create(body: SessionCreate) -> SessionRow:
            return route(body)

        return create

    async def get(session_id: str) -> SessionRow:
        return route(session_id)

    return get


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url)
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main(port: str, url: str, how: str) -> None:
    """Serve until nobody holds the standard input open any more."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    engine = _engine(url)
    SQLModel.metadata.create_all(engine)
    app = application(engine, how == "inline")
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_config=None, access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
