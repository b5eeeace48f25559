"""Serve the API: `python -m director.api`, with its settings from `DIRECTOR_*`."""

import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from director.api.app import create_app
from director.logs import set_up_logs
from director.settings import Settings, SettingsError, private_home, read_settings
from director.store.engine import SchemaError, Store


def main(app: Callable[[Settings], FastAPI] = create_app) -> None:
    """Read the settings, see that home and database fit, and serve until a signal comes."""
    try:
        settings = read_settings()
        private_home(settings.home)
        store = Store(settings.database_url)
        store.create_tables()
        store.close()
    except (SettingsError, SchemaError) as error:
        sys.exit(f"director: {error}")
    set_up_logs(settings.log_format)
    uvicorn.run(
        app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_ping_interval=20,
        ws_max_size=1024 * 1024,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
