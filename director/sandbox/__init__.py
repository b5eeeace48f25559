"""Sandboxes behind one Protocol; knows nothing of Temporal, HTTP or SQL."""
