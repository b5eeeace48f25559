"""Clients that order runs, steer them, and wait for their ends."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from chaos.client import Api, RefusedError
from chaos.ledger import Witness
from chaos.load import Act, Plan
from chaos.observations import ENDED, Order, Recess
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

_LOOK = 0.7
_HOLD_ON, _HOLD_SECONDS = 0.2, 5
_PAUSED_SECONDS = (0.5, 4.0)
_BETWEEN_RECESSES = (1.0, 10.0)

Json = dict[str, Any]


@dataclass
class Customers:
    """Everybody who orders something; they share one API client and one session."""

    api: Api
    witness: Witness
    temporal_address: str
    namespace: str
    session_id: str
    departments: dict[str, str]
    """Ids by name."""
    seed: int
    asked: Callable[[], None] = lambda: None
    """Called when something was asked for and not answered yet."""

    async def serve(self, plan: Plan, begun: float) -> None:
        """Come at the planned time, order, act, and stay until the end of the run."""
        await asyncio.sleep(max(0.0, begun + plan.at - time.monotonic()))
        workflow_id = await self.order(plan.order, plan.body)
        await self._act(plan, workflow_id)
        await self.ended(workflow_id, plan.order)

    async def order(self, order: Order, body: Json) -> str:
        """Make the workflow and start a run of it; gives the workflow's id."""
        body = {"sessionId": self.session_id, **body}
        if order.department is not None:
            body["departmentId"] = self.departments[order.department]
        workflow_id = str((await self.api.call("POST", "/workflows", body))["id"])
        order.asked_at = time.time()
        self.asked()
        order.run_id = await self._start(workflow_id)
        return workflow_id

    async def _start(self, workflow_id: str) -> str:
        try:
            run = await self.api.call("POST", f"/workflows/{workflow_id}/start", {})
        except RefusedError as refused:
            if "runId" not in refused.details:
                raise
            return str(refused.details["runId"])  # an answer that never came had begun it
        return str(run["runId"])

    async def pause_departments(self, over: asyncio.Event) -> list[Recess]:
        """Pause one department after the other for a while until all is over; gives when."""
        random, recesses = Random(f"{self.seed}: recesses"), []
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), random.uniform(*_BETWEEN_RECESSES))
            name = random.choice(list(self.departments))
            path = f"/departments/{self.departments[name]}"
            await self.api.call("PUT", path, {"status": "paused"})
            begin = time.time()
            await asyncio.sleep(random.uniform(*_PAUSED_SECONDS))
            recesses.append(Recess(name, begin, time.time()))
            await self.api.call("PUT", path, {"status": "active"})
        return recesses

    async def status(self, workflow_id: str, order: Order) -> Json:
        """Where the run stands that the client was told of."""
        path = f"/workflows/{workflow_id}/runs/{order.run_id}"
        return dict(await self.api.call("GET", path))

    async def ended(self, workflow_id: str, order: Order) -> None:
        """Wait for the end of the run that the client was told of: some hold on, some look."""
        holds_on = Random(f"{self.seed}: {order.name}").random() < _HOLD_ON
        wait = f"?wait={_HOLD_SECONDS}" if holds_on else ""
        path = f"/workflows/{workflow_id}/runs/{order.run_id}{wait}"
        while (await self.api.call("GET", path))["status"] not in ENDED:
            await asyncio.sleep(0 if holds_on else _LOOK)

    async def _act(self, plan: Plan, workflow_id: str) -> None:
        if plan.act == "watch":
            return
        if not await self._has_begun(plan, workflow_id):
            return
        await asyncio.sleep(plan.after)
        match plan.act:
            case "cancel":
                await self._steer("cancel", workflow_id)
            case "pause":
                await self._pause(plan, workflow_id)
            case "approve" | "refuse":
                await self._decide(plan, workflow_id)
            case "terminate" | "cancel in Temporal" | "reset":
                await self._press(plan, str(plan.order.run_id))

    async def _has_begun(self, plan: Plan, workflow_id: str) -> bool:
        """Wait for the first sign of life; False where the run has ended without one."""
        label = plan.order.commands[0].label
        while not self.witness.begun(label):
            if (await self.status(workflow_id, plan.order))["status"] in ENDED:
                return False
            await asyncio.sleep(_LOOK)
        return True

    async def _steer(self, verb: str, workflow_id: str) -> bool:
        """False where the run has ended before."""
        self.asked()
        try:
            await self.api.call("POST", f"/workflows/{workflow_id}/{verb}")
        except RefusedError as refused:
            if refused.status != 409:
                raise
            return False
        return True

    async def _pause(self, plan: Plan, workflow_id: str) -> None:
        if not await self._steer("pause", workflow_id):
            return
        while (run := await self.status(workflow_id, plan.order))["status"] != "paused":
            if run["status"] in ENDED:
                return  # it came in the last step
            await asyncio.sleep(_LOOK)
        seen = time.time()
        await asyncio.sleep(Random(f"{self.seed}: {plan.order.name}").uniform(*_PAUSED_SECONDS))
        plan.order.held.append((seen, time.time()))
        await self._steer("resume", workflow_id)

    async def _decide(self, plan: Plan, workflow_id: str) -> None:
        """Decide as soon as that is asked for; one that came a moment too early comes again."""
        decision = {"approved": plan.act == "approve", "reason": "as it was ordered"}
        while (run := await self.status(workflow_id, plan.order))["status"] not in ENDED:
            if run["status"] == "waiting":
                self.asked()
                with contextlib.suppress(RefusedError):
                    path = f"/workflows/{workflow_id}/signals/approve"
                    await self.api.call("POST", path, decision)
            await asyncio.sleep(_LOOK)

    async def _press(self, plan: Plan, run_id: str) -> None:
        """What the buttons of the Temporal UI do."""
        while True:
            try:
                client = await Client.connect(self.temporal_address, namespace=self.namespace)
                await _pressed(client, plan.act, run_id)
            except (RPCError, RuntimeError) as error:
                if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                    return  # it has ended
                await asyncio.sleep(_LOOK)
            else:
                return


async def _pressed(client: Client, button: Act, run_id: str) -> None:
    handle = client.get_workflow_handle(run_id)
    match button:
        case "terminate":
            await handle.terminate("pressed in the UI")
        case "cancel in Temporal":
            await handle.cancel()
        case "reset":
            await _reset(client, run_id)


async def _reset(client: Client, run_id: str) -> None:
    """Back to the first workflow task, which is before all steps."""
    async for event in client.get_workflow_handle(run_id).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            break
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run_id),
            reason="pressed in the UI",
            workflow_task_finish_event_id=event.event_id,
            request_id=f"reset-{run_id}",
        )
    )
