"""The controller's ports: what it may do to the world, and what it may ask of it (both answer by events), and what a pass
looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from modelium.controller.life.effects import Check, Load, Unload, Watch
from modelium.values import Candidate, Capabilities, Device, Fleet, ModelOverride, Policies


class Actions(Protocol):
    """What may be done. Each returns at once; the end of the work is an event in the queue."""

    def analyze(self, candidates: Sequence[tuple[str, Candidate]], *, soon: bool) -> None:
        """Look at folders; ends in one ``Analyzed`` each. ``soon``: before all others."""

    def load(self, key: str, order: Load) -> None:
        """Write the entry if it is due, and load it; ends in ``HasLoaded`` or ``NotLoaded``."""

    def unload(self, key: str, order: Unload, *, current: Callable[[], bool]) -> None:
        """Unload and verify; ends in ``HasUnloaded`` or ``NotUnloaded``. ``current``: it is not history yet."""

    def bury(self, key: str, number: int) -> None:
        """End what is left of a model one of whose processes died; ends in ``HasUnloaded`` or ``NotUnloaded``."""

    def end(self, key: str) -> None:
        """End the processes of a load that waits for something that will not come."""

    def discard(self, key: str) -> None:
        """Ask Triton to forget a model; nobody waits for it."""

    def remove(self, key: str) -> None:
        """Remove the entry of a model that is not loaded."""


class Questions(Protocol):
    """What may be asked. ``fleet`` and ``capabilities`` answer at once, the others by an event."""

    def fleet(self) -> Fleet:
        """The devices, with what is taken on them now."""

    def capabilities(self) -> Capabilities:
        """What the connected Triton and Ray can serve now."""

    def check(self, key: str, order: Check) -> None:
        """Does it still serve? Ends in ``Checked``."""

    def watch(self, key: str, order: Watch) -> Iterator[Callable[[], None]]:
        """Tell when a process ends: one ``ProcessDied`` each. Gives what ends each watch, as it begins it."""

    def measure(self, generation: int, places: Callable[[], Mapping[str, Device]]) -> None:
        """A reading of Triton and of all processes; ends in ``Measured``. ``places()``: on which device each model is."""


class Sight(Protocol):
    """What a pass looks at besides the records; all of it answers at once."""

    @property
    def policies(self) -> Policies:
        """The knobs of the brain."""

    @property
    def overrides(self) -> Mapping[str, ModelOverride]:
        """What the user decided by hand, by the model's name."""

    @property
    def usage_window_s(self) -> float:
        """Over which requests per second are counted."""

    def fleet(self) -> Fleet:
        """The devices, with what is taken on them now."""

    def capabilities(self) -> Capabilities:
        """What the connected Triton and Ray can serve now."""
