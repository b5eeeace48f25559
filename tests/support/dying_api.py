"""The API with a crash in it: after the commit of a start, before Temporal hears of it."""

import os
import signal
from functools import partial

from director.api.__main__ import main
from director.api.app import create_app
from director.api.gateway import Gateway
from director.domain.runs import RunInput


class DyingGateway(Gateway):
    """Ends its own process, as kill -9 would, where a run is to be started."""

    async def start(self, run: RunInput) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(partial(create_app, gateway=DyingGateway))
