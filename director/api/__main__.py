"""Serve the API: `python -m director.api`, with its settings from `DIRECTOR_*`."""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog
from fastapi import FastAPI

from director.api.app import create_app
from director.api.server import Server
from director.logs import set_up_logs
from director.settings import Settings, SettingsError, private_home, read_settings
from director.store.database import AwayError
from director.store.engine import Store
from director.store.schema import SchemaError

log = structlog.get_logger()

_PATIENCE = 60.0
"""Seconds for which the database is waited for."""


def main(app: Callable[[Settings], FastAPI] = create_app) -> None:
    """Read the settings, see that home and database fit, and serve until a signal comes."""
    try:
        settings = read_settings()
        set_up_logs(settings.log_format)
        private_home(settings.home)
        store = Store(settings.database_url)
        store.wait(_PATIENCE, _say)
        store.create_tables()
        store.close()
    except (SettingsError, SchemaError, AwayError) as error:
        sys.exit(f"director: {error}")
    server = Server(app(settings), settings.host, settings.port)
    gc.collect()
    gc.freeze()  # or each full collection looks through all code again, and everybody waits 0.1 s
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(1)


def _say(error: AwayError) -> None:
    log.warning("the database is not ready", why=str(error))


if __name__ == "__main__":
    main()
