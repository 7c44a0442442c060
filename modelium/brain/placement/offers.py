"""The ways to place a model if nothing else were loaded, each worked out once for all equal devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelium.brain.engine.devices import move_to
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.values import Device, DeviceKind, ModelProfile, Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to place a model: on any of ``peers`` (``Occupancy.peers``), or as many of them together as ``placement`` is on,
    or (None) as it says."""

    placement: Placement
    peers: int | None

    @property
    def ranks(self) -> int:
        """On how many devices it is together."""
        return len(self.placement.devices)

    def on(self, devices: Sequence[Device]) -> Placement:
        """The placement there."""
        return self.placement if self.peers is None else move_to(devices, self.placement)


@dataclass(slots=True, kw_only=True)
class Offers:
    """How a model could be served if nothing else were loaded, best first. ``smallest``: engines with as little cache as they
    can do with; None while nobody asked."""

    profile: ModelProfile
    measured: tuple[int | None, Mapping[str, int]]
    choice: RuntimeChoice
    usable: list[Offer]
    smallest: list[Offer] | None = None


def rank_of(placement: Placement) -> tuple[bool, int]:
    """What counts before the room that there is: accelerators first, and of engines the longest context."""
    engine = placement.engine
    return placement.device_kind is DeviceKind.HOST, -engine.max_model_len if engine is not None else 0
