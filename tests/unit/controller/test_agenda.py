"""The agenda: what changed is handed out once, and nothing of it is lost."""

from __future__ import annotations

from modelium.controller.agenda import Agenda
from modelium.controller.life import events as happens
from modelium.controller.life.events import LifeEvent
from modelium.controller.model import Model
from tests.unit.controller.histories import SEEN_AT_WORK, STUB, Life, read, told


def changes(life: Life, agenda: Agenda, *events: LifeEvent) -> list[tuple[str, bool]]:
    """What the agenda hands out after these."""
    for event in events:
        before = life.record
        life.tell(event)
        agenda.note(Model(life.record), before)
    return list(agenda.take_changed())


def test_what_was_not_taken_yet_is_still_there_when_one_of_them_brings_out_a_defect() -> None:
    agenda = Agenda()
    for key in ("a", "b", "c"):
        agenda.forget(key)
    first = next(agenda.take_changed())
    assert {key for key, _ in (first, *agenda.take_changed())} == {"a", "b", "c"}
    assert not list(agenda.take_changed())


def test_what_was_only_used_is_told_from_what_changed_otherwise() -> None:
    life, agenda = told(*SEEN_AT_WORK), Agenda()
    returned = happens.LeaseReturned(room_is_wanted=False)
    assert changes(life, agenda, happens.LeaseTaken(comes=True), returned) == [("m", True)]
    assert changes(life, agenda, read(STUB)) == [("m", True)], "a reading that says what the last one said"
    assert changes(life, agenda, happens.LeaseTaken(comes=True), happens.Pinned(pinned=True), returned) == [("m", False)]
    assert changes(life, agenda, returned) == [("m", False)], "it is wanted"
