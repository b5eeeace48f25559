"""Doing a request once: its transaction, its answer, and whose turn it is.

A key's row is written in the transaction of what the request makes, so that both are there or
neither is. While a request is at work its row has a lease; a row whose request has died is taken
up by the next equal request, which does what may not have been done after the commit, such as
telling Temporal, and makes nothing new."""

import asyncio
import hmac
import math
from collections.abc import Callable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog
from fastapi import Response
from sqlmodel import Session, SQLModel

from director.api.answers import responded
from director.api.errors import error_response, told
from director.domain.errors import ConflictError
from director.domain.times import utc_now
from director.store import idempotency as rows
from director.store import locks
from director.store.engine import Store
from director.store.idempotency import Reply, Use
from director.store.tables import IdempotencyRow

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_PATIENCE = 3.0
"""Seconds for which an equal request waits for the first: a little longer than a start takes
while Temporal does not answer."""

_LOOK_SECONDS = 0.2
_RETRY_SECONDS = 5
_NOT_KEPT = (401, 403, 429)

T = TypeVar("T")
RowT = TypeVar("RowT", bound=SQLModel)


class Answered(Exception):  # noqa: N818 - no error: what was asked for has its answer already
    """Ends a request whose answer is written, wherever it is raised."""

    def __init__(self, reply: Reply, *, replayed: bool) -> None:
        super().__init__(reply.status)
        self._reply, self._replayed = reply, replayed

    def response(self) -> Response:
        """The response with this answer."""
        return _response(self._reply, replayed=self._replayed)


class KeyConflictError(ConflictError):
    """The key itself is refused; that says nothing about the request, so it is not kept."""


class StillRunningError(KeyConflictError):
    """The first request with this key is at work."""


class Desk:
    """What the requests with keys of one process share: how they are told apart, whose turn it
    is. The secrets keep a reader of the database from guessing what a body held."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._turns: WeakValueDictionary[Use, asyncio.Lock] = WeakValueDictionary()
        self.held: set[str] = set()
        """The rows that requests of this process have leased."""

    def fingerprint(self, content: bytes) -> str:
        """Name a request's content, without telling it."""
        return self._fingerprint(self._secrets[0], content)

    def fits(self, fingerprint: str, content: bytes) -> bool:
        """Whether a fingerprint is that of a content, also one made before the key changed."""
        made = (self._fingerprint(secret, content) for secret in self._secrets)
        return any(hmac.compare_digest(fingerprint, one) for one in made)

    def _fingerprint(self, secret: bytes, content: bytes) -> str:
        return hmac.digest(secret, b"idempotency:" + content, "sha256").hex()

    async def turn(self, use: Use, seconds: float) -> asyncio.Lock:
        """Wait for the turn of a key, which its owner gives back. Raises TimeoutError."""
        lock = self._turns.setdefault(use, asyncio.Lock())
        async with asyncio.timeout(seconds):
            await lock.acquire()
        return lock

    async def close(self, store: Store) -> None:
        """Leave what is not done, because the server stops, to those who send it again."""
        held = tuple(self.held)
        await store.run(lambda session: rows.release(session, held))


