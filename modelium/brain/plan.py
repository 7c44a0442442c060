"""The plan: everything observed enters, what to load and unload now leaves, each with its reason.

Keeping a model is the normal case and gets no words here: ``explain()`` finds them when somebody asks. That is what keeps a
plan for a thousand models under a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from modelium.brain import eviction
from modelium.brain.placement import Room, options, rooms_of
from modelium.brain.runtime import choose_runtime
from modelium.values import (
    Decision,
    Demand,
    ModelOverride,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Plan,
    Runtime,
    State,
    Verb,
)

_NO_OVERRIDE = ModelOverride()
_LOADABLE = (State.UNLOADED, State.FAILED)
_ENOUGH_WITHOUT_ROOM = 16


def human_bytes(size: float) -> str:
    """``1288490188`` → ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def plan(observed: Observed) -> Plan:
    """Decide what to load and unload now.

    Loads, for every model that is wanted and may be tried, strongest demand first, then the longest waiting:

    1. No runtime can serve it: refused.
    2. It is larger than the budget of every device it may use: refused.
    3. It fits now: loaded, unless enough loads run on that device already (vLLM engines start one at a time).
    4. It does not fit, and only its discovery or a restart wants it: it waits, nobody is pushed out. (After some dozen of
       these, the rest is only looked at if its estimate fits somewhere: there may be thousands.)
    5. It does not fit, but memory on its way back suffices: it waits for that.
    6. It does not fit: that is pressure. As many as needed of the models that eviction's rule 5 lets go are unloaded, the
       cheapest to lose first; if those would not suffice, none is, and it waits until something may go.

    Then unloads that nobody waits for: devices over ``pressure_fraction`` of their budget, and models idle for over twice
    the threshold (eviction's rule 5).
    """
    return _Planner(observed).run()


def explain(observed: Observed, name: str) -> Decision | None:
    """The decision about one model now: from the plan, or the rule that keeps it; None when there is nothing to decide."""
    made = next((d for d in plan(observed).decisions if d.model == name), None)
    view = next((v for v in observed.models if v.name == name), None)
    return made if made is not None or view is None else explain_keep(observed, view)


def explain_keep(observed: Observed, view: ModelView) -> Decision | None:
    """Why a loaded model that the plan does not mention stays; None when it is not loaded."""
    if view.state is not State.LOADED:
        return None
    rule = eviction.deciding_rule(view, observed.now, observed.policies)
    reason = eviction.explain_keep(view, rule, observed.now, observed.policies)
    return Decision(at=observed.now, model=view.name, verb=Verb.KEEP, rule=f"evict.{rule}", reason=reason)


