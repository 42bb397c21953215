"""Errors and scores as pure functions of numbers: no model, no file."""
