"""A plan while it is made: what it promises and who leaves, kept so that nothing is promised twice.

A model's view or a placement enters; a decision is written down, and the rooms of the devices change by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from modelium.brain import eviction
from modelium.brain.cluster import ClusterRoom
from modelium.brain.placement import Room, rooms_of
from modelium.brain.plan_words import WANTED_BY
from modelium.brain.words import human_bytes
from modelium.values import Decision, ModelView, Observed, Placement, Plan, State, Verb


@dataclass(slots=True)
class Draft:
    """Of one pass over all models. ``pressure``: device → who waits for room there."""

    observed: Observed
    rooms: dict[str, Room] = field(init=False)
    pressure: dict[str, str] = field(default_factory=dict)
    _cluster: ClusterRoom = field(init=False)
    _actions: list[Decision] = field(default_factory=list)
    _decisions: list[Decision] = field(default_factory=list)
    _leaving: set[str] = field(default_factory=set)
    _evictable: dict[str, list[ModelView]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        observed = self.observed
        self.rooms = rooms_of(observed.fleet.devices, observed.models)
        self._cluster = ClusterRoom(observed.fleet.ray, observed.models)
        for view in observed.models:
            if view.state is not State.LOADED or view.placement is None:
                continue
            if eviction.deciding_rule(view, observed.now, observed.policies) == 5:
                for device in view.placement.devices:
                    self._evictable.setdefault(device, []).append(view)

    def finished(self) -> Plan:
        """What was written down."""
        return Plan(actions=tuple(self._actions), decisions=tuple(self._decisions), pressure=self.pressure)

    def decide(self, view: ModelView, verb: Verb, rule: str, reason: str) -> None:
        """Write down what is not an action."""
        self._decisions.append(Decision(at=self.observed.now, model=view.name, verb=verb, rule=rule, reason=reason))

    def load(self, view: ModelView, placement: Placement, why_runtime: str) -> None:
        """Load it there, and promise the room."""
        need, rooms, engine = placement.footprint.bytes, self.rooms_for(placement), placement.engine
        known = "measured" if placement.footprint.measured_bytes is not None else "estimated"
        if engine is not None:
            known = f"planned, of them {human_bytes(engine.kv_bytes)} KV cache for {engine.kv_tokens:,} tokens"
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
        self._act(
            Decision(at=self.observed.now, model=view.name, verb=Verb.LOAD, rule="plan.3", reason=reason, placement=settled)
        )

    def evict(self, view: ModelView, pressure: str) -> None:
        """Unload it; its bytes are on their way back. ``pressure``: who needs them, empty for nobody."""
        self._leaving.add(view.name)
        for device in view.placement.devices if view.placement is not None else ():
            if device in self.rooms:
                self.rooms[device].returning += view.bytes_held
        reason = eviction.explain_evict(view, self.observed.now, self.observed.policies, pressure)
        self._act(Decision(at=self.observed.now, model=view.name, verb=Verb.UNLOAD, rule="evict.5", reason=reason))

    def rooms_for(self, placement: Placement) -> list[Room]:
        """Those of its devices."""
        return [self.rooms[device] for device in placement.devices]

    def fits(self, placement: Placement) -> bool:
        """Is there room now, by bytes and on Ray's nodes?"""
        bytes_fit = all(placement.footprint.bytes <= room.free for room in self.rooms_for(placement))
        return bytes_fit and self._cluster.fits(placement.replicas)

    def lack(self, placement: Placement, of_bytes: str) -> str:
        """What a placement lacks: bytes, in the words given, and where Ray's nodes are the matter what they lack."""
        if placement.replicas is None or self._cluster.fits(placement.replicas):
            return of_bytes
        return f"{of_bytes}; Ray's nodes have no room for {self._cluster.describe(placement.replicas)}"

    def evictable(self, device: str, besides: Sequence[ModelView] = ()) -> list[ModelView]:
        """Who may go from ``device``, the cheapest to lose first; ``besides``: these go already."""
        gone = self._leaving | {view.name for view in besides}
        candidates = [view for view in self._evictable.get(device, ()) if view.name not in gone]
        return list(eviction.in_order_of_sacrifice(candidates, self.observed.now, self.observed.policies))

    def victims(self, placement: Placement) -> list[ModelView] | None:
        """The cheapest models with whose memory and whose part of Ray's nodes, and all that is on its way back, it fits: none
        where that suffices by itself, None where all who may go would not do."""
        chosen: list[ModelView] = []
        for room in self.rooms_for(placement):
            on_their_way = sum(v.bytes_held for v in chosen if v.placement and room.device.id in v.placement.devices)
            lacking = placement.footprint.bytes - room.free - room.returning - on_their_way
            candidates = iter(self.evictable(room.device.id, chosen) if lacking > 0 else ())
            while lacking > 0:
                victim = next(candidates, None)
                if victim is None:
                    return None
                chosen.append(victim)
                lacking -= victim.bytes_held
        return self._and_on_nodes(placement, chosen)

    def _and_on_nodes(self, placement: Placement, chosen: list[ModelView]) -> list[ModelView] | None:
        candidates = iter(self.evictable(placement.device_id, chosen) if placement.replicas is not None else ())
        leaving = self._leaving.union(view.name for view in chosen)
        while not self._cluster.would_fit(placement.replicas, without=leaving):
            victim = next(candidates, None)
            if victim is None:
                return None
            chosen.append(victim)
            leaving.add(victim.name)
        return chosen

    def _act(self, decision: Decision) -> None:
        self._actions.append(decision)
        self._decisions.append(decision)


def where(placement: Placement) -> str:
    """Its devices in words."""
    return ("each of " if len(placement.devices) > 1 else "") + ", ".join(placement.devices)
