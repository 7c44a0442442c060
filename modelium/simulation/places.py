"""Devices of a plain server, and who is on them: what lacks enters, who would have to go and what that costs leaves."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.orders import Order
from modelium.values import Device, DeviceKind

Loss = tuple[int, float]  # of models in use, and the worth of the others
Victim = tuple[float, int]  # its worth, and its index


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
    places: tuple[Place, ...] = ()  # where it is, or will be
    leases: int = 0
    epoch: int = 0  # of its stay: ends of an earlier one say nothing
    idle_worth: float = 0.0
    idle_since: float = 0.0
    since: float = 0.0
    waiters: deque[Waiter] = field(default_factory=deque)


def victims(
    place: Place, lacking: int, order: Order, models: Sequence[PlainModel], now: float, *, in_use: bool
) -> tuple[Loss, list[Victim]] | None:
    """What their loss costs, and who; None where all would not do."""
    if lacking <= 0:
        return (0, -math.inf), []
    idle = place.idle if order.steady else sorted((order.worth(index, now), index) for _, index in place.idle)
    chosen: list[Victim] = []
    busy = [(math.inf, index) for index in place.busy] if in_use else []
    for each in itertools.chain(idle, busy):
        chosen.append(each)
        lacking -= models[each[1]].spec.bytes_each
        if lacking <= 0:
            break
    else:
        return None
    for each in reversed(chosen[:-1]):  # whose room is not needed after all, the dearest first
        if lacking + models[each[1]].spec.bytes_each <= 0:
            lacking += models[each[1]].spec.bytes_each
            chosen.remove(each)
    return loss(chosen, order, models), chosen


def least_loss(
    group: list[Place], spec: SimulatedModel, order: Order, models: Sequence[PlainModel], now: float, *, due: bool
) -> tuple[Loss, list[Place], list[int]] | None:
    """On those of equal places where the least is lost; who is on several of them goes once. ``due``: who is in use may go."""
    each: list[tuple[Loss, int, list[Victim]]] = []
    for number, place in enumerate(group):
        lacking = spec.bytes_each - place.spare
        found = victims(place, lacking, order, models, now, in_use=False)
        if found is None and due:
            found = victims(place, lacking, order, models, now, in_use=True)
        if found is not None:
            each.append((found[0], number, found[1]))
    if len(each) < spec.tensor_parallel:
        return None
    each = sorted(each)[: spec.tensor_parallel]
    gone = dict.fromkeys(victim for _, _, some in each for victim in some)
    lost = loss(gone, order, models) if gone else (0, -math.inf)
    return lost, [group[number] for _, number, _ in each], [index for _, index in gone]


def loss(chosen: Iterable[Victim], order: Order, models: Sequence[PlainModel]) -> Loss:
    """What it costs to lose all these: how many of them are in use, and what the others' stay is worth."""
    each = list(chosen)
    idle = [(worth, index) for worth, index in each if worth < math.inf]
    if order.adds_up:
        lost = sum(worth * models[index].spec.bytes for worth, index in idle)
    else:
        lost = max((worth for worth, _ in idle), default=-math.inf)
    return len(each) - len(idle), lost


def groups(spec: SimulatedModel, places: Sequence[Place]) -> list[list[Place]]:
    """Of the places that could hold its part when empty those of which any will do, as many as it needs: what is spread needs
    equal ones."""
    equal: dict[int, list[Place]] = {}
    for place in places:
        if may_be_on(spec, place.device) and (spec.tensor_parallel == 1 or place.device.kind is DeviceKind.CUDA):
            equal.setdefault(place.device.budget_bytes if spec.tensor_parallel > 1 else 0, []).append(place)
    return [group for group in equal.values() if len(group) >= spec.tensor_parallel]


def may_be_on(model: SimulatedModel, device: Device) -> bool:
    """Could the empty device hold its part, and is it the right one?"""
    return model.bytes_each <= device.budget_bytes and model.may_be_on(device.id)
