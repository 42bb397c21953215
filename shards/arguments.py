"""A frozen dataclass as command-line options, and a parser whose errors are one sentence with the nearest name.

Fields become `--names`, their types the parsers, their defaults the defaults, the docstrings under them the
help.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line on stderr, suggests the nearest name, and exits 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Print `message` and leave."""
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, but name an unknown option before a missing one."""
        args = list(sys.argv[1:] if args is None else args)
        known = [option for action in self._actions for option in action.option_strings]
        has_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        for word in args[: args.index("--")] if "--" in args else args:
            if not has_commands and word.startswith("--") and word.split("=")[0] not in known:
                name = word.split("=")[0]
                self.error(f"there is no option {name}{nearest(name, known)}")
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse everything or leave with one sentence about the first word that has no place."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parsed.parser.error(f"{unknown[0]!r} has no place here")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            what = action.metavar or action.dest
            self.error(
                f"there is no {what} {value!r} among {', '.join(choices)}{nearest(str(value), choices)}"
            )


def nearest(name: str, known: Sequence[str]) -> str:
    """`, did you mean '...'?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def add_options(parser: argparse.ArgumentParser, options: type, title: str) -> None:
    """Add an option for every field of the dataclass `options`, as a group called `title`."""
    group, docs, hints = parser.add_argument_group(title), field_docs(options), typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            default=field.default,
            help=_help(docs.get(field.name, ""), field.default),
            **_parsing(hints[field.name]),
        )


def read_options(options: type, parsed: argparse.Namespace) -> Any:
    """An instance of the dataclass from parsed arguments."""
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(options)}
    return options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def field_docs(options: type) -> dict[str, str]:
    """Field -> the docstring under it, base classes included."""
    docs: dict[str, str] = {}
    for cls in reversed([c for c in options.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for line, following in itertools.pairwise(body):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[ast.unparse(line.target)] = " ".join(str(following.value.value).split())
    return docs


def _help(doc: str, default: Any) -> str:
    if isinstance(default, tuple):
        default = " ".join(f"{value:.4g}" for value in default)
    shown = "" if default is None or isinstance(default, bool) else f" (default: {default})"
    return (doc + shown).replace("%", "%%")


def _parsing(hint: Any) -> dict[str, Any]:
    """The keyword arguments of `add_argument` for a field's type."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        one = _parsing(parts[0])
        return one | {"nargs": len(parts), "metavar": (one["metavar"],) * len(parts)}
    if hint in (int, float, str, Path):
        return {"type": hint, "metavar": {int: "N", float: "X", str: "TEXT", Path: "PATH"}[hint]}
    raise TypeError(f"a field of type {hint} has no form on the command line")
