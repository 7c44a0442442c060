"""The table of phases and events: every place is decided, and each handler says itself where it stands."""

from __future__ import annotations

import ast
import typing
from pathlib import Path
from types import UnionType

import pytest

from modelium.controller.life import events as happens
from modelium.controller.life.phases import PHASES, Absent, AdapterFolder, Draining, Loaded, Loading, Unloading
from modelium.controller.life.table import TABLE, nothing
from tests.unit.test_architecture import ROOT

EVENTS = typing.get_args(happens.LifeEvent)

# What cannot happen, and raises: a decision, or a lease, is about a model as the pass saw it, and nothing came between.
IMPOSSIBLE = {
    (AdapterFolder, happens.Revised),
    (AdapterFolder, happens.UserUnloads),
    *((phase, happens.FoundInTriton) for phase in PHASES if phase is not Absent),
    *((phase, event) for phase in PHASES if phase is not Absent for event in (happens.LoadDecided, happens.RefusalDecided)),
    *((phase, happens.RuntimeFound) for phase in PHASES if phase is not Absent),
    *((phase, happens.WaitDecided) for phase in PHASES if phase is not Absent),
    *((phase, event) for phase in PHASES if phase is not Loaded for event in (happens.UnloadDecided, happens.Outgrew)),
    *((phase, event) for phase in PHASES if phase is not Loaded for event in (happens.ReloadDecided, happens.ReloadRefused)),
    *((phase, happens.LeaseTaken) for phase in (Absent, AdapterFolder, Loading, Unloading)),
    *((phase, happens.CalledBack) for phase in PHASES if phase is not Draining),
}


def test_every_phase_and_event_is_in_the_table_or_named_as_impossible() -> None:
    every = {(phase, event) for phase in PHASES for event in EVENTS}
    assert set(TABLE) | IMPOSSIBLE == every
    assert not set(TABLE) & IMPOSSIBLE
    assert len(TABLE) > 120, "the two tests of this file would pass on an empty table"


def members(annotation: object) -> set[object]:
    return set(typing.get_args(annotation)) if isinstance(annotation, UnionType) else {annotation}


@pytest.mark.parametrize(
    ("phase", "event"), [place for place, handler in TABLE.items() if handler is not nothing], ids=lambda each: each.__name__
)
def test_a_handler_is_annotated_for_the_place_where_it_stands(phase: type, event: type) -> None:
    """So that mypy checks what it does with both."""
    handler = TABLE[phase, event]
    hints = typing.get_type_hints(handler)
    assert members(hints["event"]) == {event}
    assert members(hints["phase"]) == {each for each, what in TABLE if TABLE[each, what] is handler}


def assignments(path: Path) -> list[str]:
    """Of a record: ``something.record = …``, in this file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    targets = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [f"{path.name}:{each.lineno}" for each in flat if isinstance(each, ast.Attribute) and each.attr == "record"]


def test_records_are_changed_in_one_place_of_the_program() -> None:
    """``docs/design.md`` says who may change a record: whoever calls ``Models.apply``, and nobody otherwise."""
    found = [place for path in (ROOT / "modelium").rglob("*.py") for place in assignments(path)]
    assert len(found) == 1 and found[0].startswith("models.py:"), found
