"""A plan while it is made: what it promises and who leaves, kept so that nothing is promised twice.

A model's view or a placement enters; a decision is written down, and the rooms of the devices change by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from modelium.brain import eviction, turns
from modelium.brain.placement.cluster import ClusterRoom
from modelium.brain.placement.rooms import Room, rooms_of
from modelium.brain.words import WANTED_BY, context_in_words
from modelium.sizes import human_bytes
from modelium.values import Decision, ModelView, Observed, Placement, Plan, State, Verb

_MayGo = Callable[[str, Sequence[ModelView]], list[ModelView]]  # from a device, besides these: the cheapest to lose first


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
    _holders: dict[str, list[ModelView]] = field(default_factory=dict)  # loaded, on that device
    _sorted: dict[tuple[str, frozenset[turns.Hold]], list[ModelView]] = field(default_factory=dict)
    again_at: float | None = None

    def __post_init__(self) -> None:
        observed = self.observed
        self.rooms = rooms_of(observed.fleet.devices, observed.models)
        self._cluster = ClusterRoom(observed.fleet.ray, observed.models)
        for view in observed.models:
            if view.state is not State.LOADED or view.placement is None:
                continue
            for device in view.placement.devices:
                self._holders.setdefault(device, []).append(view)
            if eviction.deciding_rule(view, observed.now, observed.policies) in eviction.LETS_GO:
                for device in view.placement.devices:
                    self._evictable.setdefault(device, []).append(view)

    def finished(self, *, room_is_wanted: bool) -> Plan:
        """What was written down."""
        return Plan(
            actions=tuple(self._actions),
            decisions=tuple(self._decisions),
            pressure=self.pressure,
            again_at=self.again_at,
            room_is_wanted=room_is_wanted,
        )

    def decide(self, view: ModelView, verb: Verb, rule: str, reason: str) -> None:
        """Write down what is not an action."""
        self._decisions.append(Decision(at=self.observed.now, model=view.name, verb=verb, rule=rule, reason=reason))

    def load(self, view: ModelView, placement: Placement, why_runtime: str) -> None:
        """Load it there, and promise the room."""
        need, rooms, engine = placement.footprint.bytes, self.rooms_for(placement), placement.engine
        known = "measured" if placement.footprint.measured_bytes is not None else "estimated"
        if engine is not None:
            known = f"planned, of them {human_bytes(engine.kv_bytes)} KV cache for {engine.kv_tokens:,} tokens"
            known += f"; {shortened}" if (shortened := context_in_words(engine)) else ""
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

    def evict(self, view: ModelView, pressure: str, waiter: ModelView | None = None) -> None:
        """Unload it; its bytes are on their way back. ``pressure``: what is short, empty for nothing; ``waiter``: whom
        it goes for, whatever ``eviction`` says."""
        now, policies = self.observed.now, self.observed.policies
        self._leaving.add(view.name)
        for device in view.placement.devices if view.placement is not None else ():
            if device in self.rooms:
                self.rooms[device].returning += view.bytes_held
        if waiter is None:
            rule, whom = eviction.name_of(eviction.deciding_rule(view, now, policies)), ""
            reason = eviction.explain_evict(view, now, policies, pressure)
        else:
            rule, whom = turns.TURN_RULE if view.usage.in_flight else turns.SWAP_RULE, waiter.name
            reason = turns.explain_swap(view, waiter, now, pressure)
        self._act(Decision(at=now, model=view.name, verb=Verb.UNLOAD, rule=rule, reason=reason, beneficiary=whom))

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
        return self._chosen(placement, self.evictable)

    def swapped(self, placement: Placement, holds: frozenset[turns.Hold]) -> list[ModelView] | None:
        """The same for somebody who waits, of all that nothing but ``holds`` keeps: those whose loss does the least harm, and
        none whose room is not needed."""

        def candidates(device: str, besides: Sequence[ModelView] = ()) -> list[ModelView]:
            gone = self._leaving | {view.name for view in besides}
            return [view for view in self._in_order(device, holds) if view.name not in gone]

        chosen = self._chosen(placement, candidates)
        return self._needed(placement, chosen) if chosen else chosen

    def _in_order(self, device: str, holds: frozenset[turns.Hold]) -> list[ModelView]:
        """Sorted once a pass: hundreds may wait for room that thousands hold."""
        known = self._sorted.get((device, holds))
        if known is None:
            now, policies = self.observed.now, self.observed.policies
            there = [view for view in self._holders.get(device, ()) if turns.hold(view, now, policies) in holds]
            known = self._sorted[device, holds] = turns.in_order(there, now, policies)
        return known

    def lacking(self, placement: Placement) -> dict[str, int]:
        """Device → bytes that are not there, and not on their way back."""
        need = placement.footprint.bytes
        return {room.device.id: need - room.free - room.returning for room in self.rooms_for(placement)}

    def promises(self, placement: Placement) -> bool:
        """Would there be room if all went that is not kept for good?"""
        now, policies = self.observed.now, self.observed.policies
        going = [
            view
            for view in self.observed.models
            if view.placement is not None
            and (
                (view.state is State.LOADED and turns.hold(view, now, policies) is not turns.Hold.WORD)
                or (view.state is State.LOADING and not (view.pinned or view.always_loaded))
            )
        ]
        lacking = self.lacking(placement)
        for view in going:
            for device in _shared(view, lacking):
                lacking[device] -= view.bytes_held
        return max(lacking.values()) <= 0 and self._cluster.would_fit(placement.replicas, {view.name for view in going})

    def look_again(self, placement: Placement, turn_at: float | None) -> None:
        """Somebody waits for room there: note when time alone may find some, at the end of a residence or at his turn."""
        now, policies = self.observed.now, self.observed.policies
        instants = [turn_at] if turn_at is not None and turn_at > now else []
        instants += [
            view.loaded_at + turns.residence_s(view, policies)
            for device in placement.devices
            for view in self._holders.get(device, ())
            if turns.hold(view, now, policies) is turns.Hold.RESIDENCE
        ]
        self.again_at = min([*instants, *([self.again_at] if self.again_at is not None else [])], default=None)

    def _needed(self, placement: Placement, chosen: list[ModelView]) -> list[ModelView]:
        """Without those, the dearest first, whose room is not needed."""
        over = {device: -lacking for device, lacking in self.lacking(placement).items()}
        for view in chosen:
            for device in _shared(view, over):
                over[device] += view.bytes_held
        kept = list(chosen)
        for view in reversed(chosen):
            there = _shared(view, over)
            if any(over[device] < view.bytes_held for device in there):
                continue
            if placement.replicas is not None:
                without = self._leaving.union(other.name for other in kept if other is not view)
                if not self._cluster.would_fit(placement.replicas, without=without):
                    continue
            kept.remove(view)
            for device in there:
                over[device] -= view.bytes_held
        return kept

    def _chosen(self, placement: Placement, may_go: _MayGo) -> list[ModelView] | None:
        chosen: list[ModelView] = []
        for device, short in self.lacking(placement).items():
            lacking = short - sum(v.bytes_held for v in chosen if v.placement and device in v.placement.devices)
            candidates = iter(may_go(device, chosen) if lacking > 0 else ())
            while lacking > 0:
                victim = next(candidates, None)
                if victim is None:
                    return None
                chosen.append(victim)
                lacking -= victim.bytes_held
        return self._and_on_nodes(placement, chosen, may_go)

    def _and_on_nodes(self, placement: Placement, chosen: list[ModelView], may_go: _MayGo) -> list[ModelView] | None:
        candidates = iter(may_go(placement.device_id, chosen) if placement.replicas is not None else ())
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


def _shared(view: ModelView, devices: Iterable[str]) -> list[str]:
    return [device for device in devices if view.placement is not None and device in view.placement.devices]


def where(placement: Placement) -> str:
    """Its devices in words."""
    return ("each of " if len(placement.devices) > 1 else "") + ", ".join(placement.devices)
