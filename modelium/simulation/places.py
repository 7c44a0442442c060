"""Devices of a plain server, and who is on them: what lacks enters, who would have to go and what that costs leaves."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.orders import Order
from modelium.values import Device


class Stage(IntEnum):
    """Of a model's stay on a device."""

    ABSENT = 0
    LOADING = 1
    LOADED = 2
    DRAINING = 3
    UNLOADING = 4


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for a load."""

    at: float
    duration_s: float
    answered: bool = False


@dataclass(slots=True, eq=False)
class Place:
    """A device. ``free``: bytes that nobody holds; ``returning``: of those who go; ``promised``: to those in ``queue``.

    ``idle``: (worth, index) of who is loaded and answers nothing, the least worth first.
    """

    device: Device
    free: int
    returning: int = 0
    promised: int = 0
    loads: int = 0
    queue: deque[int] = field(default_factory=deque)
    idle: list[tuple[float, int]] = field(default_factory=list)
    idle_bytes: int = 0
    busy: dict[int, None] = field(default_factory=dict)  # answering, the longest loaded first

    @property
    def spare(self) -> int:
        """Bytes that will be there and are nobody's."""
        return self.free + self.returning - self.promised


@dataclass(slots=True, eq=False)
class PlainModel:
    """``protected``: it is loaded at the start and stays. ``possible``: some device could hold it."""

    spec: SimulatedModel
    protected: bool
    possible: bool
    state: Stage = Stage.ABSENT
    place: Place | None = None  # where it is, or will be
    leases: int = 0
    epoch: int = 0  # of its stay: ends of an earlier one say nothing
    idle_worth: float = 0.0
    idle_since: float = 0.0
    since: float = 0.0
    waiters: deque[Waiter] = field(default_factory=deque)


def victims(
    place: Place, lacking: int, order: Order, models: Sequence[PlainModel], now: float, *, in_use: bool
) -> tuple[tuple[int, float], list[int]] | None:
    """What their loss costs, and who; None where all would not do."""
    if lacking <= 0:
        return (0, -math.inf), []
    idle = place.idle if order.steady else sorted((order.worth(index, now), index) for _, index in place.idle)
    chosen: list[tuple[float, int]] = []
    busy = [(math.inf, index) for index in place.busy] if in_use else []
    for each in itertools.chain(idle, busy):
        chosen.append(each)
        lacking -= models[each[1]].spec.bytes
        if lacking <= 0:
            break
    else:
        return None
    for each in reversed(chosen[:-1]):  # whose room is not needed after all, the dearest first
        if lacking + models[each[1]].spec.bytes <= 0:
            lacking += models[each[1]].spec.bytes
            chosen.remove(each)
    worths = [worth for worth, _ in chosen if worth < math.inf]
    if order.adds_up:
        lost = sum(worth * models[index].spec.bytes for worth, index in chosen if worth < math.inf)
    else:
        lost = max(worths, default=-math.inf)
    return (sum(worth == math.inf for worth, _ in chosen), lost), [index for _, index in chosen]


def may_be_on(model: SimulatedModel, device: Device) -> bool:
    """Could the empty device hold it, and is it the right one?"""
    return model.bytes <= device.budget_bytes and model.device in (None, device.id)
