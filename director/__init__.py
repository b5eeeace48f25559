"""Director: durable workflows for people and AI agents, run in Docker sandboxes on Temporal."""

__version__ = "0.1.0"
API_VERSION = "1.0.0"
