"""Everything that a plan is made from, kept up to date, so that a plan costs what changed and not what is known.

What enters: views as they change, the devices before each plan. What leaves: what is committed and free on each device, who is
loaded there, who waits to be loaded, and what each of those could be served with.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace

from modelium.brain.engine.devices import smallest
from modelium.brain.placement import load_order
from modelium.brain.placement.candidates import choose
from modelium.brain.placement.corrections import Corrections
from modelium.brain.placement.offers import Offer, Offers, rank_of
from modelium.brain.placement.peers import Peers, likeness
from modelium.brain.placement.rooms import Room, rooms_of
from modelium.brain.placement.tenants import Tenants
from modelium.brain.views import Views
from modelium.values import (
    Capabilities,
    Demand,
    Fleet,
    ModelOverride,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Policies,
    State,
    Usage,
    override_of,
)

_MOST_RANKS = 16  # no engine is spread over more equal devices of one machine


_Devices = tuple[str, ...]
_WeakKey = tuple[int, float, str]


class Board:
    """``plan()`` reads it, and notes who was ``told`` why it waits, for whom room was made where, and which devices are kept
    for whom: the next plan then need not find that out again, and keeps the same ones."""

    def __init__(
        self, *, fleet: Fleet, policies: Policies, overrides: Mapping[str, ModelOverride], capabilities: Capabilities
    ) -> None:
        self.policies = policies
        self.overrides = overrides
        self.capabilities = capabilities
        self.fleet = Fleet(devices=())
        self.views = Views()
        self.rooms: dict[str, Room] = {}
        self.peers: dict[int, Peers] = {}
        self._holders: dict[str, dict[str, None]] = {}
        self.tenants: dict[str, Tenants] = {}
        self._by_ray: dict[str, None] = {}
        self.strong: dict[str, ModelView] = {}
        self.pressed: set[str] = set()  # devices of which more is taken than idle models may stay for
        self.told: set[str] = set()
        self._limit = policies.relieved_fraction
        self.made_for: dict[str, _Devices] = {}
        self.kept_for: dict[str, _Devices] = {}
        self._weak: list[_WeakKey] = []
        self._offers: dict[str, Offers] = {}
        self._shape: dict[str, Hashable] = {}
        self._likeness: dict[str, int] = {}  # the same, numbered: such keys are looked up for each model that waits
        self._chosen_of: dict[str, list[int]] = {}  # of each device, those that some user chose it among
        self._chosen: dict[tuple[int, frozenset[str]], int] = {}
        self._only: dict[str, tuple[int, int]] = {}
        self._corrections = Corrections()
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

    # -- what changes ------------------------------------------------------------------------------------------------

    def look(self, fleet: Fleet, capabilities: Capabilities) -> None:
        """The devices and the servers as they are now."""
        if capabilities != self.capabilities or fleet.ray != self.fleet.ray:
            self._forget_offers()
        self.capabilities = capabilities
        if fleet is self.fleet:
            return
        shape = {device.id: likeness(device) for device in fleet.devices}
        same, self.fleet = shape == self._shape, fleet
        if not same:
            self._rebuild(shape)
            return
        for device in fleet.devices:
            room = self.rooms[device.id]
            if device != room.device:
                room.device = device
                self._room_changed(room)

    def put(self, view: ModelView) -> None:
        """A model that occupies memory, or that somebody wants, as it is now."""
        before = self.views.put(view)
        self._only.pop(view.name, None)
        if before is not None:
            self._take_out(before, after=view)
        override = self.override(view.name)
        stated = override.memory_bytes is not None or override.exclusive  # then there is no estimate
        if self.policies.correct_estimates and not stated and self._corrections.learn(view):
            self.policies = replace(self.policies, corrections=self._corrections.factors)
            self._forget_offers()
        placement = view.placement
        if view.bytes_held and placement is not None:
            for device in placement.devices:
                if device in self.rooms:
                    self._count(device, view, 1)
                self._holders.setdefault(device, {})[view.name] = None
                if view.state is State.LOADED:
                    self.tenants.setdefault(device, Tenants(self.views)).put(view)
            if placement.replicas is not None:
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
        placement = self.views.last_made(name).placement
        for device in placement.devices if placement is not None else ():
            self.tenants[device].use(name)

    def drop(self, name: str) -> None:
        """A model that occupies nothing and that nobody wants."""
        if (before := self.views.drop(name)) is not None:
            self._only.pop(name, None)
            self._take_out(before, after=None)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def held_on(self, devices: Iterable[str]) -> dict[str, ModelView]:
        """By name, who takes memory on one of these at least, or was promised it."""
        return {name: self.views[name] for device in devices for name in self._holders.get(device, ())}

    def by_ray(self) -> list[ModelView]:
        """Those that Ray serves."""
        return [self.views[name] for name in self._by_ray]

    def weak(self) -> Iterator[ModelView]:
        """Those whom only their discovery or a restart wants: the stronger demand first, then the longer waiting."""
        return (self.views[name] for _, _, name in tuple(self._weak))

    def override(self, name: str) -> ModelOverride:
        """What the user decided about a model by hand."""
        return override_of(self.overrides, name)

    def offers(self, view: ModelView, profile: ModelProfile) -> Offers:
        """The runtime, and the ways to place the model, worked out once until something about it changes."""
        known = self._known_offers(view)
        if known is not None:
            known.usable.sort(key=self._preference)
            return known
        override = self.override(view.name)
        rooms = self._representatives(profile, override)
        choice, usable = choose(view, profile, rooms, override, self.capabilities, self.policies, self.fleet.ray)
        offers = self._offered(usable, override)
        measured = view.footprint.measured_bytes, view.learned
        made = Offers(profile=profile, measured=measured, choice=choice, usable=offers)
        if all(offer.peers is not None or offer.ranks == 1 for offer in offers):  # else on what was the most free just now
            self._offers[view.name] = made
        return made

    def _known_offers(self, view: ModelView) -> Offers | None:
        """What was worked out earlier, where that still holds."""
        known = self._offers.get(view.name)
        if known is None or known.profile is not view.profile:
            return None
        return known if known.measured == (view.footprint.measured_bytes, view.learned) else None

    def _preference(self, offer: Offer) -> tuple[bool, int, int]:
        """As the placements were ordered when they were made, by what is free now."""
        return *rank_of(offer.placement), -self.most_free(offer)

    def only_way(self, view: ModelView) -> tuple[int, int] | None:
        """On which equal devices it is to be placed, and what it takes there, where that is the one way, was worked out already
        and is no engine, which could be made smaller."""
        if (way := self._only.get(view.name)) is None:
            known = self._known_offers(view)
            only = known.usable[0] if known is not None and len(known.usable) == 1 else None
            if only is None or only.peers is None or only.placement.engine is not None:
                return None
            way = self._only[view.name] = only.peers, only.placement.footprint.bytes
        return way

    def smallest(self, view: ModelView, offers: Offers) -> list[Offer]:
        """The engines among these with cache for one full-length request."""
        if offers.smallest is None:
            engines = [o.placement for o in offers.usable if o.placement.by_vllm and not o.placement.by_ray]
            fleet = {name: room.device for name, room in self.rooms.items()}
            found = smallest(offers.profile, engines, fleet, self.override(view.name), self.policies) if engines else []
            offers.smallest = self._offered(found, self.override(view.name))
        return offers.smallest

    def places(self, offer: Offer) -> Iterable[_Devices]:
        """Devices, or groups of them, that it could be placed on: the most free first. Of groups only some, each device in
        one at least."""
        if offer.peers is None:
            return (offer.placement.devices,)
        if offer.ranks == 1:
            return ((name,) for name in self.peers[offer.peers])
        return _neighbours(tuple(self.peers[offer.peers]), offer.ranks)

    def each_place(self, offer: Offer) -> Iterable[str]:
        """Single devices, of which it takes any ``ranks`` together: the most free first."""
        return offer.placement.devices if offer.peers is None else self.peers[offer.peers]

    def judged(self, device: str, now: float, *, roughly: bool = False) -> Tenants | None:
        """Who is loaded there, in the order to go as of now; None where nobody is."""
        tenants = self.tenants.get(device)
        if tenants is not None and tenants.judge(now, self.policies, roughly=roughly) and device in self._likeness:
            for peers in self._peers_of(device):
                peers.set_harm(device, tenants.least_harm())
        return tenants

    def alike(self, device: str) -> Iterable[str]:
        """The device and those that equal it, the most free first."""
        return self.peers[self._likeness[device]]

    def may_be_on(self, offer: Offer, devices: _Devices) -> bool:
        """Could it be placed there?"""
        if offer.peers is None:
            return devices == offer.placement.devices
        return len(devices) == offer.ranks and all(device in self.peers[offer.peers] for device in devices)

    def most_free(self, offer: Offer) -> int:
        """Bytes free on each of the first of :meth:`places`: a model that needs more finds no room on any."""
        if offer.peers is not None:
            return self.peers[offer.peers].free_on_each_of(offer.ranks)
        return min(self.rooms[device].free for device in offer.placement.devices)

    def is_measured(self, devices: Iterable[str]) -> bool:
        """Does a vllm engine start on one of these? It measures what is free there, so nothing may go (``load_order``)."""
        return any(load_order.measures(self.rooms[name]) for name in devices if name in self.rooms)

    def on(self, offer: Offer, devices: _Devices) -> Placement:
        """The placement there."""
        return offer.on([self.rooms[device].device for device in devices])

    # -- how ---------------------------------------------------------------------------------------------------------

    def _representatives(self, profile: ModelProfile, override: ModelOverride) -> list[Room]:
        """Of equal devices the most free one; where an engine may take several, as many as it could take."""
        if override.names_devices:
            return [room for name, room in self.rooms.items() if override.allows(name)]
        most = _MOST_RANKS if profile.language is not None else 1
        each = [self.peers[likeness] for likeness in dict.fromkeys(self._likeness.values())]
        return [self.rooms[name] for peers in each for name, _ in zip(peers, range(most), strict=False)]

    def _offered(self, usable: list[Placement], override: ModelOverride) -> list[Offer]:
        """One for each placement on the device that the user chose, or on devices which differ; and one for all equal devices
        together (of those he chose), or for any so many of them."""
        found: list[Offer] = []
        alike: set[Hashable] = set()
        for placement in usable:
            key, *others = {self._likeness[device] for device in placement.devices}
            if override.device is None and override.devices and not others:
                key = self._among(key, override.devices)
            if override.device is not None or others:
                found.append(Offer(placement=placement, peers=None))
            elif (key, len(placement.devices)) not in alike:
                alike.add((key, len(placement.devices)))
                found.append(Offer(placement=placement, peers=key))
        return found

    def _among(self, likeness: int, devices: frozenset[str]) -> int:
        """The number of equal devices among those that the user chose for some models: kept like all equal ones."""
        known = self._chosen.get((likeness, devices))
        if known is None:
            known = self._chosen[likeness, devices] = len(self.peers)
            self.peers[known] = Peers()
            for name in devices & self.rooms.keys():
                if self._likeness[name] == likeness:
                    self._chosen_of.setdefault(name, []).append(known)
                    self.peers[known].set_free(name, self.rooms[name].free)
        return known

    def _peers_of(self, device: str) -> list[Peers]:
        """Wherever it is one of equal ones."""
        return [self.peers[key] for key in (self._likeness[device], *self._chosen_of.get(device, ()))]

    def _count(self, device: str, view: ModelView, times: int) -> None:
        room = self.rooms[device]
        room.count(view, times)
        self._room_changed(room)

    def _room_changed(self, room: Room) -> None:
        device = room.device.id
        for peers in self._peers_of(device):
            peers.set_free(device, room.free)
        if room.committed - room.returning > self._limit * room.device.budget_bytes:
            self.pressed.add(device)
        else:
            self.pressed.discard(device)
        if (tenants := self.tenants.get(device)) is not None:
            tenants.forget_refusals()

    def _take_out(self, view: ModelView, *, after: ModelView | None) -> None:
        placement = view.placement
        if view.bytes_held and placement is not None:
            stays = _stays_loaded(after, placement)
            for device in placement.devices:
                if device in self.rooms:
                    self._count(device, view, -1)
                self._holders[device].pop(view.name, None)
                if view.state is State.LOADED and not stays:
                    self.tenants[device].drop(view.name)
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
        self._offers.clear()
        self._only.clear()
        self.told.clear()

    def _rebuild(self, shape: dict[str, Hashable]) -> None:
        """Devices came, went or changed."""
        numbers = {like: number for number, like in enumerate(dict.fromkeys(shape.values()))}
        self._shape = shape
        self._likeness = {device: numbers[like] for device, like in shape.items()}
        self._chosen_of, self._chosen = {}, {}
        self._forget_offers()
        self.rooms = rooms_of(self.fleet.devices, self.views.values())
        self.peers = {number: Peers() for number in numbers.values()}
        self.pressed = set()
        for room in self.rooms.values():
            self._room_changed(room)


def _stays_loaded(after: ModelView | None, before: Placement) -> bool:
    """Where it was: its tenancy is then only brought up to date."""
    if after is None or after.state is not State.LOADED or not after.bytes_held or after.placement is None:
        return False
    return after.placement is before or after.placement.devices == before.devices


def _neighbours(devices: _Devices, count: int) -> Iterator[_Devices]:
    """So many that follow each other, from each of them on."""
    return (devices[at : at + count] for at in range(len(devices) - count + 1))


def _weak_key(view: ModelView) -> _WeakKey:
    return -view.demand, view.demand_since, view.name
