"""Rows of every probe to tables, intervals, tests and files."""
