"""The plan: what changed since the last one enters the board, what to load and unload now leaves, each with its reason.

Keeping a model is the normal case and gets no words here: ``explain()`` finds them when somebody asks. That, and that a board
is kept from plan to plan, is why a plan costs what changed and not what is known.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import islice

from modelium.brain import eviction, turns
from modelium.brain.board import Board
from modelium.brain.draft import Draft, where
from modelium.brain.engine.devices import shrink
from modelium.brain.leavers import Leavers
from modelium.brain.placement import load_order
from modelium.brain.placement.offers import Offer, rank_of
from modelium.brain.plan_words import too_big, who_holds
from modelium.brain.room_making import RoomMaking
from modelium.brain.weighing import weigh
from modelium.sizes import human_bytes
from modelium.values import Decision, Demand, ModelProfile, ModelView, Observed, Placement, Plan, RayState, State, Verb

_ENOUGH_WITHOUT_ROOM = 16
_FAR_TOO_MANY = 64
_ENOUGH_WITH_ROOM = 8  # devices with room that are compared, where there are more

_Devices = tuple[str, ...]
_NOWHERE: frozenset[str] = frozenset()


def plan(observed: Observed) -> Plan:
    """Decide what to load and unload now, from a snapshot. See :func:`plan_on`."""
    return plan_on(Board.of(observed), observed.now)


def plan_on(board: Board, now: float, *, tell_all: bool = False) -> Plan:
    """Decide what to load and unload now.

    Loads, for every model that is wanted and may be tried, strongest demand first, then as ``turns.queue`` says:

    0. A defect comes out while it is planned: refused with its words, and the others are planned.
    1. No runtime can serve it: refused. Ray would, and is down: it waits for Ray.
    2. It is larger than the budget of every device it may use: Ray serves it, where its cluster has more; else it is refused.
    3. It fits now: loaded, unless enough loads run on each device with room. A vLLM engine is planned with less cache, down to
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
       those would not suffice, none goes, and it waits until something may. Nobody goes where as many loads run, or are to
       come, as may run side by side: it would be gone before anybody could use its room.
    7. It waited for two minutes, and what has to go is still loading or was loaded a moment ago: it waits, and nothing else
       comes there, or smaller models would pass it for ever.

    Then unloads that nobody waits for (eviction's rule 5): devices on which more than their budget is taken, by others too.
    With ``unload_without_pressure``: those over ``pressure_fraction`` of it, and models idle for over twice the threshold.

    Who waits as before is not spoken of again, unless ``tell_all``: hundreds may wait.
    """
    if tell_all:
        board.told.clear()
    return _Planner(Draft(board, now)).run()


def explain(board: Board, now: float, name: str) -> Decision | None:
    """The decision about one model now: from the plan, or the rule that keeps it, with what it would be weighed by; None when
    there is nothing to decide."""
    made = next((d for d in plan_on(board, now, tell_all=True).decisions if d.model == name), None)
    view = board.views.get(name)
    if made is not None or view is None:
        return made
    kept = explain_keep(board, now, view)
    return kept if kept is None else replace(kept, weighed=(weigh(view, now, board.policies),))


def explain_keep(board: Board, now: float, view: ModelView) -> Decision | None:
    """Why a loaded model that the plan does not mention stays; None when it is not loaded."""
    if view.state is not State.LOADED:
        return None
    rule = eviction.deciding_rule(view, now, board.policies)
    reason = eviction.explain_keep(view, rule, now, board.policies)
    return Decision(at=now, model=view.name, verb=Verb.KEEP, rule=eviction.name_of(rule), reason=reason)


@dataclass(slots=True)
class _Planner:
    """``blocked``: what was found out about equal devices for a model of some size, and so for each larger one: it fits, but no
    load may begin there."""

    draft: Draft
    without_room: int = 0
    blocked: dict[Hashable, tuple[int, _Devices, str]] = field(default_factory=dict)
    making: RoomMaking = field(init=False)

    def __post_init__(self) -> None:
        self.making = RoomMaking(Leavers(self.draft))

    def run(self) -> Plan:
        board, now = self.draft.board, self.draft.now
        strong = [view for view in board.strong.values() if view.retry_at is not None and view.retry_at <= now]
        for view in turns.queue(strong, now):
            if not self.making.waits_as_before(view):
                self._consider_safely(view)
        most_free = max((peers.most_free for peers in board.devices.peers.values()), default=0)
        for view in board.weak():
            if view.retry_at is None or view.retry_at > now:
                continue
            tired = self.without_room >= _ENOUGH_WITHOUT_ROOM
            if tired and self.without_room >= _FAR_TOO_MANY:
                break  # the estimates promise room that the plans do not find
            if not tired or view.footprint.bytes <= most_free:
                self._consider_safely(view)
        self._relieve()
        return self.draft.finished(room_is_wanted=bool(self.making.waited_for))

    # -- loads -------------------------------------------------------------------------------------------------------

    def _consider_safely(self, view: ModelView) -> None:
        """A plan is for all models: a defect that one of them brings out is the end of that one's load, not of the pass."""
        try:
            self._consider(view)
        except Exception as defect:
            words = f"planning it failed, which is a defect of Modelium: {type(defect).__name__}: {defect}"
            self.draft.decide(view, Verb.REFUSE, "plan.0", words)

    def _consider(self, view: ModelView) -> None:
        profile, board, draft = view.profile, self.draft.board, self.draft
        if profile is None:
            return
        offers, ray = board.offering.of(view, profile), board.devices.fleet.ray
        choice = offers.choice
        if choice.runtime is None:  # 1
            draft.decide(view, Verb.REFUSE, choice.rule, choice.reason)
            return
        rays = choice.by_ray
        if rays and ray.state is RayState.DOWN:  # 1
            draft.decide(view, Verb.WAIT, "plan.1", f"Ray is down: {ray.detail}; it is loaded when Ray is back")
            return
        if not offers.usable:  # a cluster may grow, this machine does not
            verb = Verb.WAIT if rays and not ray.here else Verb.REFUSE
            draft.decide(view, verb, "plan.2", too_big(board, view, profile, choice))
            return
        avoid: Collection[str] = self.making.waited_for if view.demand < Demand.POLICY else _NOWHERE
        if avoid and not any(len(self._outside(offer, avoid, offer.ranks)) == offer.ranks for offer in offers.usable):  # 4
            words = f"others wait for room on {', '.join(sorted(self.making.waited_for))}; it is loaded when there is room"
            draft.decide(view, Verb.WAIT, "plan.4", words)
            return
        if (found := self._best_with_room(offers.usable, avoid)) is not None:  # 3
            self._load(view, *found, choice.reason)
            return
        for offer in offers.usable:
            if (smaller := self._with_less_cache(view, profile, offer, avoid)) is not None:
                self._load(view, smaller, self._obstacle(smaller, smaller.devices), choice.reason)
                return
        self._wait_for_room(view, board.offering.smallest(view, offers) or offers.usable)

    def _outside(self, offer: Offer, avoid: Collection[str], most: int) -> list[str]:
        """At most so many of the devices that are not to be avoided, the most free first."""
        return list(islice((name for name in self.draft.devices.each_place(offer) if name not in avoid), most))

    def _best_with_room(self, usable: list[Offer], avoid: Collection[str]) -> tuple[Placement, str] | None:
        """The first with room; where no load may begin there, another that is as good and where one may."""
        first: tuple[Placement, str] | None = None
        for offer in usable:
            if first is not None and rank_of(offer.placement) != rank_of(first[0]):
                break
            found = self._with_room(offer, avoid)
            if found is not None and not found[1]:
                return found
            first = first or found
        return first

    def _with_room(self, offer: Offer, avoid: Collection[str]) -> tuple[Placement, str] | None:
        """Where there is room and a load may begin; else where there is room, and why no load may begin."""
        board, draft, placement, ranks = self.draft.board, self.draft, offer.placement, offer.ranks
        need, known = placement.footprint.bytes, (offer.peers, ranks, placement.by_vllm)
        if board.devices.most_free(offer) < need:
            return None
        if not avoid and offer.peers is not None and known in self.blocked and need >= self.blocked[known][0]:
            _, devices, obstacle = self.blocked[known]
            return board.devices.on(offer, devices), obstacle
        found: list[str] = []
        blocked: list[str] = []
        why = ""
        for device in board.devices.each_place(offer):
            if board.devices.rooms[device].free < need:
                break  # the others have no more
            if device in avoid or not draft.fits(placement, (device,)):
                continue
            if not (obstacle := self._obstacle(placement, (device,))):
                found.append(device)
                if len(found) == max(_ENOUGH_WITH_ROOM, ranks):
                    break
            elif len(blocked) < ranks:
                blocked.append(device)
                why = why or obstacle
        if len(found) >= ranks:
            return board.devices.on(offer, tuple(nlargest(ranks, found, key=draft.free))), ""
        if len(found) + len(blocked) < ranks:
            return None
        devices = (*found, *blocked)[:ranks]
        if offer.peers is not None and not avoid:
            self.blocked[known] = need, devices, why
        return board.devices.on(offer, devices), why

    def _with_less_cache(
        self, view: ModelView, profile: ModelProfile, offer: Offer, avoid: Collection[str]
    ) -> Placement | None:
        """An engine with as much cache as there is room for now, where there is the most."""
        if not offer.placement.by_vllm or offer.placement.by_ray:
            return None
        draft, board = self.draft, self.draft.board
        some = self._outside(offer, avoid, max(_ENOUGH_WITH_ROOM, offer.ranks))
        devices = tuple(nlargest(offer.ranks, some, key=draft.free))
        if len(devices) < offer.ranks:
            return None
        free = {device: draft.free(device) for device in devices}
        rooms = [board.devices.rooms[device].device for device in devices]
        return shrink(
            profile, board.devices.on(offer, devices), rooms, board.offering.override(view.name), board.policies, free=free
        )

    def _obstacle(self, placement: Placement, devices: _Devices) -> str:
        rooms = [self.draft.room(device) for device in devices]
        return load_order.obstacle(placement, rooms, self.draft.board.policies.loads_per_device)

    def _load(self, view: ModelView, placement: Placement, obstacle: str, why_runtime: str) -> None:
        if not obstacle:
            self.draft.load(view, placement, why_runtime)
            return
        if self.draft.fits(placement, placement.devices):
            for room in self.draft.change(placement.devices):
                room.reserved += placement.footprint.bytes
                room.awaited = room.awaited or placement.by_vllm
        elif view.name in self.draft.board.told or view.demand < Demand.POLICY:
            self.without_room += 1  # it would be one of many that wait for those before it
            return
        self.draft.decide(view, Verb.WAIT, "plan.3", obstacle)

    # -- room --------------------------------------------------------------------------------------------------------

    def _wait_for_room(self, view: ModelView, usable: list[Offer]) -> None:
        """``usable``: of engines those with the least cache, for what others may have to go for is the least of it."""
        draft, board = self.draft, self.draft.board
        if view.demand < Demand.POLICY:  # 4
            self.without_room += 1
            first, need, free = self._first_choice(usable)
            short = draft.lack(first, f"{need} needed, {free} free on {where(first)}")
            draft.decide(view, Verb.WAIT, "plan.4", f"no room ({short}); it is loaded when somebody asks for it")
            return
        if self.making.swap(view, usable) if turns.swaps(view, board.policies) else self.making.replace_idle(view, usable):
            return
        # Nothing may go: words for the first choice, and no reservation, so that smaller models may pass meanwhile.
        self.making.waited_for.update(next(iter(board.devices.places(usable[0]))))
        if view.name in board.told:
            return
        first, need, free = self._first_choice(usable)
        why = draft.lack(first, f"{view.name} needs {need}, {free} free on {where(first)}")
        draft.pressure |= dict.fromkeys(first.devices, why)
        words = f"{why}, and nothing there may be evicted: {who_holds(board, draft.now, view, first)}"
        draft.decide(view, Verb.WAIT, "plan.6", words)

    def _first_choice(self, usable: list[Offer]) -> tuple[Placement, str, str]:
        """Where it would go before all others, what it needs and what is free there."""
        first = self.draft.devices.on(usable[0], next(iter(self.draft.devices.places(usable[0]))))
        return first, human_bytes(first.footprint.bytes), human_bytes(self.draft.least_free(first.devices))

    # -- unloads -----------------------------------------------------------------------------------------------------

    def _relieve(self) -> None:
        draft, board, now = self.draft, self.draft.board, self.draft.now
        unloads_idle, fraction = board.policies.unloads_idle, board.policies.relieved_fraction
        changed = {room.device.id for room in draft.changed_rooms()}
        for name in sorted(board.devices.rooms if unloads_idle else board.devices.pressed | changed):
            room = draft.room(name)
            if load_order.measures(room):
                continue
            held, budget = room.committed - room.returning, room.device.budget_bytes
            limit = fraction * budget
            if held <= limit and not unloads_idle:
                continue
            why = f"{human_bytes(held)} of {human_bytes(budget)} on {name} are taken"
            if held > limit:
                draft.pressure.setdefault(name, why)
            for view in self.making.leavers.evictable(name):
                if held > limit:
                    held -= view.bytes_held
                    draft.evict(view, why)
                elif eviction.is_overdue(view, now, board.policies):
                    draft.evict(view, "")
