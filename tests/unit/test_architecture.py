"""The shape that design.md draws, held: rooms import one way, the brain touches nothing, a file reads in one sitting."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRAIN = sorted((ROOT / "modelium" / "brain").rglob("*.py"))
SOURCES = sorted(
    path
    for folder in ("modelium", "repository_templates", "triton", "bench", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)

LONGEST = 400
# Longer than that with a reason: path from the root → why there is no second idea in it.
REASONED: dict[str, str] = {"modelium/values/tasks.py": "a row a task, and what a row is: to be read as one table"}

_ACTING_NAMES = {"open", "print", "input", "exec", "eval", "__import__"}
_ACTING_MODULES = {
    "asyncio", "time", "datetime", "os", "io", "logging", "socket", "subprocess", "threading", "random", "secrets", "shutil",
    "sys", "tempfile", "aiohttp", "psutil", "pynvml", "requests", "urllib", "queue", "signal", "uuid",
}  # fmt: skip
_ACTING_METHODS = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "exists",
    "is_file",
    "is_dir",
    "stat",
    "iterdir",
    "glob",
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", BRAIN, ids=lambda path: path.name)
def test_the_brain_has_no_clock_no_files_and_does_not_wait(path: Path) -> None:
    for node in ast.walk(parse(path)):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                pytest.fail(f"{where}: async")
            case ast.Import(names=names):
                acting = {alias.name.split(".")[0] for alias in names} & _ACTING_MODULES
                assert not acting, f"{where}: imports {acting}"
            case ast.ImportFrom(module=str(module)):
                assert module.split(".")[0] not in _ACTING_MODULES, f"{where}: imports {module}"
            case ast.Call(func=ast.Name(id=name)):
                assert name not in _ACTING_NAMES, f"{where}: calls {name}()"
            case ast.Call(func=ast.Attribute(attr=name)):
                assert name not in _ACTING_METHODS, f"{where}: calls .{name}()"
            case ast.Global() | ast.Nonlocal():
                pytest.fail(f"{where}: state outside its arguments")
            case _:
                pass


def test_the_brain_is_there() -> None:
    assert len(BRAIN) > 3, "the test above would pass on an empty room"


def test_the_layers_of_imports_hold() -> None:
    """pyproject.toml has the contracts; ``make lint`` runs the same."""
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_reads_in_one_sitting(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST or name in REASONED, f"{name} has {lines} lines: look for the second idea in it"


def test_exceptions_to_the_length_are_still_needed() -> None:
    for name in REASONED:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > LONGEST, f"{name} is short enough now"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(parse(path))
    assert path.name == "__main__.py" or docstring, f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_neither_patches_our_code_nor_sleeps(path: Path) -> None:
    for node in ast.walk(parse(path)):
        match node:
            case (
                ast.Attribute(value=ast.Name(id="mock"), attr="patch") | ast.Attribute(value=ast.Name(id="time"), attr="sleep")
            ):
                pytest.fail(f"{path.relative_to(ROOT)}:{node.lineno}: {node.attr}")
            case _:
                pass
