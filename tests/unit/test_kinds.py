"""Who may list the members of an enum: its table asks, and everybody else asks the table.

Two members of one enum in a tuple, a set, a list, a dict or one comparison after another are a private table of it: the next
member would have to be found there as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("modelium", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))

# Enum → files that may list its members, with the reason.
MAY_LIST = {
    "State": {
        "modelium/values/states.py": "the table of meanings",
        "modelium/brain/lifecycle.py": "the table of transitions",
    },
    "Runtime": {
        "modelium/brain/runtimes/choice.py": "the table of what each can serve, and the order of choice",
        "modelium/repository/config.py": "the table of what writes the entries of each",
    },
    "Task": {
        "modelium/values/tasks.py": "the table",
    },
}


@cache
def parse(path: Path, enum: str) -> ast.Module:
    """The file, or nothing of it where no word of it is the enum's name: to parse all of them takes seconds."""
    text = path.read_text(encoding="utf-8")
    return ast.parse(text if f"{enum}." in text else "")


def members(node: ast.AST, enum: str, *, deep: bool = False) -> set[str]:
    """Those that are named in it, not counting what stands in calls within unless ``deep``."""
    found = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        match each:
            case ast.Attribute(value=ast.Name(id=name), attr=member) if name == enum and member.isupper():
                found.add(member)
            case ast.Call() if each is not node and not deep:
                pass
            case _:
                waiting.extend(ast.iter_child_nodes(each))
    return found


def lists(tree: ast.AST, enum: str) -> Iterator[tuple[int, set[str]]]:
    """Where several of its members stand together."""
    for node in ast.walk(tree):
        match node:
            case ast.Tuple() | ast.Set() | ast.List():
                found = members(node, enum)
            case ast.BoolOp(op=op, values=parts):
                alike = (ast.Is, ast.Eq) if isinstance(op, ast.Or) else (ast.IsNot, ast.NotEq)
                compared = (part for part in parts if isinstance(part, ast.Compare) and isinstance(part.ops[0], alike))
                found = {member for part in compared for member in members(part, enum)}
            case ast.Match(cases=cases):
                found = {member for each in cases for member in members(each.pattern, enum)}
            case ast.Dict(keys=keys):
                found = {member for key in keys if key is not None for member in members(key, enum)}
            case ast.BinOp(op=ast.BitOr()):
                found = members(node, enum)
            case _:
                continue
        if len(found) > 1:
            yield node.lineno, found


@pytest.mark.parametrize("enum", MAY_LIST)
def test_only_its_table_lists_the_members_of_an_enum(enum: str) -> None:
    offences = []
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if any(name.startswith(allowed) for allowed in MAY_LIST[enum]):
            continue
        offences += [f"{name}:{line}: {', '.join(sorted(found))}" for line, found in lists(parse(path, enum), enum)]
    assert not offences, f"ask the table of {enum} instead of listing its members:\n" + "\n".join(offences)


# Where a runtime is spelled by name: its own files and the tables, and these.
NAMES_A_RUNTIME = {
    "modelium/values/places.py": "the enum; who answers where it is placed",
    "modelium/brain/runtimes/": "a file each",
    "modelium/brain/engine/devices.py": "an engine is vLLM's",
    "modelium/brain/placement/on_ray.py": "Ray's own places",
    "modelium/repository/config.py": "the table",
    "modelium/cli/abilities.py": "Ray is no backend of Triton's: it is there when the model runtime has it",
    "modelium/controller/adapters.py": "only vLLM takes adapters",
    "modelium/controller/reloads.py": "an engine can be planned smaller",
    "modelium/controller/routing.py": "what nobody can serve is as large as it would be there",
    "modelium/controller/world.py": "Ray is no backend of Triton's: it can be used when it is there",
}


def test_a_runtime_is_named_in_its_files_and_tables_alone() -> None:
    spelled = {str(path.relative_to(ROOT)) for path in SOURCES if members(parse(path, "Runtime"), "Runtime", deep=True)}
    for place in NAMES_A_RUNTIME:
        assert any(name.startswith(place) for name in spelled), f"{place} names none any more"
    assert not {name for name in spelled if not any(name.startswith(place) for place in NAMES_A_RUNTIME)}


@pytest.mark.parametrize(("enum", "allowed"), [(enum, name) for enum, names in MAY_LIST.items() for name in names])
def test_who_may_list_them_does(enum: str, allowed: str) -> None:
    paths = [path for path in SOURCES if str(path.relative_to(ROOT)).startswith(allowed)]
    assert any(True for path in paths for _ in lists(parse(path, enum), enum))


@pytest.mark.parametrize(
    "code",
    [
        "x = (State.LOADED, State.FAILED)",
        "x = frozenset({State.LOADED, State.FAILED})",
        "x = s is State.LOADED or s is State.FAILED",
        "x = s is not State.LOADED and s is not State.FAILED",
        "x = {State.LOADED: 1, State.FAILED: 2}",
        "match s:\n    case State.LOADED:\n        pass\n    case State.FAILED:\n        pass",
        "x = s in [State.LOADED, State.FAILED]",
    ],
)
def test_a_private_list_is_found(code: str) -> None:
    assert list(lists(ast.parse(code), "State"))


def test_one_member_is_no_list() -> None:
    code = "x = (s is State.LOADED, f(State.FAILED))\ny = (s is State.LOADED and a) or (s is State.LOADING and b)"
    assert not list(lists(ast.parse(code), "State"))
