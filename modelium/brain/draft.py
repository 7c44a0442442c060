"""A plan while it is made: what it promises and who leaves, kept so that nothing is promised twice.

A model's view or a placement enters; a decision is written down, and the rooms of the devices change by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from modelium.brain import eviction, turns
from modelium.brain.board import Board
from modelium.brain.placement.cluster import ClusterRoom
from modelium.brain.placement.offers import Offer
from modelium.brain.placement.rooms import Room
from modelium.brain.weighing import MOST, weigh_all
from modelium.brain.words import WANTED_BY, context_in_words
from modelium.sizes import human_bytes
from modelium.values import Decision, ModelView, Placement, Plan, State, Verb

FREE = (turns.Hold.NOTHING,)
AT_ITS_TURN = (turns.Hold.NOTHING, turns.Hold.LEASES)

_FEW = 16  # equal devices of which each is looked at
_JUDGED_IN_TURN = 4  # of more

_Chosen = list[ModelView]
_MayGo = Callable[[str], Iterable[ModelView]]  # from a device, the cheapest to lose first


@dataclass(slots=True)
class Draft:
    """Of one pass. ``pressure``: device → who waits for room there; ``made_room``: for how many who wait others go there."""

    board: Board
    now: float
    pressure: dict[str, str] = field(default_factory=dict)
    made_room: dict[str, int] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    again_at: float | None = None
    _rooms: dict[str, Room] = field(default_factory=dict)  # those that this plan has changed
    _cluster: ClusterRoom = field(init=False)
    _actions: list[Decision] = field(default_factory=list)
    _decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cluster = ClusterRoom(self.board.fleet.ray, self.board.by_ray.values())

    def finished(self, *, room_is_wanted: bool) -> Plan:
        """What was written down."""
        return Plan(
            actions=tuple(self._actions),
            decisions=tuple(self._decisions),
            pressure=self.pressure,
            again_at=self.again_at,
            room_is_wanted=room_is_wanted,
        )

    # -- rooms -------------------------------------------------------------------------------------------------------

    def free(self, device: str) -> int:
        """Bytes of it that may be promised now."""
        return self._rooms.get(device, self.board.rooms[device]).free

    def least_free(self, devices: Iterable[str]) -> int:
        """Bytes that may be promised on each of them."""
        return max(0, min(map(self.free, devices)))

    def room(self, device: str) -> Room:
        """That of a device, to be read: this plan has changed it, or the board's."""
        return self._rooms.get(device, self.board.rooms[device])

    def changed_rooms(self) -> Iterable[Room]:
        """Those that this plan has changed."""
        return self._rooms.values()

    def change(self, devices: Iterable[str]) -> list[Room]:
        """Those of devices, to be changed by this plan."""
        return [self._own(device) for device in devices]

    def _own(self, device: str) -> Room:
        if device not in self._rooms:
            self._rooms[device] = self.board.rooms[device].copied()
        return self._rooms[device]

    def rooms_for(self, placement: Placement) -> list[Room]:
        """Those of its devices, to be read."""
        return [self.room(device) for device in placement.devices]

    def fits(self, placement: Placement, devices: Sequence[str]) -> bool:
        """Is there room now on these, by bytes and on Ray's nodes?"""
        need = placement.footprint.bytes
        return all(need <= self.free(device) for device in devices) and self._cluster.fits(placement.replicas)

    def lack(self, placement: Placement, of_bytes: str) -> str:
        """What a placement lacks: bytes, in the words given, and where Ray's nodes are the matter what they lack."""
        if placement.replicas is None or self._cluster.fits(placement.replicas):
            return of_bytes
        return f"{of_bytes}; Ray's nodes have no room for {self._cluster.describe(placement.replicas)}"

    # -- what is decided ---------------------------------------------------------------------------------------------

    def decide(self, view: ModelView, verb: Verb, rule: str, reason: str) -> None:
        """Write down what is not an action."""
        self.board.told.add(view.name)
        self._decisions.append(Decision(at=self.now, model=view.name, verb=verb, rule=rule, reason=reason))

    def load(self, view: ModelView, placement: Placement, why_runtime: str) -> None:
        """Load it there, and promise the room."""
        need, rooms, engine = placement.footprint.bytes, self.change(placement.devices), placement.engine
        known = "measured" if placement.footprint.measured_bytes is not None else "estimated"
        if placement.footprint.corrected_bytes is not None:
            known = f"({human_bytes(placement.footprint.estimated_bytes)} estimated, corrected as others were measured)"
        if engine is not None:
            known = f"planned, of them {human_bytes(engine.kv_bytes)} KV cache for {engine.kv_tokens:,} tokens"
            known += f"; {shortened}" if (shortened := context_in_words(engine)) else ""
        if placement.exclusive:
            known = "for it alone, as its user wants"
        reason = (
            f"{placement.runtime} ({why_runtime}) on {where(placement)}: {human_bytes(need)} {known}, "
            f"{human_bytes(min(room.free for room in rooms))} free; wanted by {WANTED_BY[view.demand]}"
        )
        self._cluster.take(placement.replicas)
        for room in rooms:
            room.committed += need
            room.promised += need
            room.loads += 1
            room.engines += placement.by_vllm
        settled = replace(placement, reason=reason)
        self._act(Decision(at=self.now, model=view.name, verb=Verb.LOAD, rule="plan.3", reason=reason, placement=settled))

    def evict(
        self,
        view: ModelView,
        pressure: str,
        waiter: ModelView | None = None,
        besides: Sequence[ModelView] = (),
        *,
        moves_to: str | None = None,
    ) -> None:
        """Unload it; its bytes are on their way back. ``pressure``: what is short, empty for nothing; ``waiter``: whom
        it goes for, whatever ``eviction`` says; ``besides``: these go for him too; ``moves_to``: where it is to be loaded
        again."""
        now, policies = self.now, self.board.policies
        self.leaving.add(view.name)
        for room in self.change(
            device for device in (view.placement.devices if view.placement is not None else ()) if device in self.board.rooms
        ):
            room.returning += view.bytes_held
        stay = self._next_to_go(view, besides)
        if waiter is None:
            rule, whom = eviction.name_of(eviction.deciding_rule(view, now, policies)), ""
            reason = eviction.explain_evict(view, now, policies, pressure)
        else:
            rule, whom = turns.TURN_RULE if view.usage.in_flight else turns.SWAP_RULE, waiter.name
            reason = turns.explain_swap(view, waiter, now, policies, pressure, next(iter(stay), None))
        if moves_to is not None and view.placement is not None and waiter is not None:
            free = human_bytes(self.free(moves_to))
            reason += f"; moved from {view.placement.device_id} to {moves_to} ({free} free) so that {waiter.name} fits"
            for room in self.change((moves_to,)):
                room.reserved += view.bytes_held
        weighed = weigh_all(view, stay, now, policies)
        self._act(
            Decision(
                at=now,
                model=view.name,
                verb=Verb.UNLOAD,
                rule=rule,
                reason=reason,
                beneficiary=whom,
                moves_to=moves_to or "",
                weighed=weighed,
            )
        )

    def _next_to_go(self, view: ModelView, besides: Sequence[ModelView]) -> list[ModelView]:
        """Some of those that stay where it was, of those that might go the least harm first."""
        gone = self.leaving | {other.name for other in besides}
        there = view.placement.devices[:1] if view.placement is not None else ()
        stay = (other for device in there for other in self._in_order(device, FREE) if other.name not in gone)
        return list(islice(stay, MOST))

    # -- who could go ------------------------------------------------------------------------------------------------

    def evictable(self, device: str) -> _Chosen:
        """Who may go from ``device`` by eviction's rule 5, the cheapest to lose first."""
        now, policies = self.now, self.board.policies
        tenants = self.board.tenants.get(device)
        there = tenants.views.values() if tenants is not None else ()
        candidates = [
            view
            for view in there
            if view.name not in self.leaving and eviction.deciding_rule(view, now, policies) in eviction.LETS_GO
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
        return self._choose(placement, devices, lambda device: self._in_order(device, holds))

    def least_loss(self, placement: Placement, devices: Sequence[str]) -> float:
        """What making room there costs at least, where nobody in use goes: many devices need no closer look."""
        if len(devices) > 1 or placement.replicas is not None:
            return 0.0
        room, tenants = self.room(devices[0]), self.board.judged(devices[0], self.now, roughly=True)
        short = placement.footprint.bytes - room.free - room.returning
        harm = tenants.least_harm() if tenants is not None else math.inf
        return harm * short if short > 0 and math.isfinite(harm) else 0.0

    def promising(self, offer: Offer) -> Iterable[tuple[str, ...]]:
        """``board.places``, of many equal devices those first where room is cheap, as last judged. A few are judged again in
        turn: so what time changes is noticed, at a price that does not grow with the devices."""
        if offer.peers is None or len(peers := self.board.peers[offer.peers]) <= _FEW:
            return self.board.places(offer)
        for device in peers.in_turn(_JUDGED_IN_TURN):
            self.board.judged(device, self.now, roughly=True)
        return ((device,) for device in peers.promising())

    def loss(self, devices: Sequence[str], victims: Iterable[ModelView]) -> float:
        """What it costs to lose all these, who are on the first of the devices or on several, as last judged."""
        there = [tenants for device in devices if (tenants := self.board.tenants.get(device)) is not None]
        return sum(next(one.loss_of(view) for one in there if view.name in one.views) for view in victims)

    def _victims_on(self, device: str, need: int, holds: Sequence[turns.Hold]) -> _Chosen | None:
        room, chosen = self.room(device), list[ModelView]()
        short = need - room.free - room.returning
        tenants = self.board.tenants.get(device)
        if tenants is None or tenants.movable_bytes < short:
            return chosen if short <= 0 else None
        self.board.judged(device, self.now)
        if short > 0 and tenants.is_refused(need, holds):
            return None
        for view in tenants.in_order(holds) if short > 0 else ():
            if view.name not in self.leaving:
                chosen.append(view)
                short -= view.bytes_held
                if short <= 0:
                    break
        if short <= 0:
            return chosen
        if device not in self._rooms:  # else what this plan has promised there may be why
            tenants.refuse(need, holds)
        return None

    def _in_order(self, device: str, holds: Sequence[turns.Hold]) -> Iterable[ModelView]:
        tenants = self.board.judged(device, self.now)
        return tenants.in_order(holds) if tenants is not None else ()

    def lacking(self, placement: Placement, devices: Iterable[str]) -> dict[str, int]:
        """Device → bytes that are not there, and not on their way back."""
        need = placement.footprint.bytes
        return {device: need - (room := self.room(device)).free - room.returning for device in devices}

    def promises(self, placement: Placement, devices: Sequence[str]) -> bool:
        """Would there be room on these if all went that is not kept for good?"""
        now, policies = self.now, self.board.policies
        there = {name: view for device in devices for name, view in self.board.holders.get(device, {}).items()}
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
        return max(lacking.values()) <= 0 and self._cluster.would_fit(placement.replicas, {view.name for view in going})

    def look_again_at(self, instant: float | None) -> None:
        """Somebody waits for room, and from then on time alone may find him some."""
        if instant is not None and instant > self.now and (self.again_at is None or instant < self.again_at):
            self.again_at = instant

    def look_at_residences(self, devices: Iterable[str]) -> None:
        """Somebody waits for room there: the end of a residence may find him some."""
        for device in devices:
            if (tenants := self.board.judged(device, self.now)) is not None:
                self.look_again_at(tenants.next_release())

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
                without = self.leaving.union(other.name for other in kept if other is not view)
                if not self._cluster.would_fit(placement.replicas, without=without):
                    continue
            kept.remove(view)
            for device in there:
                over[device] -= view.bytes_held
        return kept

    def _choose(self, placement: Placement, devices: Sequence[str], may_go: _MayGo) -> _Chosen | None:
        chosen: _Chosen = []
        gone = set(self.leaving)
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
        leaving = self.leaving.union(view.name for view in chosen)
        while not self._cluster.would_fit(placement.replicas, without=leaving):
            victim = next(candidates, None)
            if victim is None:
                return None
            if victim.name not in leaving:
                chosen.append(victim)
                leaving.add(victim.name)
        return chosen

    def _act(self, decision: Decision) -> None:
        self._actions.append(decision)
        self._decisions.append(decision)


def _shared(view: ModelView, devices: Iterable[str]) -> list[str]:
    there = view.placement.devices if view.placement is not None else ()
    return [device for device in devices if device in there]


def where(placement: Placement) -> str:
    """Its devices in words."""
    return ("each of " if len(placement.devices) > 1 else "") + ", ".join(placement.devices)
