"""Who may go so that a model fits, and what that costs. What enters: a draft, a placement, and devices. What leaves: models,
the cheapest to lose first, or None where all who may go would not do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelium.brain import eviction, turns
from modelium.brain.draft import Draft
from modelium.brain.placement.offers import Offer
from modelium.values import ModelView, Placement, State

_FEW = 16  # equal devices of which each is looked at
_JUDGED_IN_TURN = 4  # of more

_Chosen = list[ModelView]
_MayGo = Callable[[str], Iterable[ModelView]]  # from a device, the cheapest to lose first


@dataclass(frozen=True, slots=True)
class Leavers:
    """Of one plan."""

    draft: Draft

    def evictable(self, device: str) -> _Chosen:
        """Who may go from ``device`` by eviction's rule 5, the cheapest to lose first."""
        now, policies = self.draft.now, self.draft.board.policies
        tenants = self.draft.devices.tenants.get(device)
        there = tenants.each() if tenants is not None else ()
        candidates = [
            view
            for view in there
            if view.name not in self.draft.leaving and eviction.deciding_rule(view, now, policies) in eviction.LETS_GO
        ]
        return eviction.in_order_of_sacrifice(candidates, now, policies)

    def idle_victims(self, placement: Placement, devices: Sequence[str]) -> _Chosen | None:
        """The cheapest models with whose memory and whose part of Ray's nodes, and all that is on its way back, it fits: none
        where that suffices by itself, None where all who may go would not do."""
        return self._choose(placement, devices, self.evictable)

    def victims(self, placement: Placement, devices: Sequence[str], holds: Sequence[turns.Hold]) -> _Chosen | None:
        """The same for somebody who waits, of all that nothing but ``holds`` keeps, whose loss does the least harm. Some of
        their room may not be needed (:meth:`needed`)."""
        if len(devices) == 1 and placement.replicas is None:  # the usual case, asked of each device of many
            return self._victims_on(devices[0], placement.footprint.bytes, holds)
        return self._choose(placement, devices, lambda device: self.draft.in_order(device, holds))

    def least_loss(self, placement: Placement, devices: Sequence[str]) -> float:
        """What making room there costs at least, where nobody in use goes: many devices need no closer look."""
        if len(devices) > 1 or placement.replicas is not None:
            return 0.0
        room, tenants = self.draft.room(devices[0]), self.draft.devices.judged(devices[0], self.draft.now, roughly=True)
        short = placement.footprint.bytes - room.free - room.returning
        harm = tenants.least_harm() if tenants is not None else math.inf
        return harm * short if short > 0 and math.isfinite(harm) else 0.0

    def promising(self, offer: Offer) -> Iterable[tuple[str, ...]]:
        """``Occupancy.places``, of many equal devices those first where room is cheap, as last judged. A few are judged again
        in turn: so what time changes is noticed, at a price that does not grow with the devices."""
        if offer.peers is None or len(peers := self.draft.devices.peers[offer.peers]) <= _FEW:
            return self.draft.devices.places(offer)
        for device in peers.in_turn(_JUDGED_IN_TURN):
            self.draft.devices.judged(device, self.draft.now, roughly=True)
        return ((device,) for device in peers.promising())

    def loss(self, devices: Sequence[str], victims: Iterable[ModelView]) -> float:
        """What it costs to lose all these, who are on the first of the devices or on several, as last judged."""
        there = [tenants for device in devices if (tenants := self.draft.devices.tenants.get(device)) is not None]
        return sum(next(one.loss_of(view) for one in there if view.name in one) for view in victims)

    def _victims_on(self, device: str, need: int, holds: Sequence[turns.Hold]) -> _Chosen | None:
        room, chosen = self.draft.room(device), list[ModelView]()
        short = need - room.free - room.returning
        tenants = self.draft.devices.tenants.get(device)
        if tenants is None or tenants.movable_bytes < short:
            return chosen if short <= 0 else None
        self.draft.devices.judged(device, self.draft.now)
        if short > 0 and tenants.is_refused(need, holds):
            return None
        for view in tenants.in_order(holds) if short > 0 else ():
            if view.name not in self.draft.leaving:
                chosen.append(view)
                short -= view.bytes_held
                if short <= 0:
                    break
        if short <= 0:
            return chosen
        if not self.draft.has_changed(device):  # else what this plan has promised there may be why
            tenants.refuse(need, holds)
        return None

    def lacking(self, placement: Placement, devices: Iterable[str]) -> dict[str, int]:
        """Device → bytes that are not there, and not on their way back."""
        need = placement.footprint.bytes
        return {device: need - (room := self.draft.room(device)).free - room.returning for device in devices}

    def promises(self, placement: Placement, devices: Sequence[str]) -> bool:
        """Would there be room on these if all went that is not kept for good?"""
        now, policies = self.draft.now, self.draft.board.policies
        there = self.draft.devices.held_on(devices)
        going = [
            view
            for view in there.values()
            if (view.state is State.LOADED and turns.hold(view, now, policies) is not turns.Hold.WORD)
            or (view.state is State.LOADING and not (view.pinned or view.always_loaded))
        ]
        lacking = self.lacking(placement, devices)
        for view in going:
            for device in _shared(view, lacking):
                lacking[device] -= view.bytes_held
        return max(lacking.values()) <= 0 and self.draft.cluster.would_fit(placement.replicas, {view.name for view in going})

    def look_at_residences(self, devices: Iterable[str]) -> None:
        """Somebody waits for room there: the end of a residence may find him some."""
        for device in devices:
            if (tenants := self.draft.devices.judged(device, self.draft.now)) is not None:
                self.draft.look_again_at(tenants.next_release())

    def needed(self, placement: Placement, devices: Sequence[str], chosen: _Chosen) -> _Chosen:
        """Without those, the dearest first, whose room is not needed."""
        over = {device: -lacking for device, lacking in self.lacking(placement, devices).items()}
        for view in chosen:
            for device in _shared(view, over):
                over[device] += view.bytes_held
        kept = list(chosen)
        for view in reversed(chosen):
            there = _shared(view, over)
            if any(over[device] < view.bytes_held for device in there):
                continue
            if placement.replicas is not None:
                without = self.draft.leaving.union(other.name for other in kept if other is not view)
                if not self.draft.cluster.would_fit(placement.replicas, without=without):
                    continue
            kept.remove(view)
            for device in there:
                over[device] -= view.bytes_held
        return kept

    def _choose(self, placement: Placement, devices: Sequence[str], may_go: _MayGo) -> _Chosen | None:
        chosen: _Chosen = []
        gone = set(self.draft.leaving)
        for device, short in self.lacking(placement, devices).items():
            lacking = short - sum(v.bytes_held for v in chosen if v.placement and device in v.placement.devices)
            candidates = iter(may_go(device) if lacking > 0 else ())
            while lacking > 0:
                victim = next(candidates, None)
                if victim is None:
                    return None
                if victim.name not in gone:
                    gone.add(victim.name)
                    chosen.append(victim)
                    lacking -= victim.bytes_held
        return self._and_on_nodes(placement, devices, chosen, may_go)

    def _and_on_nodes(self, placement: Placement, devices: Sequence[str], chosen: _Chosen, may_go: _MayGo) -> _Chosen | None:
        if placement.replicas is None:
            return chosen
        candidates = iter(may_go(devices[0]))
        leaving = self.draft.leaving.union(view.name for view in chosen)
        while not self.draft.cluster.would_fit(placement.replicas, without=leaving):
            victim = next(candidates, None)
            if victim is None:
                return None
            if victim.name not in leaving:
                chosen.append(victim)
                leaving.add(victim.name)
        return chosen


def _shared(view: ModelView, devices: Iterable[str]) -> list[str]:
    there = view.placement.devices if view.placement is not None else ()
    return [device for device in devices if device in there]
