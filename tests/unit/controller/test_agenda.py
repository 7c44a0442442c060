"""The agenda: what changed is handed out once, and nothing of it is lost."""

from __future__ import annotations

from modelium.controller.agenda import Agenda


def test_what_was_not_taken_yet_is_still_there_when_one_of_them_brings_out_a_defect() -> None:
    agenda = Agenda()
    for key in ("a", "b", "c"):
        agenda.forget(key)
    first = next(agenda.take_changed())
    assert {first, *agenda.take_changed()} == {"a", "b", "c"}
    assert not list(agenda.take_changed())
