"""The runs of a workflow: start, watch, steer. Routes lie under `/workflows/{id}`."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from pydantic import ValidationError as Invalid
from sqlmodel import Session

from director.api.answers import reply
from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented, invalid
from director.api.hub import Hub
from director.api.idempotency import OnceDep
from director.api.output_messages import server_sent
from director.api.outputs import (
    LIVE,
    Asked,
    OutputReader,
    Parts,
    begin,
    check_kept,
    plain,
    step_of,
)
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import (
    BlobsDep,
    GatewayDep,
    HubDep,
    OutputKeptDep,
    PageDep,
    QueryFlag,
    QueryInt,
    StoreDep,
    TermsDep,
    WaitDep,
)
from director.domain.base import Body, Int, Json, Number, Shape, Text
from director.domain.errors import (
    ConflictError,
    GoneError,
    NotFoundError,
    UnavailableError,
    refused,
)
from director.domain.names import APPROVE, GRANTED, PROGRESS
from director.domain.runs import (
    Approval,
    ApprovalBody,
    ProgressSignal,
    RunState,
    RunStatus,
    RunView,
)
from director.domain.workflows import StartWorkflow
from director.store import approvals, runs, sandboxes, standing, users
from director.store.engine import Store
from director.store.idempotency import Reply
from director.store.tables import RunRow, StepRow
from director.streaming import Streamed

router = APIRouter(prefix="/workflows/{workflow_id}", tags=["workflows"], route_class=StrictRoute)

MAX_SIGNAL_BYTES = 64 * 1024
"""Of a signal's data, as JSON: every listener gets it in a frame."""

_OWN_ROUTES = ("cancel", "pause", "resume")
_RESERVED = (GRANTED,)

Kind = TypeVar("Kind", bound=Body)

_STEERED: dict[str, Any] = {
    "status_code": 202,
    "response_model": Answer[RunView],
    "responses": documented(NotFoundError, ConflictError),
}


class ProgressBody(Body):
    """What an agent says about how far it is."""

    message: Annotated[Text, Field(max_length=500)] | None = None
    percent: Annotated[Number, Field(ge=0, le=100)] | None = None
    step: Annotated[Int, Field(ge=0, le=500)] | None = None


class Signalled(Shape):
    """The answer of a signal."""

    run_id: str
    signal: str
    accepted: bool = True


@dataclass(frozen=True)
class Steering:
    """What the routes that start and steer the runs of a workflow have in common."""

    workflow_id: str
    principal: EditorDep
    store: StoreDep
    gateway: GatewayDep
    hub: HubDep
    once: OnceDep
    wait: WaitDep = 0

    async def steered(
        self,
        intend: Callable[[Session, RunRow], None],
        ask: Callable[[RunView], Awaitable[None]],
        status: RunStatus | None = None,
    ) -> Response:
        """Write the intent for the latest run, then ask its workflow."""

        def act(session: Session) -> RunRow:
            run = runs.latest_locked(session, self.principal, self.workflow_id)
            intend(session, run)
            return run

        return await self.answered(act, ask, status)

    async def answered(
        self,
        act: Callable[[Session], RunRow],
        ask: Callable[[RunView], Awaitable[None]],
        status: RunStatus | None = None,
    ) -> Response:
        """Write what is wanted, once, then ask Temporal for it, and wait for what is to come if
        wanted. Asking is safe to repeat: it follows what is wanted now."""

        def write(session: Session) -> tuple[RunView, Reply]:
            run = self.once.again(session, RunRow) or act(session)
            view = standing.view(session, run)
            return view, _goes_on(view)

        view = await self.once.begin(write, known=not self.wait)
        if not view.status.ended:
            await ask(view)
        if not self.wait:
            return await self.once.finish()
        view = await _awaited(self.store, self.hub, view, self.wait, status)
        return await self.once.finish(_goes_on(view))

    async def start(self, view: RunView) -> None:
        """Ask Temporal to start a run."""
        run_id = view.run_id
        run_input = await self.store.fetch(lambda s: runs.input_of(s, s.get_one(RunRow, run_id)))
        await self.gateway.start(run_input)

    async def cancel(self, view: RunView) -> None:
        """Ask a run to cancel itself."""
        await self.gateway.cancel(view.run_id or "")

    async def hold_or_go_on(self, view: RunView) -> None:
        """Ask a run for what is wanted of it now: a pause, or not."""
        ask = self.gateway.pause if view.pause_requested else self.gateway.resume
        await ask(view.run_id or "")


SteeringDep = Annotated[Steering, Depends()]


class LiveStatus(RunView):
    """A run's status, and what the workflow itself says where that was asked for."""

    live: RunState | None = None


