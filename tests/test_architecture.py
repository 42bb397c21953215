"""The rooms and the direction of imports: an edge that is not drawn here fails."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "mum": set(),
    "shards": set(),
    "pretrain": {"mum", "shards"},
    "probes": {"mum", "shards"},
}


def imported_rooms(source: str) -> set[str]:
    """The rooms that a module's import statements name, wherever in the file they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"importlib.import_module", "import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value).split(".")[0])
    return names & MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_downwards(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"the room {room}/ has no Python file"
    for path in files:
        wrong = imported_rooms(path.read_text()) - MAY_IMPORT[room] - {room}
        assert not wrong, (
            f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {room}/ may import {MAY_IMPORT[room]}"
        )


def test_walker_sees_every_form_of_import() -> None:
    for line in (
        "import probes",
        "import probes.report as r",
        "from probes.report import page",
        "def f():\n    from probes import report",
        "import importlib\nimportlib.import_module('probes.report')",
    ):
        assert imported_rooms(line) == {"probes"}


@pytest.mark.parametrize(
    "path", sorted(p for room in MAY_IMPORT for p in (ROOT / room).rglob("*.py")), ids=str
)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no opening paragraph"
    assert path.name not in {"utils.py", "misc.py", "common.py"}, f"{path.name} names no idea"
