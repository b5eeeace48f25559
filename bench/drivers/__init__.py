"""Clients, each in a process of its own, so that none of them is measured with what it drives."""
