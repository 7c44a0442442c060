"""The table: what each event does in each phase. A record and an event enter, the next record and effects leave.

A handler is registered for a phase and an event with ``@on(Event, Phase, …)``. What is not in the table raises
``IllegalTransition``; what is in it as ``nothing`` may happen and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from modelium.brain import lifecycle
from modelium.controller.life.context import Context
from modelium.controller.life.effects import Effect
from modelium.controller.life.events import LifeEvent
from modelium.controller.life.record import Record
from modelium.errors import IllegalTransition

Step = tuple[Record, tuple[Effect, ...]]
Handler = Callable[[Record, Any, Any, Context], Step]
H = TypeVar("H", bound=Handler)

TABLE: dict[tuple[type, type], Handler] = {}


def on(event: type, *phases: type) -> Callable[[H], H]:
    """Register a handler for an event in these phases; its annotations say the same, which a test holds.

    Raises ``ValueError`` where the table has one already.
    """

    def register(handler: H) -> H:
        for phase in phases:
            if (phase, event) in TABLE:
                raise ValueError(f"{phase.__name__} × {event.__name__} is in the table already")
            TABLE[phase, event] = handler
        return handler

    return register


def nothing(record: Record, phase: object, event: object, context: Context) -> Step:
    """It may happen here, and changes nothing: what it was about is history."""
    return record, ()


def ignore(phases: Iterable[type], *events: type) -> None:
    """These events change nothing in these phases."""
    for event in events:
        on(event, *phases)(nothing)


def step(record: Record, event: LifeEvent, context: Context) -> Step:
    """The record after ``event``, and what is to be done. Pure.

    Raises ``IllegalTransition`` where the table has no such place, or a handler leads to a state that may not follow.
    """
    handler = TABLE.get((type(record.phase), type(event)))
    if handler is None:
        raise IllegalTransition(f"{record.key}: {type(event).__name__} cannot happen to a model that is {record.state}")
    after, effects = handler(record, record.phase, event, context)
    lifecycle.advance(record.key, record.state, after.state)
    return after, effects
