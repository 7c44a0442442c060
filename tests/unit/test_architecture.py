"""The shape that design.md draws, held: rooms import one way, the brain touches nothing, a file reads in one sitting."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
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


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_file_reads_in_one_sitting() -> None:
    """A longer one needs a reason: look for the second idea in it."""
    long = {name_of(path) for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST}
    assert long == set(REASONED)


def test_a_file_says_what_it_is() -> None:
    silent = [
        name_of(path) for path in SOURCES if path.name != "__main__.py" and not first_line(path).startswith(('"""', 'r"""'))
    ]
    assert not silent, f"without a docstring: {silent}"


def first_line(path: Path) -> str:
    """Of what is no comment; that it is a docstring is seen without parsing the file, which takes seconds for all."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.strip() and not line.startswith("#")), "")


def test_a_test_neither_patches_our_code_nor_sleeps() -> None:
    tests = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    suspects = [
        path for path, text in tests.items() if "mock.patch" in text or "time.sleep" in text
    ]  # to parse all takes seconds
    found = [f"{name_of(path)}:{line}" for path in suspects for line in patches_and_sleeps(parse(path))]
    assert not found


def patches_and_sleeps(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=ast.Name(id="mock"), attr="patch") | ast.Attribute(value=ast.Name(id="time"), attr="sleep")
            ):
                yield node.lineno
            case _:
                pass


def test_a_patch_and_a_sleep_are_found() -> None:
    assert list(patches_and_sleeps(ast.parse("import time\n\nmock.patch('x')\ntime.sleep(1)"))) == [3, 4]


def test_every_thorough_test_is_there() -> None:
    """A name that nobody has would put a test that was renamed into the fast ring."""
    unit = ROOT / "tests" / "unit"
    for entry in (unit / "thorough.txt").read_text(encoding="utf-8").split():
        file, _, test = entry.partition("::")
        assert (unit / file).is_file(), entry
        assert not test or f"def {test}(" in (unit / file).read_text(encoding="utf-8"), entry
