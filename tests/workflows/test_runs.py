"""Runs on a real Temporal server, with scripted sandboxes."""

import asyncio

from support.stack import Stack

from director.domain.runs import RunStatus
from director.store import runs
from director.store.tables import RunRow

EXIT_0 = {"type": "verify", "criteria": "exit code is 0"}


def statuses(run: dict) -> list[str]:
    return [step["status"] for step in run["steps"]]


async def test_a_run_performs_its_steps_in_order_and_completes(stack: Stack) -> None:
    run = await stack.run("say one", "say two", EXIT_0)

    assert run["status"] == "completed"
    assert statuses(run) == ["completed"] * 3
    assert [step["result"].get("stdout") for step in run["steps"][:2]] == ["one\n", "two\n"]
    assert (run["step"], run["totalSteps"], run["progress"]) == (3, 3, 100)
    assert run["result"]["success"] is True


async def test_the_output_of_a_run_is_the_last_verifys_message_else_the_last_commands(
    stack: Stack,
) -> None:
    verified = await stack.run("say one", EXIT_0)
    plain = await stack.run("say one", "say  two")

    assert verified["result"]["output"] == "exit code was 0"
    assert plain["result"]["output"] == "two"


async def test_a_failing_command_fails_the_run_and_what_follows_is_skipped(stack: Stack) -> None:
    run = await stack.run("complain no such thing; fail 3", "say never")

    assert run["status"] == "failed"
    assert statuses(run) == ["failed", "skipped"]
    assert run["error"]["code"] == "COMMAND_FAILED"
    assert run["error"]["step"] == "step-1"
    assert "exit code 3: no such thing" in run["error"]["message"]
    assert run["result"]["success"] is False
    assert run["progress"] == 0


async def test_a_command_that_a_verify_follows_completes_with_its_exit_code(stack: Stack) -> None:
    run = await stack.run("fail 4", {"type": "verify", "criteria": "exit code is 4"})

    assert run["status"] == "completed"
    assert run["steps"][0]["status"] == "completed"
    assert run["steps"][0]["result"]["exitCode"] == 4


async def test_a_failing_verify_fails_the_run_and_says_why(stack: Stack) -> None:
    run = await stack.run("fail 1", EXIT_0)

    assert run["status"] == "failed"
    assert statuses(run) == ["completed", "failed"]
    assert run["error"] == {
        "code": "VERIFICATION_FAILED",
        "message": run["steps"][1]["result"]["message"],
        "step": "step-2",
    }
    assert "1" in run["error"]["message"]


async def test_on_failure_continue_goes_on_and_success_is_still_told_truly(stack: Stack) -> None:
    failing = {"type": "execute", "command": "fail 1", "onFailure": "continue"}
    unmet = {**EXIT_0, "onFailure": "continue"}

    run = await stack.run(failing, "fail 2", unmet, "say after")

    assert run["status"] == "completed"
    assert statuses(run) == ["failed", "completed", "failed", "completed"]
    assert run["result"]["success"] is False


async def test_a_failing_command_is_tried_as_often_as_it_may(stack: Stack) -> None:
    step = {"type": "execute", "command": "fail 1", "retry": {"maxAttempts": 3, "backoff": 0}}

    run = await stack.run(step)

    assert run["status"] == "failed"
    assert run["steps"][0]["attempt"] == 3
    assert len(commands_of(stack, run)) == 3


async def test_max_retries_are_further_attempts_of_each_step(stack: Stack) -> None:
    step = {"type": "execute", "command": "fail 1", "retry": {"backoff": 0}}

    run = await stack.run(step, config={"maxRetries": 1})

    assert run["steps"][0]["attempt"] == 2


async def test_a_failing_verify_repeats_from_the_command_that_it_judges(stack: Stack) -> None:
    verify = {**EXIT_0, "retry": {"maxAttempts": 3, "backoff": 0}}

    run = await stack.run("say once", "fail 1", verify)

    assert run["status"] == "failed"
    assert [step["attempt"] for step in run["steps"]] == [1, 3, 3]
    said = [command.argv[-1] for command in commands_of(stack, run)]
    assert said == ["say once", "fail 1", "fail 1", "fail 1"]


