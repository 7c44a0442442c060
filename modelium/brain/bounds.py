"""What a model may take beyond what it was thought to: measurements and the device's state enter, who has to go leaves.

A model's process can ask the machine for any amount of memory; nothing but this stands between it and everybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelium.sizes import human_bytes
from modelium.values import Device

RULE = "bound.1"
_TIMES = 2
_SLACK_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the processes of one model hold now, and what it was thought to need (from its files, or what its user states)."""

    model: str
    held_bytes: int
    expected_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgrown:
    """A model that has to be ended, by which rule, and why."""

    model: str
    rule: str
    reason: str


def bound_of(expected_bytes: int) -> int:
    """
    >>> bound_of(2**30) == 3 * 2**30
    True
    """
    return _TIMES * expected_bytes + _SLACK_BYTES


def who_outgrew(models: Iterable[Held], device: Device, *, pressure_fraction: float) -> Outgrown | None:
    """1. On a device under pressure the model that is furthest over twice its estimate and 1 GiB is unloaded, as by a failure
    of its own. One at a time: the memory that comes back may be enough for the others.

    Under pressure: more than ``pressure_fraction`` of all its memory is taken, by whomever, or the models together hold more
    than models may use. While there is room, a model may be as large as it likes: the estimate was ours.
    """
    models = list(models)
    together = sum(model.held_bytes for model in models)
    if device.used_bytes > pressure_fraction * device.total_bytes:
        why = f"{human_bytes(device.used_bytes)} of {human_bytes(device.total_bytes)} on {device.id} are taken"
    elif together > device.budget_bytes:
        why = f"models hold {human_bytes(together)} of the {human_bytes(device.budget_bytes)} that they may use on {device.id}"
    else:
        return None
    over = [model for model in models if model.held_bytes > bound_of(model.expected_bytes)]
    if not over:
        return None
    worst = max(over, key=lambda model: (model.held_bytes - bound_of(model.expected_bytes), model.model))
    return Outgrown(
        model=worst.model,
        rule=RULE,
        reason=f"its processes took {human_bytes(worst.held_bytes)} where {human_bytes(worst.expected_bytes)} were expected, "
        f"and {why}: more than twice that and 1 GiB is not lent then (`models: {{NAME: {{memory: …}}}}` says what it needs)",
    )
