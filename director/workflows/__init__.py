"""Temporal workflows: deterministic code that decides what happens next."""
