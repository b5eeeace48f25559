"""The connection to Temporal, shared by the API and the workers."""