async def test_a_command_that_is_too_slow_times_out(stack: Stack) -> None:
    run = await stack.run({"type": "execute", "command": "wait for-ever", "timeout": 300})

    assert run["status"] == "failed"
    assert run["steps"][0]["status"] == "timed_out"
    assert run["error"]["code"] == "TIMEOUT"
    assert "0.3 s" in run["error"]["message"]


async def test_a_run_that_is_too_slow_is_timed_out_and_its_command_killed(stack: Stack) -> None:
    run = await stack.run("wait for-ever", "say never", config={"timeout": 1200})

    assert run["status"] == "timed_out"
    assert statuses(run) == ["timed_out", "skipped"]
    assert run["error"]["code"] == "TIMEOUT"
    assert sandbox_of(run) in stack.runtime.removed


async def test_a_sandbox_is_retired_with_the_outcome_of_the_last_step_alone(stack: Stack) -> None:
    workflow = await stack.workflow("say one", "wait second-and-open", "say three")
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    sandbox = sandbox_of(running)
    while len(commands_of(stack, running)) < 2:
        await asyncio.sleep(0.02)
    assert sandbox not in stack.runtime.retired

    stack.gates.open("second-and-open")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert sandbox in stack.runtime.removed
    for _ in range(100):  # nobody waits for it, and settling may have been faster
        if sandbox not in stack.runtime.retired:
            await asyncio.sleep(0.02)
    assert sandbox in stack.runtime.retired


async def test_cancelled_means_that_the_sandbox_is_gone(stack: Stack) -> None:
    workflow = await stack.workflow("wait for-ever", "say never")
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    assert sandbox_of(running) not in stack.runtime.removed

    await stack.call("POST", f"/workflows/{workflow['id']}/cancel")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "cancelled"
    assert statuses(run) == ["cancelled", "skipped"]
    assert sandbox_of(run) in stack.runtime.removed


async def test_cancelling_answers_at_once_and_waits_when_asked(stack: Stack) -> None:
    workflow = await stack.workflow("wait for-ever")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")

    run = await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30")

    assert run["status"] == "cancelled"


async def test_pause_lets_the_running_step_end_and_then_holds(stack: Stack) -> None:
    workflow = await stack.workflow("wait paused-step", "say after")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")

    await stack.call("POST", f"/workflows/{workflow['id']}/pause")
    stack.gates.open("paused-step")
    held = await stack.until(workflow["id"], "paused")
    assert statuses(held) == ["completed", "pending"]

    await stack.call("POST", f"/workflows/{workflow['id']}/resume")
    run = await stack.ended(workflow["id"])
    assert statuses(run) == ["completed", "completed"]


async def test_pause_and_resume_wait_when_asked_and_say_where_the_run_is(stack: Stack) -> None:
    workflow = await stack.workflow("last 0.3", "wait waited-for")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")

    held = await stack.http.post(f"/workflows/{workflow['id']}/pause?wait=20")
    assert held.json()["data"]["status"] == "paused"
    assert held.headers["Location"] == f"/v1/workflows/{workflow['id']}/runs/{run['runId']}"

    resumed = await stack.call("POST", f"/workflows/{workflow['id']}/resume?wait=20")
    assert resumed["status"] == "running"
    stack.gates.open("waited-for")
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


async def test_a_paused_run_can_be_cancelled(stack: Stack) -> None:
    workflow = await stack.workflow("wait held-step", "say after")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    await stack.call("POST", f"/workflows/{workflow['id']}/pause")
    stack.gates.open("held-step")
    await stack.until(workflow["id"], "paused")

    run = await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30")

    assert run["status"] == "cancelled"
    assert statuses(run) == ["completed", "skipped"]


async def test_the_steps_variables_win_over_the_starts_and_those_over_the_workflows(
    stack: Stack,
) -> None:
    step = {"type": "execute", "command": "say x", "environment": {"A": "step"}}

    run = await stack.run(
        step,
        environment={"A": "workflow", "B": "workflow", "C": "workflow"},
        start={"environment": {"A": "start", "B": "start"}},
    )

    (command,) = commands_of(stack, run)
    assert command.environment == {"A": "step", "B": "start", "C": "workflow"}


