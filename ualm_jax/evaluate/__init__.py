"""Judges of what a model made."""
