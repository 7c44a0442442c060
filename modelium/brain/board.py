"""Everything that a plan is made from, kept up to date, so that a plan costs what changed and not what is known.

What enters: views as they change, the devices before each plan. What leaves: the devices with who is on them, what each model
could be served with, and who waits to be loaded.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping

from modelium.brain.placement.occupancy import Occupancy
from modelium.brain.placement.offering import Offering
from modelium.brain.views import Views
from modelium.values import (
    Capabilities,
    Demand,
    Fleet,
    ModelOverride,
    ModelView,
    Observed,
    Policies,
    Usage,
)

_Devices = tuple[str, ...]
_WeakKey = tuple[int, float, str]


class Board:
    """``plan()`` reads it, and notes who was ``told`` why it waits, for whom room was made where, and which devices are kept
    for whom: the next plan then need not find that out again, and keeps the same ones. ``strong``: who waits for whom others
    may go."""

    def __init__(
        self, *, fleet: Fleet, policies: Policies, overrides: Mapping[str, ModelOverride], capabilities: Capabilities
    ) -> None:
        self.views = Views()
        self.devices = Occupancy(self.views, policies)
        self.offering = Offering(self.devices, policies=policies, overrides=overrides, capabilities=capabilities)
        self.strong: dict[str, ModelView] = {}
        self._weak: list[_WeakKey] = []
        self._by_ray: dict[str, None] = {}
        self.told: set[str] = set()
        self.made_for: dict[str, _Devices] = {}
        self.kept_for: dict[str, _Devices] = {}
        self.look(fleet, capabilities)

    @classmethod
    def of(cls, observed: Observed) -> Board:
        """With all that was observed."""
        board = cls(
            fleet=observed.fleet,
            policies=observed.policies,
            overrides=observed.overrides,
            capabilities=observed.capabilities,
        )
        for view in observed.models:
            board.put(view)
        return board

    @property
    def policies(self) -> Policies:
        """With the corrections of estimates that were learned."""
        return self.offering.policies

    # -- what changes ------------------------------------------------------------------------------------------------

    def look(self, fleet: Fleet, capabilities: Capabilities) -> None:
        """The devices and the servers as they are now."""
        others = capabilities != self.offering.capabilities or fleet.ray != self.devices.fleet.ray
        self.offering.capabilities = capabilities
        if fleet is not self.devices.fleet:
            others = self.devices.look(fleet) or others
        if others:
            self._forget_offers()

    def put(self, view: ModelView) -> None:
        """A model that occupies memory, or that somebody wants, as it is now."""
        before = self.views.put(view)
        self.offering.forget(view.name)
        if before is not None:
            self._take_out(before, after=view)
        if self.offering.learn(view):
            self._forget_offers()
        if view.bytes_held and view.placement is not None:
            self.devices.put(view)
            if view.placement.replicas is not None:
                self._by_ray[view.name] = None
        if view.demand and view.state.may_load and view.retry_at is not None:
            if view.demand < Demand.POLICY:
                insort(self._weak, _weak_key(view))
            else:
                self.strong[view.name] = view

    def use(self, name: str, usage_of: Callable[[], Usage]) -> None:
        """A model that is here, loaded and wanted by nobody, was used, and nothing else about it changed. Who looks at it asks
        ``usage_of``."""
        self.views.use(name, usage_of)
        self.devices.use(self.views.last_made(name))

    def drop(self, name: str) -> None:
        """A model that occupies nothing and that nobody wants."""
        if (before := self.views.drop(name)) is not None:
            self.offering.forget(name)
            self._take_out(before, after=None)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def weak(self) -> Iterator[ModelView]:
        """Those whom only their discovery or a restart wants: the stronger demand first, then the longer waiting."""
        return (self.views[name] for _, _, name in tuple(self._weak))

    def by_ray(self) -> list[ModelView]:
        """Those that Ray serves."""
        return [self.views[name] for name in self._by_ray]

    # -- how ---------------------------------------------------------------------------------------------------------

    def _take_out(self, view: ModelView, *, after: ModelView | None) -> None:
        if view.bytes_held and view.placement is not None:
            self.devices.take_out(view, after=after)
            self._by_ray.pop(view.name, None)
        if self.strong.pop(view.name, None) is None and view.demand:
            at = bisect_left(self._weak, key := _weak_key(view))
            if at < len(self._weak) and self._weak[at] == key:
                del self._weak[at]
        if after is None or (after.demand, after.state) != (view.demand, view.state):
            self.told.discard(view.name)
            self.made_for.pop(view.name, None)
            self.kept_for.pop(view.name, None)

    def _forget_offers(self) -> None:
        """What models could be served with, and so why they wait, has changed."""
        self.offering.forget_all()
        self.told.clear()


def _weak_key(view: ModelView) -> _WeakKey:
    return -view.demand, view.demand_since, view.name