async def test_context_fills_templates_and_is_there_as_json(stack: Stack) -> None:
    run = await stack.run(
        "say {{context.reviewer}}",
        {"type": "verify", "criteria": "output contains '{{context.reviewer}}'"},
        start={"context": {"reviewer": "ai-assistant"}},
    )

    assert run["status"] == "completed"
    command = commands_of(stack, run)[0]
    assert command.argv[-1] == "say ai-assistant"
    assert command.context == '{"reviewer": "ai-assistant"}'


async def test_a_value_that_a_shell_would_interpret_fails_the_step(stack: Stack) -> None:
    run = await stack.run("say {{context.name}}", start={"context": {"name": "$(reboot)"}})

    assert run["status"] == "failed"
    assert run["error"]["code"] == "INVALID_TEMPLATE"
    assert "DIRECTOR_CONTEXT" in run["error"]["message"]
    assert commands_of(stack, run) == []


async def test_a_list_command_takes_any_value_as_it_is(stack: Stack) -> None:
    step = {"type": "execute", "command": ["say", "{{context.name}}"]}

    run = await stack.run(step, start={"context": {"name": "$(reboot); x"}})

    assert commands_of(stack, run)[0].argv == ["say", "$(reboot); x"]


async def test_a_template_without_a_value_fails_the_step_by_name(stack: Stack) -> None:
    run = await stack.run("say {{context.nobody}}")

    assert run["error"]["code"] == "INVALID_TEMPLATE"
    assert "nobody" in run["error"]["message"]


async def test_an_image_that_cannot_be_had_fails_the_run_with_the_reason(stack: Stack) -> None:
    stack.runtime._missing = ["no-such-image"]

    run = await stack.run("say x", config={"sandbox": {"image": "no-such-image"}})

    assert run["status"] == "failed"
    assert run["error"]["code"] == "SANDBOX_FAILED"
    assert "no-such-image" in run["error"]["message"]


async def test_a_departments_limits_are_the_ceiling_of_the_sandbox(stack: Stack) -> None:
    session = await stack.session()
    body = {"sessionId": session["id"], "name": "d", "domain": "d"}
    limits = {"config": {"resourceLimits": {"memory": 256, "cpu": 0.5}}}
    department = await stack.call("POST", "/departments", {**body, **limits})
    workflow = await stack.workflow(
        "say x",
        session_id=session["id"],
        departmentId=department["id"],
        config={"sandbox": {"resourceLimits": {"memory": 1024, "cpu": 0.25}}},
    )
    made: list = []
    create = stack.runtime.create
    stack.runtime.create = lambda spec: (made.append(spec), create(spec))[1]  # type: ignore[method-assign]
    try:
        await stack.start(workflow["id"])
        await stack.ended(workflow["id"])
    finally:
        stack.runtime.create = create  # type: ignore[method-assign]

    assert (made[0].memory_mib, made[0].cpus) == (256, 0.25)


async def test_a_checkpoint_keeps_the_workspaces_files_under_one_id(stack: Stack) -> None:
    run = await stack.run(
        "write out/report.txt done",
        {"type": "checkpoint", "name": "milestone", "description": "after {{context.what}}"},
        start={"context": {"what": "the work"}},
        workspace={"files": {"given.txt": "given"}},
    )

    result = run["steps"][1]["result"]
    assert run["result"]["checkpointIds"] == [result["checkpointId"]]
    assert (result["files"], result["bytes"]) == (2, len("done") + len("given"))
    checkpoint = await stack.call("GET", f"/checkpoints/{result['checkpointId']}")
    assert checkpoint["status"] == "ready"
    assert checkpoint["name"] == "milestone"
    assert checkpoint["description"] == "after the work"
    assert checkpoint["manifest"]["filesystem"]["files"] == 2
    assert checkpoint["manifest"]["state"]["hash"]


