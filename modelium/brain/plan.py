"""The plan: everything observed enters, what to load and unload now leaves, each with its reason.

Keeping a model is the normal case and gets no words here: ``explain()`` finds them when somebody asks. That is what keeps a
plan for a thousand models under a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from modelium.brain import eviction, starts
from modelium.brain.cluster import ClusterRoom
from modelium.brain.engine_placement import shrink, smallest
from modelium.brain.options import options
from modelium.brain.placement import Room, rooms_of
from modelium.brain.plan_words import WANTED_BY, too_big, who_holds
from modelium.brain.runtime import RuntimeChoice, choose_ray, choose_runtime
from modelium.brain.words import human_bytes
from modelium.values import (
    Decision,
    Demand,
    ModelOverride,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Plan,
    RayState,
    Runtime,
    State,
    Verb,
)

_NO_OVERRIDE = ModelOverride()
_LOADABLE = (State.UNLOADED, State.FAILED)
_ENOUGH_WITHOUT_ROOM = 16
_FAR_TOO_MANY = 64


def plan(observed: Observed) -> Plan:
    """Decide what to load and unload now.

    Loads, for every model that is wanted and may be tried, strongest demand first, then the longest waiting:

    0. A defect comes out while it is planned: refused with its words, and the others are planned.
    1. No runtime can serve it: refused. Ray would, and is down: it waits for Ray.
    2. It is larger than the budget of every device it may use: Ray serves it, where its cluster has more; else it is refused.
    3. It fits now: loaded, unless enough loads run on that device already. A vLLM engine is planned with less cache, down to
       one full-length request, before anybody is pushed out for it. Engines start one at a time on a device, and alone on an
       accelerator: an engine measures what is free there while it starts, so nothing else may come or go meanwhile.
    4. It does not fit, and only its discovery or a restart wants it: it waits, nobody is pushed out. (After some dozen of
       these, the rest is only looked at if its estimate fits somewhere: there may be thousands.) It waits as well, whatever
       room there is, on a device where somebody's request, or a policy, waits for room.
    5. It does not fit, but memory on its way back suffices: it waits for that.
       So it does where Ray has no node with the CPUs and GPUs that its replicas ask for, whatever the bytes say.
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
    cluster: ClusterRoom = field(init=False)
    actions: list[Decision] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    pressure: dict[str, str] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    evictable: dict[str, list[ModelView]] = field(default_factory=dict)
    without_room: int = 0
    waited_for: set[str] = field(default_factory=set)  # devices where a request or a policy waits for room

    def run(self) -> Plan:
        observed, now, policies = self.observed, self.observed.now, self.observed.policies
        self.rooms = rooms_of(observed.fleet.devices, observed.models)
        self.cluster = ClusterRoom(observed.fleet.ray, observed.models)
        wanted = []
        for view in observed.models:
            if view.state is State.LOADED:
                if view.placement is not None and eviction.deciding_rule(view, now, policies) == 5:
                    for device in view.placement.devices:
                        self.evictable.setdefault(device, []).append(view)
            elif view.demand and view.state in _LOADABLE and view.retry_at is not None and view.retry_at <= now:
                wanted.append(view)
        wanted.sort(key=lambda v: (-v.demand, v.demand_since, v.name))
        for view in wanted:
            tired = view.demand < Demand.POLICY and self.without_room >= _ENOUGH_WITHOUT_ROOM
            if tired and self.without_room >= _FAR_TOO_MANY:
                break  # the estimates promise room that the plans do not find
            if not tired or view.footprint.bytes <= max((room.free for room in self.rooms.values()), default=0):
                self._consider_safely(view)
        self._relieve()
        return Plan(actions=tuple(self.actions), decisions=tuple(self.decisions), pressure=self.pressure)

    # -- loads -------------------------------------------------------------------------------------------------------

    def _consider_safely(self, view: ModelView) -> None:
        """A plan is for all models: a defect that one of them brings out is the end of that one's load, not of the pass."""
        try:
            self._consider(view)
        except Exception as defect:
            words = f"planning it failed, which is a defect of Modelium: {type(defect).__name__}: {defect}"
            self._decide(view, Verb.REFUSE, "plan.0", words)

    def _consider(self, view: ModelView) -> None:
        profile = view.profile
        if profile is None:
            return
        observed, policies = self.observed, self.observed.policies
        override = observed.overrides.get(view.name, _NO_OVERRIDE)
        choice = choose_runtime(profile, observed.capabilities, override)
        if choice.runtime is None:  # 1
            self._decide(view, Verb.REFUSE, choice.rule, choice.reason)
            return
        usable = self._options(view, profile, choice, override)
        ray = observed.fleet.ray
        if not usable and override.runtime is None and not ray.here:  # 2
            elsewhere = choose_ray(profile, observed.capabilities, "larger than any device of this machine")
            if elsewhere is not None:
                choice, usable = elsewhere, self._options(view, profile, elsewhere, override)
        rays = choice.runtime is Runtime.RAY
        if rays and ray.state is RayState.DOWN:  # 1
            self._decide(view, Verb.WAIT, "plan.1", f"Ray is down: {ray.detail}; it is loaded when Ray is back")
            return
        if not usable:  # a cluster may grow, this machine does not
            verb = Verb.WAIT if rays and not ray.here else Verb.REFUSE
            self._decide(view, verb, "plan.2", too_big(observed, view, profile, choice, self.rooms))
            return
        if view.demand < Demand.POLICY and self.waited_for:  # 4
            usable = [placement for placement in usable if self.waited_for.isdisjoint(placement.devices)]
            if not usable:
                others = ", ".join(sorted(self.waited_for))
                self._decide(view, Verb.WAIT, "plan.4", f"others wait for room on {others}; it is loaded when there is room")
                return
        for placement in usable:  # 3
            if self._fits(placement):
                self._load(view, placement, choice.reason)
                return
        engines = [placement for placement in usable if placement.runtime is Runtime.VLLM]
        full: set[tuple[int, int]] = set()  # of equal devices the first has the most room: if not there, then nowhere
        for placement in engines:
            device = self.rooms[placement.device_id].device
            alike = (device.total_bytes, device.budget_bytes)
            if alike not in full and (smaller := self._smaller(profile, placement, override)) is not None:
                self._load(view, smaller, choice.reason)
                return
            full.add(alike)
        if engines:  # what others may have to go for is the least of it
            fleet = {name: room.device for name, room in self.rooms.items()}
            usable = smallest(profile, engines, fleet, override, policies)
        need, where = usable[0].footprint.bytes, self._where(usable[0])
        free = min(room.free for room in self._rooms(usable[0]))
        if view.demand < Demand.POLICY:  # 4
            self.without_room += 1
            short = self._short(usable[0], f"{human_bytes(need)} needed, {human_bytes(max(free, 0))} free on {where}")
            self._decide(view, Verb.WAIT, "plan.4", f"no room ({short}); it is loaded when somebody asks for it")
            return
        for placement in usable:
            if self._make_room(view, placement):
                return
        # Nothing may go: words for the first choice, and no reservation, so that smaller models may pass meanwhile.
        why = self._short(usable[0], f"{view.name} needs {human_bytes(need)}, {human_bytes(max(free, 0))} free on {where}")
        self.pressure |= dict.fromkeys(usable[0].devices, why)
        self.waited_for |= set(usable[0].devices)
        self._decide(view, Verb.WAIT, "plan.6", f"{why}, and nothing there may be evicted: {who_holds(observed, usable[0])}")

    def _smaller(self, profile: ModelProfile, placement: Placement, override: ModelOverride) -> Placement | None:
        """An engine with as much cache as there is room for now."""
        rooms = self._rooms(placement)
        devices, free = [room.device for room in rooms], {room.device.id: room.free for room in rooms}
        return shrink(profile, placement, devices, override, self.observed.policies, free=free)

    def _load(self, view: ModelView, placement: Placement, why_runtime: str) -> None:
        need, rooms = placement.footprint.bytes, self._rooms(placement)
        if obstacle := starts.obstacle(placement, rooms, self.observed.policies.loads_per_device):
            for room in rooms:
                room.reserved += need
                room.awaited = room.awaited or placement.by_vllm
            self._decide(view, Verb.WAIT, "plan.3", obstacle)
            return
        known = "measured" if placement.footprint.measured_bytes is not None else "estimated"
        engine = placement.engine
        if engine is not None:
            known = f"planned, of them {human_bytes(engine.kv_bytes)} KV cache for {engine.kv_tokens:,} tokens"
        reason = (
            f"{placement.runtime} ({why_runtime}) on {self._where(placement)}: {human_bytes(need)} {known}, "
            f"{human_bytes(min(room.free for room in rooms))} free; wanted by {WANTED_BY[view.demand]}"
        )
        self.cluster.take(placement.replicas)
        for room in rooms:
            room.committed += need
            room.promised += need
            room.loads += 1
            room.engines += placement.by_vllm
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

    def _make_room(self, view: ModelView, placement: Placement) -> bool:
        need, rooms = placement.footprint.bytes, self._rooms(placement)
        free = min(room.free for room in rooms)
        bytes_short = f"{view.name} needs {human_bytes(need)}, {human_bytes(max(free, 0))} free on {self._where(placement)}"
        why = self._short(placement, bytes_short)
        victims: list[ModelView] = []
        for room in rooms:
            on_their_way = sum(v.bytes_held for v in victims if v.placement and room.device.id in v.placement.devices)
            lacking = need - room.free - room.returning - on_their_way
            if lacking > 0:  # 6
                more = self._victims(room, lacking, victims)
                if not more:
                    return False
                victims += more
        besides = self._victims_on_nodes(placement, victims)
        if besides is None:
            return False
        victims += besides
        starting = next((room for room in rooms if victims and starts.measures(room)), None)
        if starting is None:
            for victim in victims:
                self._evict(victim, why)
        for room in rooms:
            room.reserved += need
            room.returning = max(0, room.returning - need)
            self.pressure[room.device.id] = why
        after = "memory that is being given back" if starting is None else f"the engine that starts on {starting.device.id}"
        self._decide(view, Verb.WAIT, "plan.5", f"{why}; waiting for {after}")  # 5
        return True

    def _victims(self, room: Room, lacking: int, chosen_already: list[ModelView]) -> list[ModelView]:
        """The cheapest models whose memory suffices, or none."""
        gone = self.leaving | {v.name for v in chosen_already}
        candidates = [v for v in self.evictable.get(room.device.id, ()) if v.name not in gone]
        chosen: list[ModelView] = []
        for victim in eviction.in_order_of_sacrifice(candidates, self.observed.now, self.observed.policies):
            if lacking <= 0:
                break
            chosen.append(victim)
            lacking -= victim.bytes_held
        return chosen if lacking <= 0 else []

    def _victims_on_nodes(self, placement: Placement, chosen_already: list[ModelView]) -> list[ModelView] | None:
        """Who has to go besides, so that Ray's nodes have what the replicas ask for; None when that would not suffice."""
        gone = [v.placement.replicas for v in chosen_already if v.placement is not None and v.placement.replicas is not None]
        leaving = self.leaving | {v.name for v in chosen_already}
        rays = [v for v in self.evictable.get(placement.device_id, ()) if v.placement is not None and v.placement.replicas]
        candidates = [v for v in rays if v.name not in leaving]
        chosen: list[ModelView] = []
        order = iter(eviction.in_order_of_sacrifice(candidates, self.observed.now, self.observed.policies))
        while not self.cluster.fits(placement.replicas, without=gone):
            victim = next(order, None)
            if victim is None or victim.placement is None or victim.placement.replicas is None:
                return None
            chosen.append(victim)
            gone.append(victim.placement.replicas)
        return chosen

    def _options(
        self, view: ModelView, profile: ModelProfile, choice: RuntimeChoice, override: ModelOverride
    ) -> list[Placement]:
        observed = self.observed
        found = options(view, profile, choice, self.rooms.values(), override, observed.policies, observed.fleet.ray)
        return [placement for _, placement in found]

    def _rooms(self, placement: Placement) -> list[Room]:
        return [self.rooms[device] for device in placement.devices]

    def _fits(self, placement: Placement) -> bool:
        bytes_fit = all(placement.footprint.bytes <= room.free for room in self._rooms(placement))
        return bytes_fit and self.cluster.fits(placement.replicas)

    def _short(self, placement: Placement, of_bytes: str) -> str:
        """What a placement lacks: bytes, or where Ray's nodes are the matter what they lack."""
        if placement.replicas is None or self.cluster.fits(placement.replicas):
            return of_bytes
        return f"{of_bytes}; Ray's nodes have no room for {self.cluster.describe(placement.replicas)}"

    def _where(self, placement: Placement) -> str:
        return ("each of " if len(placement.devices) > 1 else "") + ", ".join(placement.devices)

    # -- unloads -----------------------------------------------------------------------------------------------------

    def _relieve(self) -> None:
        now, policies = self.observed.now, self.observed.policies
        for room in self.rooms.values():
            if starts.measures(room):
                continue
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
                    self._evict(view, why)
                elif eviction.is_overdue(view, now, policies):
                    self._evict(view, "")

    def _evict(self, view: ModelView, pressure: str) -> None:
        self.leaving.add(view.name)
        for device in view.placement.devices if view.placement is not None else ():
            if device in self.rooms:
                self.rooms[device].returning += view.bytes_held
        reason = eviction.explain_evict(view, self.observed.now, self.observed.policies, pressure)
        decision = Decision(at=self.observed.now, model=view.name, verb=Verb.UNLOAD, rule="evict.5", reason=reason)
        self.actions.append(decision)
        self.decisions.append(decision)

    def _decide(self, view: ModelView, verb: Verb, rule: str, reason: str) -> None:
        self.decisions.append(Decision(at=self.observed.now, model=view.name, verb=verb, rule=rule, reason=reason))
