"""Judges criteria by what a command did and left behind."""
