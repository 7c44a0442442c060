"""What each model could be served with, and where, worked out once until something about it changes.

What enters: models that wait, the devices, the servers, and what loads were measured to take. What leaves: offers, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelium.brain.engine.devices import smallest
from modelium.brain.placement.candidates import choose
from modelium.brain.placement.corrections import Corrections
from modelium.brain.placement.occupancy import Occupancy
from modelium.brain.placement.offers import Offer, Offers, rank_of
from modelium.values import Capabilities, ModelOverride, ModelProfile, ModelView, Policies, override_of


class Offering:
    """``policies``: with the corrections that were learned until now."""

    def __init__(
        self,
        devices: Occupancy,
        *,
        policies: Policies,
        overrides: Mapping[str, ModelOverride],
        capabilities: Capabilities,
    ) -> None:
        self._devices = devices
        self.policies = policies
        self.overrides = overrides
        self.capabilities = capabilities
        self._offers: dict[str, Offers] = {}
        self._only: dict[str, tuple[int, int]] = {}
        self._corrections = Corrections()

    # -- what changes ------------------------------------------------------------------------------------------------

    def learn(self, view: ModelView) -> bool:
        """Take account of what a model was measured to take. Is every estimate another one now?"""
        override = self.override(view.name)
        stated = override.memory_bytes is not None or override.exclusive  # then there is no estimate
        if not self.policies.correct_estimates or stated or not self._corrections.learn(view):
            return False
        self.policies = replace(self.policies, corrections=self._corrections.factors)
        return True

    def forget(self, name: str) -> None:
        """The one way of a model that changed."""
        self._only.pop(name, None)

    def forget_all(self) -> None:
        """Devices, servers or estimates have changed."""
        self._offers.clear()
        self._only.clear()

    # -- what is asked -----------------------------------------------------------------------------------------------

    def override(self, name: str) -> ModelOverride:
        """What the user decided about a model by hand."""
        return override_of(self.overrides, name)

    def of(self, view: ModelView, profile: ModelProfile) -> Offers:
        """The runtime, and the ways to place the model."""
        known = self._known(view)
        if known is not None:
            known.usable.sort(key=self._preference)
            return known
        override, devices = self.override(view.name), self._devices
        rooms = devices.representatives(profile, override)
        choice, usable = choose(view, profile, rooms, override, self.capabilities, self.policies, devices.fleet.ray)
        offers = devices.offered(usable, override)
        measured = view.footprint.measured_bytes, view.learned
        made = Offers(profile=profile, measured=measured, choice=choice, usable=offers)
        if all(offer.peers is not None or offer.ranks == 1 for offer in offers):  # else on what was the most free just now
            self._offers[view.name] = made
        return made

    def only_way(self, view: ModelView) -> tuple[int, int] | None:
        """On which equal devices it is to be placed, and what it takes there, where that is the one way, was worked out already
        and is no engine, which could be made smaller."""
        if (way := self._only.get(view.name)) is None:
            known = self._known(view)
            only = known.usable[0] if known is not None and len(known.usable) == 1 else None
            if only is None or only.peers is None or only.placement.engine is not None:
                return None
            way = self._only[view.name] = only.peers, only.placement.footprint.bytes
        return way

    def smallest(self, view: ModelView, offers: Offers) -> list[Offer]:
        """The engines among these with cache for one full-length request."""
        if offers.smallest is None:
            override = self.override(view.name)
            engines = [o.placement for o in offers.usable if o.placement.by_vllm and not o.placement.by_ray]
            fleet = {name: room.device for name, room in self._devices.rooms.items()}
            found = smallest(offers.profile, engines, fleet, override, self.policies) if engines else []
            offers.smallest = self._devices.offered(found, override)
        return offers.smallest

    def _known(self, view: ModelView) -> Offers | None:
        """What was worked out earlier, where that still holds."""
        known = self._offers.get(view.name)
        if known is None or known.profile is not view.profile:
            return None
        return known if known.measured == (view.footprint.measured_bytes, view.learned) else None

    def _preference(self, offer: Offer) -> tuple[bool, int, int]:
        """As the placements were ordered when they were made, by what is free now."""
        return *rank_of(offer.placement), -self._devices.most_free(offer)