class Once:
    """What a request does, and its answer; without a key it is done each time it is sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reply: Reply | None = None

    @property
    def token(self) -> str | None:
        """A name of what is done under the key, for others who must not do it twice either."""
        return None

    async def open(self, content: bytes) -> None:
        """Let the request go on if it is the first with its key, or takes up one that has died.

        Raises Answered where the answer is known, KeyConflictError where the key was used for
        something else or its first request is still at work."""

    async def write(self, work: Callable[[Session], Reply]) -> Response:
        """Do all of the request in one transaction."""
        return responded(await self._store.run(work))

    async def begin(self, work: Callable[[Session], tuple[T, Reply]], *, known: bool) -> T:
        """Do in one transaction what must be done once; `finish` follows when the rest is done.

        `known`: the reply is the answer, unless the rest fails."""
        value, self._reply = await self._store.run(work)
        return value

    def again(self, session: Session, kind: type[RowT]) -> RowT | None:
        """What an earlier request with this key has made; None where this is the first."""
        return None

    async def finish(self, reply: Reply | None = None) -> Response:
        """Answer, with this reply where it was not known before."""
        return responded(self._given(reply))

    def _given(self, reply: Reply | None) -> Reply:
        given = reply or self._reply
        assert given is not None, "finish follows begin"  # noqa: S101 - a mistake of ours
        return given


class KeyedOnce(Once):
    """A request with a key, done once however often it is sent."""

    def __init__(self, store: Store, desk: Desk, use: Use, wait: int) -> None:
        super().__init__(store)
        self._desk, self._use = desk, use
        self._patience = max(_PATIENCE, wait)
        self._content = b""
        self._turn: asyncio.Lock | None = None
        self._row_id: str | None = None
        self._made: str | None = None

    @property
    def token(self) -> str | None:
        return self._row_id

    async def open(self, content: bytes) -> None:
        self._content = content
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience
        try:
            self._turn = await self._desk.turn(self._use, self._patience)
        except TimeoutError:
            raise _still_running(self._use) from None
        while True:
            try:
                return self._check(await self._store.fetch(self._row))
            except StillRunningError:  # in another process, or in one that has died
                if now() >= deadline:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    async def write(self, work: Callable[[Session], Reply]) -> Response:
        def written(session: Session) -> Reply:
            row = self._claimed(session)
            return rows.conclude(session, row, work(session))

        return await super().write(written)

    async def begin(self, work: Callable[[Session], tuple[T, Reply]], *, known: bool) -> T:
        def written(session: Session) -> tuple[T, Reply]:
            row = self._claimed(session)
            value, reply = work(session)
            rows.note(session, row, reply, known=known)
            return value, reply

        return await super().begin(written, known=known)

    def again(self, session: Session, kind: type[RowT]) -> RowT | None:
        return None if self._made is None else session.get_one(kind, self._made)

    async def finish(self, reply: Reply | None = None) -> Response:
        given = self._given(reply)

        def concluded(session: Session) -> Reply:
            row = locks.get_one(session, IdempotencyRow, self._row_id)
            return rows.conclude(session, row, given)

        first = await self._store.run(concluded)
        return _response(first, replayed=self._made is not None and first is not given)

    async def failed(self, error: Exception) -> Exception:
        """What to raise for an error: its answer is kept if it is final, and else the key is
        left to the next request."""
        if self._turn is None or isinstance(error, Answered | KeyConflictError):
            return error
        known = told(error)
        if known is None or known.status >= 500 or known.status in _NOT_KEPT:
            await self.leave()
            return error
        reply = Reply(known.status, bytes(error_response(known).body), headers={})
        kept = await self._store.run(lambda session: self._refused(session, reply))
        return Answered(kept, replayed=kept is not reply)

    async def leave(self) -> None:
        """Leave what is not done to the next request with this key."""
        if (id := self._row_id) is not None:
            await self._store.run(lambda session: rows.release(session, (id,)))

    def close(self) -> None:
        """Give the turn to the next request with this key."""
        if self._turn is not None:
            self._turn.release()
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # one that is cut off is left by the desk
            self._desk.held.discard(self._row_id or "")

    def _row(self, session: Session) -> IdempotencyRow | None:
        return rows.find(session, self._use)

    def _claimed(self, session: Session) -> IdempotencyRow:
        """The key's row, leased to this request: a new one, or that of a request that died."""
        row, new = self._obtained(session)
        if not new:
            self._check(row)
            rows.renew(session, row)
        self._row_id, self._made = row.id, row.made
        self._desk.held.add(row.id)
        return row

    def _obtained(self, session: Session) -> tuple[IdempotencyRow, bool]:
        """The key's row, locked, and whether it was added for this request."""
        known = rows.find(session, self._use, lock=True)
        if known is None:
            added = rows.claim(session, self._use, self._desk.fingerprint(self._content))
            if added is not None:
                return added, True
            known = rows.find(session, self._use, lock=True)
        if known is None:
            raise _still_running(self._use)
        return known, False

    def _refused(self, session: Session, reply: Reply) -> Reply:
        row, new = self._obtained(session)
        if not new and row.id != self._row_id:  # another process was first
            self._check(row)
            raise _still_running(self._use)
        return rows.conclude(session, row, reply)

    def _check(self, row: IdempotencyRow | None) -> None:
        """Raise unless there is no such row, or one that this request may take up."""
        if row is None:
            return
        if not self._desk.fits(row.fingerprint, self._content):
            raise KeyConflictError(
                f"this {HEADER} was used for a request with other parameters; use a new key for"
                " each thing that you want done",
                idempotencyKey=self._use.key,
            )
        if row.done:
            raise Answered(rows.reply_of(row), replayed=True)
        if row.leased and row.status is None:
            raise _still_running(self._use, row)


def _still_running(use: Use, row: IdempotencyRow | None = None) -> StillRunningError:
    left = (row.lease_until - utc_now()).total_seconds() if row and row.lease_until else 1
    seconds = min(max(1, math.ceil(left)), _RETRY_SECONDS)
    return StillRunningError(
        f"the first request with this {HEADER} is still at work; send it again in {seconds} s to"
        " get its answer",
        idempotencyKey=use.key,
        retryAfter=seconds,
    )


def _response(reply: Reply, *, replayed: bool) -> Response:
    if not replayed:
        return responded(reply)
    structlog.contextvars.bind_contextvars(replayed=True)
    return responded(reply, **{REPLAYED: "true"})
