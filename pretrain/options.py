"""The options of a command as its dataclasses give them: names, values, what they mean, and the short help.

Reads types and the docstrings under fields; knows nothing of parsing, which is tyro's.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import tyro

WIDTH, COLUMN, LINES = 110, 38, 6
"""Columns of the short help, the one at which meanings begin, and the options of a group that have a line."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of the command line."""

    name: str
    """as it is typed, with its dashes"""
    group: str
    """the class of the configuration it belongs to"""
    value: Any
    """what it is where it is not given; tyro.MISSING where it must be"""
    meaning: str
    """its docstring in one line"""

    @property
    def typed(self) -> str:
        """Name and value; a flag has no value."""
        return f"{self.name} {_shown(self.value)}".rstrip()

    def line(self) -> str:
        """Name, value and the first clause of the meaning."""
        left = f"  {self.typed} ".ljust(COLUMN)
        return left + textwrap.shorten(self.first_clause, WIDTH - len(left), placeholder=" …")

    @property
    def first_clause(self) -> str:
        """The meaning up to its first semicolon or full stop outside of brackets."""
        off = "turn off: " if self.value is True else ""
        return off + re.split(r"(?:;|\. )(?![^(]*\))", self.meaning)[0].rstrip(".")


def options(defaults: Any, prefix: str = "") -> Iterator[Option]:
    """Every option of an instance of a dataclass, in the order of the fields, those of its dataclasses inside.

    A field annotated with an empty name (tyro's `arg(name="")`) lends its fields its own prefix. A flag that is on
    is turned off by no-NAME. Fields that tyro suppresses are none.
    """
    kind = type(defaults)
    for field in dataclasses.fields(kind):
        extra = getattr(field.type, "__metadata__", ())
        if any("suppress" in str(one).lower() for one in extra):
            continue
        value = getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            unnamed = any(getattr(one, "name", None) == "" for one in extra)
            yield from options(value, prefix if unnamed else f"{prefix}{field.name}.")
            continue
        bare = f"no-{field.name}" if value is True else field.name
        yield Option(
            name="--" + f"{prefix}{bare}".replace("_", "-"),
            group=kind.__name__,
            value=value,
            meaning=_meanings(kind).get(field.name, ""),
        )


def short_help(defaults: Any) -> str:
    """The options by groups, under a heading each: the first ones with a line, the rest by name and value."""
    groups: dict[str, list[Option]] = {}
    for option in options(defaults):
        groups.setdefault(option.group, []).append(option)
    lines: list[str] = []
    for group, found in groups.items():
        lines.append(heading(defaults, group))
        # A single one is not worth a line of its own kind.
        shown = LINES if len(found) > LINES + 1 else len(found)
        lines += [option.line() for option in found[:shown]]
        rest = ", ".join(option.typed for option in found[shown:]).replace(" ", "\xa0").replace(",\xa0", ", ")
        lines += textwrap.wrap(
            rest, WIDTH, initial_indent="  also ", subsequent_indent="       ", break_on_hyphens=False
        )
    return "\n".join(lines).replace("\xa0", " ")


def heading(defaults: Any, group: str) -> str:
    """The first line of a group's docstring."""
    return next(
        (inspect.getdoc(kind) or group).splitlines()[0]
        for kind in _classes(defaults)
        if kind.__name__ == group
    )


def _classes(defaults: Any) -> Iterator[type]:
    yield type(defaults)
    for field in dataclasses.fields(defaults):
        if dataclasses.is_dataclass(inner := getattr(defaults, field.name)):
            yield from _classes(inner)


def _shown(value: Any) -> str:
    """A value as it would be typed; nothing for flags."""
    if value is tyro.MISSING or isinstance(value, bool):
        return ""
    if isinstance(value, tuple | list):
        return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return '""' if value == "" else str(value)


@cache
def _meanings(kind: type) -> dict[str, str]:
    """Field name to the docstring under it, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    told = {}
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            told[field.target.id] = " ".join(str(below.value.value).split())
    return told