@router.post("/start", operation_id="workflows.start", **_STEERED)
async def start(
    steering: SteeringDep, terms: TermsDep, body: StartWorkflow | None = None
) -> Response:
    """Start a run. `?wait=` answers when it has ended, at the latest after so many seconds."""

    def begin(session: Session) -> RunRow:
        wanted = body or StartWorkflow()
        run = runs.create(session, steering.principal, steering.workflow_id, wanted)
        if run.sandbox_id is None:
            terms.check_image(run.image, "config.sandbox.image")
        runs.check_quota(session, run.owner_id, terms.runs)
        if run.keep_sandbox:
            sandboxes.check_quota(session, run.owner_id, terms.sandboxes)
        return run

    return await steering.answered(begin, steering.start)


@router.get("/status", operation_id="workflows.status", responses=documented(NotFoundError))
async def status(
    workflow_id: str,
    principal: PrincipalDep,
    store: StoreDep,
    gateway: GatewayDep,
    hub: HubDep,
    wait: WaitDep = 0,
    source: Literal["store", "temporal"] = "store",
) -> Answer[LiveStatus]:
    """Where the latest run stands; `?source=temporal` asks the workflow itself as well."""
    view = await store.fetch(lambda s: runs.status(s, principal, workflow_id))
    if view.run_id is None:
        return answer(LiveStatus(**dict(view)))
    view = await _awaited(store, hub, view, wait)
    live = await gateway.state(view.run_id or "") if source == "temporal" else None
    return answer(LiveStatus(**dict(view), live=live))


@router.get("/runs", operation_id="workflows.runs", responses=documented(NotFoundError))
async def list_(
    workflow_id: str, principal: PrincipalDep, store: StoreDep, query: PageDep
) -> ListAnswer[RunView]:
    """List the runs of a workflow, newest first; their steps come without `result` and `error`,
    which `GET /workflows/{workflow_id}/runs/{run_id}` has."""
    return page(*await store.fetch(lambda s: runs.listed(s, principal, workflow_id, query)))


@router.get("/runs/{run_id}", operation_id="workflows.run", responses=documented(NotFoundError))
async def get(
    workflow_id: str,
    run_id: str,
    principal: PrincipalDep,
    store: StoreDep,
    hub: HubDep,
    wait: WaitDep = 0,
) -> Answer[RunView]:
    """Get a run."""
    view = await store.fetch(
        lambda s: standing.view(s, runs.get(s, principal, workflow_id, run_id))
    )
    return answer(await _awaited(store, hub, view, wait))


@router.post("/cancel", operation_id="workflows.cancel", **_STEERED)
async def cancel(steering: SteeringDep) -> Response:
    """Cancel the run: `cancelled` once its processes are dead and its sandbox is gone."""
    return await steering.steered(runs.want_cancel, steering.cancel)


@router.post("/pause", operation_id="workflows.pause", **_STEERED)
async def pause(steering: SteeringDep) -> Response:
    """Let the running step end, then hold. `?wait=` answers when the run holds."""
    intend = partial(runs.want_pause, pause=True)
    return await steering.steered(intend, steering.hold_or_go_on, RunStatus.PAUSED)


@router.post("/resume", operation_id="workflows.resume", **_STEERED)
async def resume(steering: SteeringDep) -> Response:
    """Go on after a pause. `?wait=` answers when the run goes on."""
    intend = partial(runs.want_pause, pause=False)
    return await steering.steered(intend, steering.hold_or_go_on, RunStatus.RUNNING)


@router.post(
    "/signals/{name}",
    operation_id="workflows.signal",
    response_model=Answer[Signalled],
    responses=documented(NotFoundError, ConflictError, UnavailableError),
)
async def signal(
    workflow_id: str,
    name: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,63}$")],
    principal: EditorDep,
    gateway: GatewayDep,
    once: OnceDep,
    body: Json | None = None,
) -> Response:
    """Signal the run. `progress` takes `message`, `percent` and `step`, and is numbered by the
    workflow. `approve` takes `approved` and `reason`, and decides the step that waits for it. The
    data of any other signal is told in the event log and never goes to Temporal."""
    _check_signal(name, body or {})
    told = ProgressSignal(**_checked(ProgressBody, body).model_dump()) if name == PROGRESS else None
    decision = _checked(ApprovalBody, body) if name == APPROVE else None

    def record(session: Session) -> tuple[RunRow, Reply]:
        run = once.again(session, RunRow)
        if run is None:
            run = runs.latest_locked(session, principal, workflow_id)
            runs.count_signal(session, run, name, None if told else body or {})
            if decision is not None:
                by = principal.username
                approvals.decide(session, run, Approval(**decision.model_dump(), by=by))
        return run, reply(200, Signalled(run_id=run.id, signal=name), made=run.id)

    run = await once.begin(record, known=True)
    if RunStatus(run.status).ended:
        return await once.finish()
    if decision is not None:
        await gateway.approve(run.id)
    else:
        await gateway.signal(run.id, name, told, request_id=once.token)
    return await once.finish()


