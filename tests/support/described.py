"""The API's description, which takes a second to make: once for all tests of a process."""

from support.stack import Data

from director.api.app import create_app
from director.settings import read_settings

_SETTINGS = {"DIRECTOR_SECRET_KEY": "k" * 32, "DIRECTOR_HOME": "unused"}

SCHEMA: Data = create_app(read_settings(_SETTINGS)).openapi()
