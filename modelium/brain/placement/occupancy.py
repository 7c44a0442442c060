"""Devices, what is committed and free on each, which of them are alike, and who is loaded there.

What enters: the devices as they are, models as they take memory and give it back. What leaves: rooms, the places that an offer
could take, the most free first, and who might go from them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from modelium.brain.placement import load_order
from modelium.brain.placement.offers import Offer
from modelium.brain.placement.peers import Peers, likeness
from modelium.brain.placement.rooms import Room, rooms_of
from modelium.brain.placement.tenants import Tenants
from modelium.brain.views import Views
from modelium.values import Fleet, ModelOverride, ModelProfile, ModelView, Placement, Policies, State

_MOST_RANKS = 16  # no engine is spread over more equal devices of one machine

_Devices = tuple[str, ...]


class Occupancy:
    """``views``: of all models. ``policies``: how those are judged who might go. ``pressed``: devices of which more is taken
    than idle models may stay for."""

    def __init__(self, views: Views, policies: Policies) -> None:
        self._views = views
        self._policies = policies
        self._limit = policies.relieved_fraction
        self.fleet = Fleet(devices=())
        self.rooms: dict[str, Room] = {}
        self.peers: dict[int, Peers] = {}
        self.tenants: dict[str, Tenants] = {}
        self.pressed: set[str] = set()
        self._holders: dict[str, dict[str, None]] = {}
        self._shape: dict[str, Hashable] = {}
        self._likeness: dict[str, int] = {}  # the same, numbered: such keys are looked up for each model that waits
        self._chosen_of: dict[str, list[int]] = {}  # of each device, those that some user chose it among
        self._chosen: dict[tuple[int, frozenset[str]], int] = {}

    # -- what changes ------------------------------------------------------------------------------------------------

    def look(self, fleet: Fleet) -> bool:
        """The devices as they are now. Did any come, go, or become another one?"""
        shape = {device.id: likeness(device) for device in fleet.devices}
        same, self.fleet = shape == self._shape, fleet
        if not same:
            self._rebuild(shape)
            return True
        for device in fleet.devices:
            room = self.rooms[device.id]
            if device != room.device:
                room.device = device
                self._room_changed(room)
        return False

    def put(self, view: ModelView) -> None:
        """A model that takes memory, or was promised it."""
        for device in view.placement.devices if view.placement is not None else ():
            if device in self.rooms:
                self._count(device, view, 1)
            self._holders.setdefault(device, {})[view.name] = None
            if view.state is State.LOADED:
                self.tenants.setdefault(device, Tenants(self._views)).put(view)

    def use(self, view: ModelView) -> None:
        """One that is loaded was used, and nothing else about it changed."""
        for device in view.placement.devices if view.placement is not None else ():
            self.tenants[device].use(view.name)

    def take_out(self, view: ModelView, *, after: ModelView | None) -> None:
        """A model that took memory as ``view`` says, before it is put as ``after`` says; None: it takes none any more."""
        if view.placement is None:
            return
        stays = _stays_loaded(after, view.placement)
        for device in view.placement.devices:
            if device in self.rooms:
                self._count(device, view, -1)
            self._holders[device].pop(view.name, None)
            if view.state is State.LOADED and not stays:
                self.tenants[device].drop(view.name)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def held_on(self, devices: Iterable[str]) -> dict[str, ModelView]:
        """By name, who takes memory on one of these at least, or was promised it."""
        return {name: self._views[name] for device in devices for name in self._holders.get(device, ())}

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

    def alike(self, device: str) -> Iterable[str]:
        """The device and those that equal it, the most free first."""
        return self.peers[self._likeness[device]]

    def may_be_on(self, offer: Offer, devices: _Devices) -> bool:
        """Could it be placed there?"""
        if offer.peers is None:
            return devices == offer.placement.devices
        return len(devices) == offer.ranks and all(device in self.peers[offer.peers] for device in devices)

    def on(self, offer: Offer, devices: _Devices) -> Placement:
        """The placement there."""
        return offer.on([self.rooms[device].device for device in devices])

    def most_free(self, offer: Offer) -> int:
        """Bytes free on each of the first of :meth:`places`: a model that needs more finds no room on any."""
        if offer.peers is not None:
            return self.peers[offer.peers].free_on_each_of(offer.ranks)
        return min(self.rooms[device].free for device in offer.placement.devices)

    def is_measured(self, devices: Iterable[str]) -> bool:
        """Does a vllm engine start on one of these? It measures what is free there, so nothing may go (``load_order``)."""
        return any(load_order.measures(self.rooms[name]) for name in devices if name in self.rooms)

    def judged(self, device: str, now: float, *, roughly: bool = False) -> Tenants | None:
        """Who is loaded there, in the order to go as of now; None where nobody is."""
        tenants = self.tenants.get(device)
        if tenants is not None and tenants.judge(now, self._policies, roughly=roughly) and device in self._likeness:
            for peers in self._peers_of(device):
                peers.set_harm(device, tenants.least_harm())
        return tenants

    # -- equal devices -----------------------------------------------------------------------------------------------

    def representatives(self, profile: ModelProfile, override: ModelOverride) -> list[Room]:
        """Of equal devices the most free one; where an engine may take several, as many as it could take."""
        if override.names_devices:
            return [room for name, room in self.rooms.items() if override.allows(name)]
        most = _MOST_RANKS if profile.language is not None else 1
        each = [self.peers[likeness] for likeness in dict.fromkeys(self._likeness.values())]
        return [self.rooms[name] for peers in each for name, _ in zip(peers, range(most), strict=False)]

    def offered(self, usable: Iterable[Placement], override: ModelOverride) -> list[Offer]:
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

    # -- how it is kept ----------------------------------------------------------------------------------------------

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

    def _rebuild(self, shape: dict[str, Hashable]) -> None:
        """Devices came, went or changed."""
        numbers = {like: number for number, like in enumerate(dict.fromkeys(shape.values()))}
        self._shape = shape
        self._likeness = {device: numbers[like] for device, like in shape.items()}
        self._chosen_of, self._chosen = {}, {}
        self.rooms = rooms_of(self.fleet.devices, self._views.values())
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