async def test_a_worker_that_goes_away_does_not_run_a_command_twice(stack: Stack) -> None:
    workflow = await stack.workflow("wait next-worker", "say after")
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    while not commands_of(stack, running):
        await asyncio.sleep(0.02)

    await stack.stop_worker()
    await stack.start_worker()
    stack.gates.open("next-worker")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert [command.argv[-1] for command in commands_of(stack, run)] == [
        "wait next-worker",
        "say after",
    ]


async def test_a_command_that_is_lost_with_its_container_is_repeated_and_says_so(
    stack: Stack,
) -> None:
    workflow = await stack.workflow("say x; wait lost-command")
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    while not commands_of(stack, running):
        await asyncio.sleep(0.02)

    stack.runtime.lose(sandbox_of(running))
    stack.gates.open("lost-command")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert run["steps"][0]["result"]["repeats"] == 1
    assert run["steps"][0]["result"]["stdout"] == "x\n"


async def test_a_command_that_ends_its_own_container_is_not_repeated_for_ever(
    stack: Stack,
) -> None:
    workflow = await stack.workflow("wait never-opened")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")
    for round in range(1, 5):
        while len(commands_of(stack, run)) < round:
            await asyncio.sleep(0.02)
        stack.runtime.lose(sandbox_of(run))

    ended = await stack.ended(workflow["id"])

    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "SANDBOX_FAILED"
    assert "4 times" in ended["error"]["message"]
    assert len(commands_of(stack, run)) == 4


async def test_a_runs_time_is_judged_between_short_steps_too(stack: Stack) -> None:
    run = await stack.run(*["last 0.4"] * 6, config={"timeout": 1000})

    assert run["status"] == "timed_out"
    assert run["error"]["code"] == "TIMEOUT"
    assert len(commands_of(stack, run)) in (2, 3)


async def test_waiting_for_the_next_attempt_counts_as_the_runs_time(stack: Stack) -> None:
    step = {"type": "execute", "command": "fail 1", "retry": {"maxAttempts": 5, "backoff": 60000}}

    run = await stack.run(step, config={"timeout": 1500})

    assert run["status"] == "timed_out"
    assert len(commands_of(stack, run)) == 1


async def test_the_runs_time_ends_the_command_of_a_criterion_too(stack: Stack) -> None:
    verify = {"type": "verify", "criteria": {"type": "command", "command": "wait ever"}}

    run = await stack.run("say x", verify, config={"timeout": 1200})

    assert run["status"] == "timed_out"
    assert run["steps"][1]["status"] == "timed_out"


async def test_a_criterions_command_that_is_lost_with_its_container_is_run_again(
    stack: Stack,
) -> None:
    criterion = {"type": "command", "command": "wait lost-criterion"}
    workflow = await stack.workflow("say x", {"type": "verify", "criteria": criterion})
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    while len(commands_of(stack, running)) < 2:
        await asyncio.sleep(0.02)

    stack.runtime.lose(sandbox_of(running))
    stack.gates.open("lost-criterion")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert len(commands_of(stack, run)) == 3


async def test_a_criterions_command_is_not_run_twice_when_its_worker_goes_away(
    stack: Stack,
) -> None:
    criterion = {"type": "command", "command": "wait handed-over"}
    workflow = await stack.workflow("say x", {"type": "verify", "criteria": criterion})
    await stack.start(workflow["id"])
    running = await stack.until(workflow["id"], "running")
    while len(commands_of(stack, running)) < 2:
        await asyncio.sleep(0.02)

    await stack.stop_worker()
    await stack.start_worker()
    stack.gates.open("handed-over")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert len(commands_of(stack, run)) == 2


async def test_what_a_sandbox_cannot_do_fails_the_step_and_is_not_tried_for_ever(
    stack: Stack,
) -> None:
    step = {"type": "execute", "command": ["say", "{{context.text}}"]}

    run = await stack.run(step, start={"context": {"text": "a\u0000b"}})

    assert run["status"] == "failed"
    assert run["error"]["code"] == "INVALID_TEMPLATE"
    assert commands_of(stack, run) == []


