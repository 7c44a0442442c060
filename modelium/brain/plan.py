"""The plan: everything observed enters, what to load and unload now leaves, each with its reason.

Keeping a model is the normal case and gets no words here: ``explain()`` finds them when somebody asks. That is what keeps a
plan for a thousand models under a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modelium.brain import eviction, turns
from modelium.brain.draft import Draft, where
from modelium.brain.engine.devices import shrink, smallest
from modelium.brain.placement import load_order
from modelium.brain.placement.candidates import choose
from modelium.brain.plan_words import together, too_big, who_holds
from modelium.sizes import human_bytes
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
    State,
    Verb,
)

_NO_OVERRIDE = ModelOverride()
_ENOUGH_WITHOUT_ROOM = 16
_FAR_TOO_MANY = 64
_FREE = frozenset({turns.Hold.NOTHING})
_AT_ITS_TURN = frozenset({turns.Hold.NOTHING, turns.Hold.LEASES})


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
    6. It does not fit: that is pressure. A request, a user's load, or a pin: what is not in use goes (eviction's rule 6), as
       few as needed, on the device where that does the least harm; when its turn has come what is in use goes too (eviction's
       rule 7). With ``evict_for_requests: idle`` those go that eviction's rule 5 lets go, the cheapest to lose first. If all
       those would not suffice, none goes, and it waits until something may.
    7. Its turn has come, and what has to go is still loading or was loaded a moment ago: it waits, and nothing else comes
       there, or smaller models would pass it for ever.

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
    return Decision(at=observed.now, model=view.name, verb=Verb.KEEP, rule=eviction.name_of(rule), reason=reason)


@dataclass(slots=True)
class _Planner:
    observed: Observed
    draft: Draft = field(init=False)
    without_room: int = 0
    waited_for: set[str] = field(default_factory=set)  # devices where a request or a policy waits for room

    def run(self) -> Plan:
        draft = self.draft = Draft(self.observed)
        now = self.observed.now
        wanted = [
            view
            for view in self.observed.models
            if view.demand and view.state.may_load and view.retry_at is not None and view.retry_at <= now
        ]
        wanted.sort(key=lambda v: (-v.demand, v.demand_since, v.name))
        for view in wanted:
            tired = view.demand < Demand.POLICY and self.without_room >= _ENOUGH_WITHOUT_ROOM
            if tired and self.without_room >= _FAR_TOO_MANY:
                break  # the estimates promise room that the plans do not find
            if not tired or view.footprint.bytes <= max((room.free for room in draft.rooms.values()), default=0):
                self._consider_safely(view)
        self._relieve()
        return draft.finished(room_is_wanted=bool(self.waited_for))

    # -- loads -------------------------------------------------------------------------------------------------------

    def _consider_safely(self, view: ModelView) -> None:
        """A plan is for all models: a defect that one of them brings out is the end of that one's load, not of the pass."""
        try:
            self._consider(view)
        except Exception as defect:
            words = f"planning it failed, which is a defect of Modelium: {type(defect).__name__}: {defect}"
            self.draft.decide(view, Verb.REFUSE, "plan.0", words)

    def _consider(self, view: ModelView) -> None:
        profile = view.profile
        if profile is None:
            return
        override = self.observed.overrides.get(view.name, _NO_OVERRIDE)
        capabilities, policies, ray = self.observed.capabilities, self.observed.policies, self.observed.fleet.ray
        choice, usable = choose(view, profile, self.draft.rooms.values(), override, capabilities, policies, ray)
        if choice.runtime is None:  # 1
            self.draft.decide(view, Verb.REFUSE, choice.rule, choice.reason)
            return
        rays = choice.by_ray
        if rays and ray.state is RayState.DOWN:  # 1
            self.draft.decide(view, Verb.WAIT, "plan.1", f"Ray is down: {ray.detail}; it is loaded when Ray is back")
            return
        if not usable:  # a cluster may grow, this machine does not
            verb = Verb.WAIT if rays and not ray.here else Verb.REFUSE
            self.draft.decide(view, verb, "plan.2", too_big(self.observed, view, profile, choice, self.draft.rooms))
            return
        if view.demand < Demand.POLICY and self.waited_for:  # 4
            usable = [placement for placement in usable if self.waited_for.isdisjoint(placement.devices)]
            if not usable:
                others = ", ".join(sorted(self.waited_for))
                words = f"others wait for room on {others}; it is loaded when there is room"
                self.draft.decide(view, Verb.WAIT, "plan.4", words)
                return
        chosen = self._that_fits(profile, usable, override)  # 3
        if chosen is not None:
            self._load(view, chosen, choice.reason)
        else:
            self._wait_for_room(view, profile, usable, override)

    def _that_fits(self, profile: ModelProfile, usable: list[Placement], override: ModelOverride) -> Placement | None:
        """The first with room, or else an engine with as much cache as there is room for now."""
        for placement in usable:
            if self.draft.fits(placement):
                return placement
        full: set[tuple[int, int]] = set()  # of equal devices the first has the most room: if not there, then nowhere
        for placement in _engines(usable):
            device = self.draft.rooms[placement.device_id].device
            alike = (device.total_bytes, device.budget_bytes)
            if alike in full:
                continue
            full.add(alike)
            rooms = self.draft.rooms_for(placement)
            devices, free = [room.device for room in rooms], {room.device.id: room.free for room in rooms}
            smaller = shrink(profile, placement, devices, override, self.observed.policies, free=free)
            if smaller is not None:
                return smaller
        return None

    def _load(self, view: ModelView, placement: Placement, why_runtime: str) -> None:
        rooms = self.draft.rooms_for(placement)
        obstacle = load_order.obstacle(placement, rooms, self.observed.policies.loads_per_device)
        if not obstacle:
            self.draft.load(view, placement, why_runtime)
            return
        for room in rooms:
            room.reserved += placement.footprint.bytes
            room.awaited = room.awaited or placement.by_vllm
        self.draft.decide(view, Verb.WAIT, "plan.3", obstacle)

    def _wait_for_room(self, view: ModelView, profile: ModelProfile, usable: list[Placement], override: ModelOverride) -> None:
        draft = self.draft
        if engines := _engines(usable):  # what others may have to go for is the least of it
            fleet = {name: room.device for name, room in draft.rooms.items()}
            usable = smallest(profile, engines, fleet, override, self.observed.policies)
        first = usable[0]
        need, free = human_bytes(first.footprint.bytes), human_bytes(self._free(first))
        if view.demand < Demand.POLICY:  # 4
            self.without_room += 1
            short = draft.lack(first, f"{need} needed, {free} free on {where(first)}")
            draft.decide(view, Verb.WAIT, "plan.4", f"no room ({short}); it is loaded when somebody asks for it")
            return
        if turns.swaps(view, self.observed.policies):
            made = self._swap(view, usable)
        else:
            made = any(self._make_room(view, place, draft.victims(place), swap=False) for place in usable)
        if made:
            return
        # Nothing may go: words for the first choice, and no reservation, so that smaller models may pass meanwhile.
        why = draft.lack(first, f"{view.name} needs {need}, {free} free on {where(first)}")
        draft.pressure |= dict.fromkeys(first.devices, why)
        self.waited_for |= set(first.devices)
        words = f"{why}, and nothing there may be evicted: {who_holds(self.observed, view, first)}"
        draft.decide(view, Verb.WAIT, "plan.6", words)

    def _swap(self, view: ModelView, usable: list[Placement]) -> bool:
        """Room for somebody who waits, where it does the least harm; at his turn also by what is in use."""
        draft, now, policies = self.draft, self.observed.now, self.observed.policies
        turn_at = turns.turn_at(view, policies)
        due = turn_at is not None and turn_at <= now
        found = [
            (self._harm(victims), place, victims) for place in usable if (victims := draft.swapped(place, _FREE)) is not None
        ]
        if not found and due:
            found = [
                (self._harm(gone), place, gone) for place in usable if (gone := draft.swapped(place, _AT_ITS_TURN)) is not None
            ]
        if found:
            _, best, victims = min(found, key=lambda each: each[0])
            return self._make_room(view, best, victims, swap=True)
        for place in usable:
            draft.look_again(place, turn_at)
        promised = next((place for place in usable if draft.promises(place)), None) if due else None
        if promised is not None:
            for room in draft.rooms_for(promised):
                room.reserved += promised.footprint.bytes
            self.waited_for |= set(promised.devices)
            there = who_holds(self.observed, view, promised)
            words = f"its turn has come, and nothing else comes to {where(promised)} before it: {there}"
            draft.decide(view, Verb.WAIT, "plan.7", words)
            return True
        return False

    def _harm(self, victims: list[ModelView]) -> tuple[int, float]:
        in_use = sum(bool(victim.usage.in_flight) for victim in victims)
        return in_use, sum(turns.harm(v, self.observed.now, self.observed.policies) for v in victims)

    def _make_room(self, view: ModelView, placement: Placement, victims: list[ModelView] | None, *, swap: bool) -> bool:
        if victims is None:  # 6
            return False
        draft, rooms, need = self.draft, self.draft.rooms_for(placement), placement.footprint.bytes
        free = human_bytes(self._free(placement))
        why = draft.lack(placement, f"{view.name} needs {human_bytes(need)}, {free} free on {where(placement)}")
        starting = next((room for room in rooms if victims and load_order.measures(room)), None)
        if starting is None:
            for victim in victims:
                draft.evict(victim, f"{why}{together(victim, placement, rooms)}" if swap else why, view if swap else None)
        for room in rooms:
            room.reserved += need
            room.returning = max(0, room.returning - need)
            draft.pressure[room.device.id] = why
        after = "memory that is being given back" if starting is None else f"the engine that starts on {starting.device.id}"
        draft.decide(view, Verb.WAIT, "plan.5", f"{why}; waiting for {after}")  # 5
        return True

    def _free(self, placement: Placement) -> int:
        return max(0, min(room.free for room in self.draft.rooms_for(placement)))

    # -- unloads -----------------------------------------------------------------------------------------------------

    def _relieve(self) -> None:
        now, policies = self.observed.now, self.observed.policies
        for room in self.draft.rooms.values():
            if load_order.measures(room):
                continue
            device = room.device
            held = room.committed - room.returning
            limit = policies.pressure_fraction * device.budget_bytes
            why = f"{human_bytes(held)} of {human_bytes(device.budget_bytes)} on {device.id} are taken"
            if held > limit:
                self.draft.pressure.setdefault(device.id, why)
            for view in self.draft.evictable(device.id):
                if held > limit:
                    held -= view.bytes_held
                    self.draft.evict(view, why)
                elif eviction.is_overdue(view, now, policies):
                    self.draft.evict(view, "")


def _engines(placements: list[Placement]) -> list[Placement]:
    return [placement for placement in placements if placement.by_vllm and not placement.by_ray]
