"""Room for a model that waits, by what goes for it. What enters: a draft, and the ways to place the model. What leaves: in the
draft, who goes and where room is kept, or that nobody may go.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from modelium.brain import moving, turns
from modelium.brain.draft import AT_ITS_TURN, FREE, Draft, where
from modelium.brain.leavers import Leavers
from modelium.brain.placement import load_order
from modelium.brain.placement.offers import Offer
from modelium.brain.plan_words import together, who_holds
from modelium.sizes import human_bytes
from modelium.values import ModelView, Placement, Verb

_ENOUGH_TO_COMPARE = 4  # devices on which it is found out how few models have to go
_ENOUGH_TO_LOOK = 16  # devices on which room can be made: of many equal ones those that promise the most come first
_KEPT = 0  # beside numbers of holds: what is kept free for one whose turn has come
_OF_ONE = (len(FREE),)  # how room was looked for in vain for one who waits
_OF_ONE_DUE = (len(FREE), len(AT_ITS_TURN), _KEPT)

_Devices = tuple[str, ...]
_Harm = tuple[bool, int, float]


@dataclass(slots=True)
class RoomMaking:
    """Of one plan. ``waited_for``: devices where a request or a policy waits for room.

    ``_stuck``: what was found out about equal devices for a model of some size, and so for each larger one: nobody may go for
    it. ``_looked``: equal devices whose next end of a residence was noted. ``_full``: where a load would have to wait for
    others on some device, ``_wholly_full``: on each.
    """

    leavers: Leavers
    waited_for: set[str] = field(default_factory=set)
    _stuck: dict[Hashable, int] = field(default_factory=dict)
    _looked: set[Hashable] = field(default_factory=set)
    _full: set[Hashable] = field(default_factory=set)
    _wholly_full: set[Hashable] = field(default_factory=set)

    @property
    def draft(self) -> Draft:
        """What is decided until now."""
        return self.leavers.draft

    def waits_as_before(self, view: ModelView) -> bool:
        """Was it told why it waits, and does this plan know already that there is no room for it either? Hundreds may wait."""
        draft, board = self.draft, self.draft.board
        way = board.offering.only_way(view) if view.name in board.told else None
        if way is None:
            return False
        (peers, need), turn_at = way, turns.turn_at(view, board.policies)
        if board.devices.peers[peers].most_free >= need:
            return False
        ways = _OF_ONE_DUE if turn_at is not None and turn_at <= draft.now else _OF_ONE
        if any(need < self._stuck.get((peers, 1, way), need + 1) for way in ways):
            return False
        draft.look_again_at(turn_at)
        return True

    def replace_idle(self, view: ModelView, usable: list[Offer]) -> bool:
        """Room by what eviction's rule 5 lets go, on the first device where that suffices."""
        for offer in usable:
            for devices in self.draft.devices.places(offer):
                victims = self.leavers.idle_victims(offer.placement, devices)
                if victims is not None:
                    self._make_room(view, self.draft.devices.on(offer, devices), victims, swap=False)
                    return True
        return False

    def swap(self, view: ModelView, usable: list[Offer]) -> bool:
        """Room for somebody who waits, where it does the least harm; at his turn also by what is in use."""
        draft, board = self.draft, self.draft.board
        turn_at = turns.turn_at(view, board.policies)
        due = turn_at is not None and turn_at <= draft.now
        if self._is_being_made(view, usable):
            return True
        for holds in (FREE, AT_ITS_TURN) if due else (FREE,):
            found = [best for offer in usable if (best := self._least_harm(offer, holds)) is not None]
            if found:
                _, placement, victims = min(found, key=lambda each: each[0])
                self._make_room(view, placement, victims, swap=True)
                return True
        draft.look_again_at(turn_at)
        is_kept = due and turns.is_late(view, draft.now) and self._keep_free(view, usable)
        if not is_kept and any(offer.peers in self._full for offer in usable):
            if view.name not in board.told:
                words = "as many loads as may run side by side run, or wait for room, where it could go; it comes after them"
                draft.decide(view, Verb.WAIT, "plan.3", words)
            return True
        for offer in usable:
            if offer.peers not in self._looked:
                self._looked.add(offer.peers)
                self.leavers.look_at_residences(device for devices in board.devices.places(offer) for device in devices)
        return is_kept

    def _is_being_made(self, view: ModelView, usable: list[Offer]) -> bool:
        """Is the room that an earlier plan made for it on its way back, and does that still suffice?"""
        devices, board = self.draft.board.made_for.get(view.name), self.draft.board
        offer = next((each for each in usable if devices is not None and board.devices.may_be_on(each, devices)), None)
        if devices is None or offer is None or self.leavers.victims(offer.placement, devices, FREE) != []:
            return False
        self._make_room(view, board.devices.on(offer, devices), [], swap=True)
        return True

    def _least_harm(self, offer: Offer, holds: Sequence[turns.Hold]) -> tuple[_Harm, Placement, list[ModelView]] | None:
        """Where the loss of those who would have to go does the least harm, with what it does."""
        if offer.ranks > 1 and offer.peers is not None:
            return self._least_harm_together(offer, holds)
        draft, placement = self.draft, offer.placement
        need, known = placement.footprint.bytes, (offer.peers, 1, len(holds))
        if offer.peers is not None and (need >= self._stuck.get(known, need + 1) or offer.peers in self._wholly_full):
            return None
        found: list[tuple[_Harm, _Devices, list[ModelView]]] = []
        full = tried = looked = 0
        for devices in self.leavers.promising(offer):
            tried += 1
            if self._is_full(devices):
                full += 1
                continue
            if looked == _ENOUGH_TO_LOOK:
                break
            if len(found) == _ENOUGH_TO_COMPARE and (False, 0, self.leavers.least_loss(placement, devices)) > found[-1][0]:
                looked += 1
                continue
            if (victims := self.leavers.victims(placement, devices, holds)) is not None:
                looked += 1
                found = sorted([*found, (self._harm(devices, victims), devices, victims)], key=lambda each: each[0])
                found = found[:_ENOUGH_TO_COMPARE]
                if not victims:
                    break  # nobody need go
        if is_full := full > 0:
            self._full.add(offer.peers)
        if full == tried:
            self._wholly_full.add(offer.peers)
        if not found:
            if offer.peers is not None and not is_full:
                self._stuck[known] = need
            return None
        fewest = []
        for _, devices, victims in found:
            needed = self.leavers.needed(placement, devices, victims) if len(victims) > 1 else victims
            fewest.append((self._harm(devices, needed), devices, needed))
        harm, devices, victims = min(fewest, key=lambda each: each[0])
        return harm, draft.devices.on(offer, devices), victims

    def _least_harm_together(
        self, offer: Offer, holds: Sequence[turns.Hold]
    ) -> tuple[_Harm, Placement, list[ModelView]] | None:
        """The same on several equal devices: where it does the least harm on each; or, since the loss of one that is itself on
        several frees all of these, first of all on those that somebody is on who would go. Who goes is counted once."""
        draft, placement, ranks = self.draft, offer.placement, offer.ranks
        need, known = placement.footprint.bytes, (offer.peers, ranks, len(holds))
        if need >= self._stuck.get(known, need + 1):
            return None
        harms: dict[str, _Harm] = {}
        together: dict[frozenset[str], None] = {}
        for device in draft.devices.each_place(offer):
            if self._is_full((device,)):
                self._full.add(offer.peers)
            elif (victims := self.leavers.victims(placement, (device,), holds)) is not None:
                harms[device] = self._harm((device,), victims)
                together |= dict.fromkeys(
                    frozenset(v.placement.devices) for v in victims if v.placement is not None and len(v.placement.devices) > 1
                )
        if len(harms) < ranks:
            if offer.peers not in self._full:
                self._stuck[known] = need
            return None
        cheapest = sorted(harms, key=lambda device: (harms[device], device))
        found = []
        for some in (frozenset(cheapest[:ranks]), *islice(together, _ENOUGH_TO_COMPARE)):
            devices = tuple(sorted(cheapest, key=lambda device: device not in some)[:ranks])
            if (victims := self.leavers.victims(placement, devices, holds)) is not None:
                needed = self.leavers.needed(placement, devices, victims)
                found.append((self._harm(devices, needed), devices, needed))
        harm, devices, needed = min(found, key=lambda each: each[0])
        return harm, draft.devices.on(offer, devices), needed

    def _harm(self, devices: _Devices, victims: list[ModelView]) -> _Harm:
        """What is measured by an engine that starts is left alone for now, whatever that costs elsewhere."""
        is_measured = any(load_order.measures(self.draft.room(device)) for device in devices) if victims else False
        in_use = sum(bool(victim.usage.in_flight) for victim in victims)
        return is_measured, in_use, self.leavers.loss(devices, victims)

    def _is_full(self, devices: _Devices) -> bool:
        """As many loads run there, or are to come, as may run side by side."""
        draft, most = self.draft, self.draft.board.policies.loads_per_device
        return any(draft.room(device).loads + draft.made_room.get(device, 0) >= most for device in devices)

    def _keep_free(self, view: ModelView, usable: list[Offer]) -> bool:
        """Where there would be room if all went that is not kept for good, nothing else comes before it. False: nowhere."""
        draft, board = self.draft, self.draft.board
        for offer in usable:
            need, known = offer.placement.footprint.bytes, (offer.peers, offer.ranks, _KEPT)
            if offer.peers is not None and need >= self._stuck.get(known, need + 1):
                continue
            devices = self._worth_keeping(view, offer)
            if len(devices) == offer.ranks:
                promised = board.devices.on(offer, devices)
                for room in draft.change(devices):
                    room.reserved += need
                self.waited_for |= set(devices)
                board.kept_for[view.name] = devices
                if view.name not in board.told:
                    there = who_holds(board, draft.now, view, promised)
                    words = f"its turn has come, and nothing else comes to {where(promised)} before it: {there}"
                    draft.decide(view, Verb.WAIT, "plan.7", words)
                return True
            if offer.peers is not None:
                self._stuck[known] = need
        return False

    def _worth_keeping(self, view: ModelView, offer: Offer) -> _Devices:
        """Those that the last plan kept for it, or as many of the first as would have room."""
        board, kept = self.draft.board, self.draft.board.kept_for.get(view.name)
        if kept is not None and board.devices.may_be_on(offer, kept) and self.leavers.promises(offer.placement, kept):
            return kept
        found = list[str]()
        for device in board.devices.each_place(offer):
            if self.leavers.promises(offer.placement, (device,)):
                found.append(device)
                if len(found) == offer.ranks:
                    break
        return tuple(found)

    def _make_room(self, view: ModelView, placement: Placement, victims: list[ModelView], *, swap: bool) -> None:
        draft, board, need = self.draft, self.draft.board, placement.footprint.bytes
        starting = next((room for room in draft.rooms_for(placement) if victims and load_order.measures(room)), None)
        is_news = view.name not in board.told or board.made_for.get(view.name) != placement.devices
        if victims or is_news:
            free = human_bytes(draft.least_free(placement.devices))
            why = draft.lack(placement, f"{view.name} needs {human_bytes(need)}, {free} free on {where(placement)}")
            budgets = [room.device for room in draft.rooms_for(placement)]
            for victim in victims if starting is None else ():
                words = f"{why}{together(victim, placement, budgets)}" if swap else why
                other = moving.find_device(draft, victim, placement, self.waited_for) if swap else None
                draft.evict(victim, words, view if swap else None, victims, moves_to=other)
            draft.pressure |= dict.fromkeys(placement.devices, why)
            after = "memory that is being given back" if starting is None else f"the engine that starts on {starting.device.id}"
            draft.decide(view, Verb.WAIT, "plan.5", f"{why}; waiting for {after}")  # 5
        for room in draft.change(placement.devices):
            room.reserved += need
            draft.made_room[room.device.id] = draft.made_room.get(room.device.id, 0) + 1
        board.made_for[view.name] = placement.devices
