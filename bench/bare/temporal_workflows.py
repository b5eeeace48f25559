"""Three no-op activities in a row."""

from datetime import timedelta

from temporalio import activity, workflow

QUEUE = "bare"


@activity.defn
async def nothing(step: str) -> str:
    """Do nothing."""
    return step


@workflow.defn
class ThreeSteps:
    """The least that Temporal does for three steps."""

    @workflow.run
    async def run(self) -> str:
        """Three activities, one after the other."""
        said = ""
        for step in ("1", "2", "3"):
            said = await workflow.execute_activity(
                nothing, step, start_to_close_timeout=timedelta(seconds=60)
            )
        return said
