"""This machine: its Docker engine, the sandbox image, packages of the system."""