@dataclass(frozen=True)
class OutputOf:
    """Which output is asked for, and what is needed to read it."""

    workflow_id: str
    run_id: str
    step: str
    principal: PrincipalDep
    store: StoreDep
    blobs: BlobsDep
    hub: HubDep
    kept: OutputKeptDep
    stream: Literal["stdout", "stderr", "both"] = "both"
    attempt: Annotated[QueryInt | None, Query(ge=1)] = None

    async def reader(self, cursor: str | None = None, *, onward: bool) -> OutputReader:
        """A reader of it, from a cursor or from the beginning on."""
        row = await self.store.fetch(self._found)
        asked = Asked(
            run_id=self.run_id,
            step=row.index,
            stream=None if self.stream == "both" else self.stream,
            onward=onward and self.attempt is None,
        )
        begun = begin(row, self.attempt, cursor)
        return OutputReader(Parts(self.store, self.blobs, self.hub), asked, begun, self._is_allowed)

    async def _is_allowed(self) -> bool:
        logins = {self.principal.login_id}
        return bool(await self.store.fetch(partial(users.live_logins, login_ids=logins)))

    def _found(self, session: Session) -> StepRow:
        run = runs.get(session, self.principal, self.workflow_id, self.run_id)
        row = step_of(session, run, self.step)
        check_kept(run, self.kept)
        return row


@router.get(
    "/runs/{run_id}/steps/{step}/output",
    operation_id="workflows.output",
    responses={
        **documented(NotFoundError, GoneError),
        200: {"content": {"application/octet-stream": {}, "text/event-stream": {}}},
    },
    response_class=StreamingResponse,
)
async def output(
    of: Annotated[OutputOf, Depends()],
    follow: QueryFlag = False,
    accept: Annotated[str, Header(max_length=1000)] = "",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> StreamingResponse:
    """The whole output of a step (its id, or its number from 1), byte for byte; `follow` streams
    what comes until the step has ended. `Accept: text/event-stream` follows as server-sent events
    and goes on to the attempts that come; `Last-Event-ID` resumes."""
    if "text/event-stream" in accept:
        reader = await of.reader(last_event_id, onward=True)
        return Streamed(server_sent(reader), media_type="text/event-stream", headers=LIVE)
    reader = await of.reader(onward=False)
    headers = {"X-Director-Attempt": str(reader.cursor.attempt), **LIVE}
    content = plain(reader, follow=follow)
    return Streamed(content, media_type="application/octet-stream", headers=headers)


def _check_signal(name: str, data: Json) -> None:
    if name in _OWN_ROUTES:
        raise refused("name", f"{name!r} has a route of its own: POST …/{name}", name)
    if name in _RESERVED:
        raise refused("name", f"{name!r} is a signal between Director's own parts", name)
    if len(json.dumps(data, ensure_ascii=False).encode()) > MAX_SIGNAL_BYTES:
        raise refused("body", f"must be at most {MAX_SIGNAL_BYTES} bytes of JSON")


def _checked(kind: type[Kind], body: Json | None) -> Kind:
    try:
        return kind.model_validate(body or {})
    except Invalid as error:
        problems = [
            {**problem, "loc": ("body", *problem["loc"])}
            for problem in error.errors(include_url=False)
        ]
        raise invalid(problems, body) from None


def _goes_on(view: RunView) -> Reply:
    """Answer with a run that goes on, and where it can be watched."""
    run_id = view.run_id or ""
    return reply(202, view, run_id, Location=f"/v1/workflows/{view.workflow_id}/runs/{run_id}")


async def _awaited(
    store: Store, hub: Hub, view: RunView, seconds: int, status: RunStatus | None = None
) -> RunView:
    """Wait until a run has ended, or has a status; gives what it looks like then.

    Its row is read twice, however many others commit meanwhile."""
    if not seconds or view.run_id is None:
        return view
    run_id = view.run_id
    with hub.awaiting(run_id, status) as awaited:
        present = await store.fetch(lambda s: runs.present(s, run_id))
        if not (present.ended or present is status):
            await awaited.wait(seconds)
    return await store.fetch(lambda s: standing.view(s, s.get_one(RunRow, run_id)))