async def test_deleting_a_session_by_force_ends_its_runs_before_they_begin_anything(
    stack: Stack,
) -> None:
    session = await stack.session()
    workflow = await stack.workflow("say never", session_id=session["id"])
    await stack.stop_worker()
    try:
        run = await stack.start(workflow["id"])
        await stack.call("DELETE", f"/sessions/{session['id']}?force=true")
    finally:
        await stack.start_worker()
    while True:
        with stack.store.read() as database:
            row = database.get_one(RunRow, run["runId"])
        if RunStatus(row.status).ended:
            break
        await asyncio.sleep(0.05)

    assert row.status == "cancelled"
    assert commands_of(stack, run) == []


async def test_a_run_that_is_paused_before_a_worker_takes_it_holds(stack: Stack) -> None:
    workflow = await stack.workflow("say x")
    await stack.stop_worker()
    try:
        run = await stack.start(workflow["id"])
        await stack.call("POST", f"/workflows/{workflow['id']}/pause")
    finally:
        await stack.start_worker()

    await stack.until(workflow["id"], "paused")
    assert commands_of(stack, run) == []
    await stack.call("POST", f"/workflows/{workflow['id']}/resume")
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


def commands_of(stack: Stack, run: dict) -> list:
    """The commands that a run has started, in order."""
    sandbox = sandbox_of(run)
    return [command for id, command in stack.runtime.ran if id == sandbox]


def sandbox_of(run: dict) -> str:
    """The sandbox of a run has the run's own name."""
    return str(run["runId"]).replace("run_", "sbx_")


async def test_a_pause_whose_signal_is_lost_holds_before_the_next_step_all_the_same(
    stack: Stack,
) -> None:
    workflow = await stack.workflow("wait lost-pause", "say after-lost-pause")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    with stack.store.write() as session:
        runs.want_pause(session, session.get_one(RunRow, run["runId"]), pause=True)

    stack.gates.open("lost-pause")
    paused = await stack.until(workflow["id"], "paused")
    await stack.call("POST", f"/workflows/{workflow['id']}/resume")
    ended = await stack.ended(workflow["id"])

    assert [step["status"] for step in paused["steps"]] == ["completed", "pending"]
    assert ended["status"] == "completed"


async def test_a_pause_that_was_taken_back_before_it_was_heard_costs_no_wait(stack: Stack) -> None:
    workflow = await stack.workflow("wait brief-pause", "say after-brief-pause")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    with stack.store.write() as session:
        runs.want_pause(session, session.get_one(RunRow, run["runId"]), pause=True)
    stack.gates.open("brief-pause")
    while (await stack.call("GET", f"/workflows/{workflow['id']}/status"))["step"] == 0:
        await asyncio.sleep(0.02)

    await stack.call("POST", f"/workflows/{workflow['id']}/resume")

    assert (await stack.call("GET", f"/workflows/{workflow['id']}/status?wait=10"))["completedAt"]


async def test_a_run_that_was_paused_before_its_first_step_tells_when_it_begins(
    stack: Stack,
) -> None:
    session_id = (await stack.session())["id"]
    body = {"sessionId": session_id, "name": "d", "domain": "d"}
    pool = await stack.call("POST", "/departments", body)
    await stack.call("PUT", f"/departments/{pool['id']}", {"status": "paused"})
    workflow = await stack.workflow("say x", session_id=session_id, departmentId=pool["id"])
    run = await stack.start(workflow["id"])
    await stack.call("POST", f"/workflows/{workflow['id']}/pause?wait=10")
    resumed = await stack.call("POST", f"/workflows/{workflow['id']}/resume?wait=10")
    await stack.call("PUT", f"/departments/{pool['id']}", {"status": "active"})
    await stack.ended(workflow["id"])

    with stack.store.read() as session:
        rows = session.connection().exec_driver_sql(
            f"SELECT type FROM events WHERE subject = '{run['runId']}' ORDER BY seq"
        )
        told = [kind for (kind,) in rows if kind.startswith("workflow.")]

    assert resumed["startedAt"] is None, "no step has begun"
    assert told == [
        "workflow.queued",
        "workflow.paused",
        "workflow.resumed",
        "workflow.started",
        "workflow.completed",
    ]
