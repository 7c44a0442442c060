"""A plan while it is made: what it promises and who leaves, kept so that nothing is promised twice.

A model's view or a placement enters; a decision is written down, and the rooms of the devices change by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from modelium.brain import eviction, turns
from modelium.brain.board import Board
from modelium.brain.placement.cluster import ClusterRoom
from modelium.brain.placement.occupancy import Occupancy
from modelium.brain.placement.rooms import Room
from modelium.brain.weighing import MOST, weigh_all
from modelium.brain.words import WANTED_BY, context_in_words
from modelium.sizes import human_bytes
from modelium.values import Decision, ModelView, Placement, Plan, Verb

FREE = (turns.Hold.NOTHING,)
AT_ITS_TURN = (turns.Hold.NOTHING, turns.Hold.LEASES)


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
    devices: Occupancy = field(init=False)
    cluster: ClusterRoom = field(init=False)
    _actions: list[Decision] = field(default_factory=list)
    _decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = self.board.devices
        self.cluster = ClusterRoom(self.devices.fleet.ray, self.board.by_ray())

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
        return self._rooms.get(device, self.devices.rooms[device]).free

    def least_free(self, devices: Iterable[str]) -> int:
        """Bytes that may be promised on each of them."""
        return max(0, min(map(self.free, devices)))

    def room(self, device: str) -> Room:
        """That of a device, to be read: this plan has changed it, or the board's."""
        return self._rooms.get(device, self.devices.rooms[device])

    def changed_rooms(self) -> Iterable[Room]:
        """Those that this plan has changed."""
        return self._rooms.values()

    def has_changed(self, device: str) -> bool:
        """Has this plan changed that one's room?"""
        return device in self._rooms

    def change(self, devices: Iterable[str]) -> list[Room]:
        """Those of devices, to be changed by this plan."""
        return [self._own(device) for device in devices]

    def _own(self, device: str) -> Room:
        if device not in self._rooms:
            self._rooms[device] = self.devices.rooms[device].copied()
        return self._rooms[device]

    def rooms_for(self, placement: Placement) -> list[Room]:
        """Those of its devices, to be read."""
        return [self.room(device) for device in placement.devices]

    def fits(self, placement: Placement, devices: Sequence[str]) -> bool:
        """Is there room now on these, by bytes and on Ray's nodes?"""
        need = placement.footprint.bytes
        return all(need <= self.free(device) for device in devices) and self.cluster.fits(placement.replicas)

    def lack(self, placement: Placement, of_bytes: str) -> str:
        """What a placement lacks: bytes, in the words given, and where Ray's nodes are the matter what they lack."""
        if placement.replicas is None or self.cluster.fits(placement.replicas):
            return of_bytes
        return f"{of_bytes}; Ray's nodes have no room for {self.cluster.describe(placement.replicas)}"

    def look_again_at(self, instant: float | None) -> None:
        """Somebody waits for room, and from then on time alone may find him some."""
        if instant is not None and instant > self.now and (self.again_at is None or instant < self.again_at):
            self.again_at = instant

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
        self.cluster.take(placement.replicas)
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
            device for device in (view.placement.devices if view.placement is not None else ()) if device in self.devices.rooms
        ):
            room.returning += view.bytes_held
        weighed = weigh_all(view, self._next_to_go(view, besides), now, policies)
        if waiter is None:
            rule, whom = eviction.name_of(eviction.deciding_rule(view, now, policies)), ""
            reason = eviction.explain_evict(view, now, policies, pressure)
        else:
            rule, whom = turns.TURN_RULE if view.usage.in_flight else turns.SWAP_RULE, waiter.name
            reason = turns.explain_swap(view, waiter, now, policies, pressure, next(iter(weighed[1:]), None))
        if moves_to is not None and view.placement is not None and waiter is not None:
            free = human_bytes(self.free(moves_to))
            reason += f"; moved from {view.placement.device_id} to {moves_to} ({free} free) so that {waiter.name} fits"
            for room in self.change((moves_to,)):
                room.reserved += view.bytes_held
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
        stay = (other for device in there for other in self.in_order(device, FREE) if other.name not in gone)
        return list(islice(stay, MOST))

    def in_order(self, device: str, holds: Sequence[turns.Hold]) -> Iterable[ModelView]:
        """Those on a device whom nothing but ``holds`` keeps, the least harm first."""
        tenants = self.devices.judged(device, self.now)
        return tenants.in_order(holds) if tenants is not None else ()

    def _act(self, decision: Decision) -> None:
        self._actions.append(decision)
        self._decisions.append(decision)


def where(placement: Placement) -> str:
    """Its devices in words."""
    return ("each of " if len(placement.devices) > 1 else "") + ", ".join(placement.devices)