@dataclass(slots=True)
class _Planner:
    observed: Observed
    rooms: dict[str, Room] = field(init=False)
    actions: list[Decision] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    pressure: dict[str, str] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    evictable: dict[str, list[ModelView]] = field(default_factory=dict)
    without_room: int = 0

    def run(self) -> Plan:
        observed, now, policies = self.observed, self.observed.now, self.observed.policies
        self.rooms = rooms_of(observed.fleet.devices, observed.models)
        wanted = []
        for view in observed.models:
            if view.state is State.LOADED:
                if view.placement is not None and eviction.deciding_rule(view, now, policies) == 5:
                    self.evictable.setdefault(view.placement.device_id, []).append(view)
            elif view.demand and view.state in _LOADABLE and view.retry_at is not None and view.retry_at <= now:
                wanted.append(view)
        wanted.sort(key=lambda v: (-v.demand, v.demand_since, v.name))
        for view in wanted:
            tired = view.demand < Demand.POLICY and self.without_room >= _ENOUGH_WITHOUT_ROOM
            if not tired or view.footprint.bytes <= max((room.free for room in self.rooms.values()), default=0):
                self._consider(view)
        self._relieve()
        return Plan(actions=tuple(self.actions), decisions=tuple(self.decisions), pressure=self.pressure)

    # -- loads -------------------------------------------------------------------------------------------------------

    def _consider(self, view: ModelView) -> None:
        profile = view.profile
        if profile is None:
            return
        override = self.observed.overrides.get(view.name, _NO_OVERRIDE)
        choice = choose_runtime(profile, self.observed.capabilities, override)
        if choice.runtime is None:  # 1
            self._decide(view, Verb.REFUSE, choice.rule, choice.reason)
            return
        usable = options(view, profile, choice.runtime, self.rooms.values(), override)
        if not usable:  # 2
            self._decide(view, Verb.REFUSE, "plan.2", self._too_big(view, profile, choice.runtime, override))
            return
        for room, placement in usable:
            if placement.footprint.bytes <= room.free:  # 3
                self._load(view, room, placement, choice.reason)
                return
        room, placement = usable[0]
        need = placement.footprint.bytes
        if view.demand < Demand.POLICY:  # 4
            self.without_room += 1
            short = f"{human_bytes(need)} needed, {human_bytes(max(room.free, 0))} free on {room.device.id}"
            self._decide(view, Verb.WAIT, "plan.4", f"no room ({short}); it is loaded when somebody asks for it")
            return
        for room, placement in usable:
            if self._make_room(view, room, placement):
                return
        # Nothing may go: words for the first choice, and no reservation, so that smaller models may pass meanwhile.
        room, placement = usable[0]
        why = f"{view.name} needs {human_bytes(need)}, {human_bytes(max(room.free, 0))} free on {room.device.id}"
        self.pressure[room.device.id] = why
        self._decide(view, Verb.WAIT, "plan.6", f"{why}, and nothing there may be evicted: {self._who_holds(room)}")

    def _load(self, view: ModelView, room: Room, placement: Placement, why_runtime: str) -> None:
        limit = 1 if placement.runtime is Runtime.VLLM else self.observed.policies.loads_per_device
        need = placement.footprint.bytes
        if room.loads >= limit:
            room.reserved += need
            self._decide(view, Verb.WAIT, "plan.3", f"{room.loads} loads run on {room.device.id} already")
            return
        known = "measured" if placement.footprint.measured_bytes is not None else "estimated"
        reason = (
            f"{placement.runtime} ({why_runtime}) on {room.device.id}: {human_bytes(need)} {known}, "
            f"{human_bytes(room.free)} free; wanted by {_BY[view.demand]}"
        )
        room.committed += need
        room.promised += need
        room.loads += 1
        decision = Decision(
            at=self.observed.now,
            model=view.name,
            verb=Verb.LOAD,
            rule="plan.3",
            reason=reason,
            placement=replace(placement, reason=reason),
        )
        self.actions.append(decision)
        self.decisions.append(decision)

    def _make_room(self, view: ModelView, room: Room, placement: Placement) -> bool:
        need = placement.footprint.bytes
        lacking = need - room.free - room.returning
        why = f"{view.name} needs {human_bytes(need)}, {human_bytes(max(room.free, 0))} free on {room.device.id}"
        if lacking > 0:  # 6
            victims = self._victims(room, lacking)
            if not victims:
                return False
            for victim in victims:
                self._evict(victim, room, why)
        room.reserved += need
        room.returning = max(0, room.returning - need)
        self.pressure[room.device.id] = why
        self._decide(view, Verb.WAIT, "plan.5", f"{why}; waiting for memory that is being given back")  # 5
        return True

    def _victims(self, room: Room, lacking: int) -> list[ModelView]:
        """The cheapest models whose memory suffices, or none."""
        candidates = [v for v in self.evictable.get(room.device.id, ()) if v.name not in self.leaving]
        chosen: list[ModelView] = []
        for victim in eviction.in_order_of_sacrifice(candidates, self.observed.now, self.observed.policies):
            if lacking <= 0:
                break
            chosen.append(victim)
            lacking -= victim.bytes_held
        return chosen if lacking <= 0 else []

    # -- unloads -----------------------------------------------------------------------------------------------------

    def _relieve(self) -> None:
        now, policies = self.observed.now, self.observed.policies
        for room in self.rooms.values():
            device = room.device
            held = room.committed - room.returning
            limit = policies.pressure_fraction * device.budget_bytes
            candidates = [v for v in self.evictable.get(device.id, ()) if v.name not in self.leaving]
            why = f"{human_bytes(held)} of {human_bytes(device.budget_bytes)} on {device.id} are taken"
            if held > limit:
                self.pressure.setdefault(device.id, why)
            for view in eviction.in_order_of_sacrifice(candidates, now, policies):
                if held > limit:
                    held -= view.bytes_held
                    self._evict(view, room, why)
                elif eviction.is_overdue(view, now, policies):
                    self._evict(view, room, "")

    def _evict(self, view: ModelView, room: Room, pressure: str) -> None:
        self.leaving.add(view.name)
        room.returning += view.bytes_held
        reason = eviction.explain_evict(view, self.observed.now, self.observed.policies, pressure)
        decision = Decision(at=self.observed.now, model=view.name, verb=Verb.UNLOAD, rule="evict.5", reason=reason)
        self.actions.append(decision)
        self.decisions.append(decision)

    # -- words -------------------------------------------------------------------------------------------------------

    def _decide(self, view: ModelView, verb: Verb, rule: str, reason: str) -> None:
        self.decisions.append(Decision(at=self.observed.now, model=view.name, verb=verb, rule=rule, reason=reason))

    def _too_big(self, view: ModelView, profile: ModelProfile, runtime: Runtime, override: ModelOverride) -> str:
        if override.device is not None and override.device not in self.rooms:
            return f"models: names device {override.device!r}; this machine has {', '.join(sorted(self.rooms))}"
        roomy = [replace(room, device=replace(room.device, budget_bytes=2**62)) for room in self.rooms.values()]
        sizes = []
        for room, placement in options(view, profile, runtime, roomy, override):
            budget = human_bytes(self.rooms[room.device.id].device.budget_bytes)
            sizes.append(f"{human_bytes(placement.footprint.bytes)} on {room.device.id} (budget {budget})")
        return f"too big for this machine: needs {', '.join(sizes)}; raise devices.host_memory or free a larger device"

    def _who_holds(self, room: Room) -> str:
        now, policies = self.observed.now, self.observed.policies
        held = [
            v
            for v in self.observed.models
            if v.state is State.LOADED and v.placement and v.placement.device_id == room.device.id
        ]
        words = [
            f"{v.name} {eviction.explain_keep(v, eviction.deciding_rule(v, now, policies), now, policies)}" for v in held[:4]
        ]
        if len(held) > 4:
            words.append(f"and {len(held) - 4} more")
        return "; ".join(words) or "the rest is used by other programs"


_BY = {
    Demand.DISCOVERY: "its discovery",
    Demand.RESTORE: "the restart (it was loaded before)",
    Demand.POLICY: "always_loaded or its pin",
    Demand.USER: "the user",
    Demand.REQUEST: "a waiting request",
}
