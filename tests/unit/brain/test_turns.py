"""Who goes for somebody who waits, in which order, and that everybody has a turn."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain import arrivals as arrivals_of
from modelium.brain.board import Board
from modelium.brain.plan import explain, plan
from modelium.brain.turns import Hold, hold, queue
from modelium.values import (
    Arrivals,
    Demand,
    EvictForRequests,
    Eviction,
    ModelOverride,
    ModelView,
    Observed,
    Policies,
    State,
    Usage,
    Verb,
)
from tests.unit.brain.worlds import GIB, MIB, NOW, gpu, host, loaded, wanted, world

IDLE = Policies(evict_for_requests=EvictForRequests.IDLE)
SWAP = Policies()


def gone(observed: Observed) -> list[str]:
    return sorted(action.model for action in plan(observed).actions if action.verb is Verb.UNLOAD)


def test_a_request_does_not_wait_for_idle_time() -> None:
    made = plan(world(loaded("a", 6 * GIB, idle_s=12), wanted("b", 6 * GIB)))
    [victim, waits] = made.decisions
    assert (victim.verb, victim.rule, victim.beneficiary) == (Verb.UNLOAD, "evict.6", "b")
    assert victim.reason.startswith("a waiting request for b waits; a goes: no request for 12 s"), victim.reason
    assert "these two models need 12.0 GiB, host has 8.0 GiB" in victim.reason
    assert (waits.verb, waits.rule) == (Verb.WAIT, "plan.5")


def test_with_idle_it_does() -> None:
    [waits] = plan(world(loaded("a", 6 * GIB, idle_s=12), wanted("b", 6 * GIB), policies=IDLE)).decisions
    assert (waits.verb, waits.rule) == (Verb.WAIT, "plan.6") and "evict_after_idle_seconds" in waits.reason


def test_a_users_load_and_a_pin_push_out_what_is_idle_and_a_discovery_does_not() -> None:
    for demand, rule in [
        (Demand.USER, "evict.6"),
        (Demand.POLICY, "evict.6"),
        (Demand.RESTORE, ""),
        (Demand.DISCOVERY, ""),
        (Demand.EXPECTED, ""),
    ]:
        made = plan(world(loaded("a", 6 * GIB, idle_s=12), wanted("b", 6 * GIB, demand=demand)))
        assert [action.rule for action in made.actions] == ([rule] if rule else []), demand


def test_what_holds_a_model() -> None:
    policies = Policies()
    assert hold(loaded("m", pinned=True), NOW, policies) is Hold.WORD
    assert hold(loaded("m", always_loaded=True), NOW, policies) is Hold.WORD
    assert hold(loaded("m"), NOW, Policies(eviction=Eviction.NEVER)) is Hold.WORD
    assert hold(loaded("m", usage=Usage(in_flight=1)), NOW, policies) is Hold.LEASES
    often, seldom = Usage(gap_s=4.0, asked=True), Usage(gap_s=60.0, asked=True)
    assert hold(loaded("m", loaded_at=NOW - 4.9, load_seconds=1.0, usage=often), NOW, policies) is Hold.RESIDENCE
    assert hold(loaded("m", loaded_at=NOW - 5, load_seconds=30.0, usage=often), NOW, policies) is Hold.NOTHING
    assert hold(loaded("m", loaded_at=NOW - 0.9, load_seconds=30.0, usage=seldom), NOW, policies) is Hold.RESIDENCE
    for usage in (seldom, Usage(asked=True), Usage()):  # it has served those it was loaded for
        assert hold(loaded("m", loaded_at=NOW - 1, load_seconds=30.0, usage=usage), NOW, policies) is Hold.NOTHING
    assert hold(loaded("m", loaded_at=NOW - 5, load_seconds=30.0), NOW, Policies(min_residence_seconds=4)) is Hold.NOTHING


def test_a_young_model_is_waited_for_until_its_residence_is_over() -> None:
    often = Usage(last_used_at=NOW - 2, gap_s=3.0, asked=True)
    made = plan(world(loaded("a", 6 * GIB, loaded_at=NOW - 2, load_seconds=1.0, usage=often), wanted("b", 6 * GIB)))
    assert made.actions == () and made.again_at == NOW + 3
    assert "loaded 2 s ago, and it stays for 5 s" in made.decisions[0].reason


def test_what_was_only_discovered_goes_before_all_that_was_asked() -> None:
    asked = loaded("asked", 4 * GIB, idle_s=290, load_seconds=0.1)
    found = loaded("found", 4 * GIB, load_seconds=90.0, usage=Usage(last_used_at=NOW - 6, asked=False))
    assert gone(world(asked, found, wanted("b", 2 * GIB))) == ["found"]


def asked_each(gap_s: float, times: int = 12) -> Arrivals:
    arrivals = Arrivals()
    for number in range(times):
        arrivals = arrivals_of.learned(arrivals, gap_s, now=number * gap_s)
    return arrivals


def test_what_is_expected_soonest_goes_last() -> None:
    each_3_s, each_2_min = asked_each(3.0), asked_each(120.0)
    views = [
        loaded("seconds", 2 * GIB, usage=Usage(last_used_at=NOW - 2, arrivals=each_3_s)),
        loaded("minutes", 2 * GIB, usage=Usage(last_used_at=NOW - 20, arrivals=each_2_min)),
        loaded("ended", 2 * GIB, usage=Usage(last_used_at=NOW - 60, arrivals=each_3_s)),
    ]
    left, order = list(views), []
    while left:
        [first] = gone(world(*left, wanted("b", 8 * GIB - (len(left) - 1) * 2 * GIB)))
        order.append(first)
        left = [view for view in left if view.name != first]
    assert order == ["ended", "minutes", "seconds"]


def test_the_device_where_it_does_the_least_harm_is_chosen() -> None:
    devices = (host(budget=MIB), gpu(0), gpu(1))
    busy = loaded("busy", 18 * GIB, device=gpu(0), usage=Usage(last_used_at=NOW - 5, gap_s=5.0))
    quiet = loaded("quiet", 19 * GIB, device=gpu(1), usage=Usage(last_used_at=NOW - 250, gap_s=60.0))
    assert gone(world(busy, quiet, wanted("b", 10 * GIB), devices=devices)) == ["quiet"]
    only = {"b": ModelOverride(device="cuda:0")}
    assert gone(world(busy, quiet, wanted("b", 10 * GIB), devices=devices, overrides=only)) == ["busy"]


def test_of_many_devices_too_the_least_harm_is_chosen_and_one_who_may_go_is_found() -> None:
    devices = tuple(gpu(number) for number in range(64))
    unused = [loaded(f"m{at}", 20 * GIB, device=devices[at], idle_s=1_000 + at * 37 % 64) for at in range(64)]
    longest = max(unused, key=lambda view: view.usage.idle_s(NOW))
    assert gone(world(*unused, wanted("w", 20 * GIB), devices=devices)) == [longest.name]
    busy = [replace(view, usage=replace(view.usage, in_flight=1)) for view in unused]
    for at in (0, 31, 63):
        one_idle = [*busy[:at], unused[at], *busy[at + 1 :]]
        assert gone(world(*one_idle, wanted("w", 20 * GIB), devices=devices)) == [unused[at].name]


def test_at_its_turn_a_model_that_is_always_in_use_goes_too() -> None:
    busy = loaded("a", 6 * GIB, usage=Usage(in_flight=3))
    early = plan(world(busy, wanted("b", 6 * GIB, demand_since=NOW - 9)))
    assert early.actions == () and early.again_at == NOW + 1
    assert "3 requests in flight; who waits for 10 s has its turn" in early.decisions[0].reason
    [action] = plan(world(busy, wanted("b", 6 * GIB, demand_since=NOW - 10))).actions
    assert (action.rule, action.beneficiary) == ("evict.7", "b") and "takes no new ones" in action.reason
    assert gone(world(replace(busy, pinned=True), wanted("b", 6 * GIB, demand_since=NOW - 10))) == []
    assert gone(world(busy, wanted("b", 6 * GIB, demand=Demand.POLICY, demand_since=0.0))) == [], "nobody waits for a pin"


def test_whoever_waits_for_room_in_use_is_looked_at_when_a_request_there_ends() -> None:
    """A pin has no turn, and with ``idle`` nobody has: the end of a request is all that can help them."""
    busy = loaded("a", 6 * GIB, usage=Usage(in_flight=1))
    for demand, policies in [(Demand.REQUEST, SWAP), (Demand.REQUEST, IDLE), (Demand.USER, SWAP), (Demand.POLICY, SWAP)]:
        waits = plan(world(busy, wanted("b", 6 * GIB, demand=demand, demand_since=NOW - 1), policies=policies))
        assert waits.actions == () and waits.room_is_wanted, (demand, policies)
    for demand in (Demand.RESTORE, Demand.DISCOVERY):
        assert not plan(world(busy, wanted("b", 6 * GIB, demand=demand))).room_is_wanted
    assert not plan(world(busy, wanted("b", GIB))).room_is_wanted


def test_smaller_models_do_not_pass_one_that_waited_for_two_minutes() -> None:
    young = loaded("a", 6 * GIB, loaded_at=NOW - 0.5)
    big, small = wanted("big", 7 * GIB, demand_since=NOW - 120), wanted("small", GIB)
    sooner = plan(world(young, replace(big, demand_since=NOW - 119), small))
    assert [action.model for action in sooner.actions] == ["small"], "a device that stands idle is no use to anybody"
    rules = {decision.model: (decision.verb, decision.rule) for decision in plan(world(young, big, small)).decisions}
    assert rules["big"] == (Verb.WAIT, "plan.7") and rules["small"][0] is Verb.WAIT
    held = plan(world(replace(young, pinned=True), big, small))
    assert [action.model for action in held.actions] == ["small"], "what a pin holds is not worth waiting for"


def test_why_says_that_a_model_stays() -> None:
    said = explain(Board.of(world(loaded("m", idle_s=100))), NOW, "m")
    assert said is not None and (said.verb, said.rule) == (Verb.KEEP, "evict.4")


def test_short_loads_come_before_long_ones_and_many_requests_before_one() -> None:
    short, long = (wanted(name, load_seconds=load_s, demand_since=NOW - 2) for name, load_s in (("short", 3.0), ("long", 30.0)))
    assert [view.name for view in queue([long, short], NOW)] == ["short", "long"]
    many = replace(long, name="many", waiting=40)
    assert [view.name for view in queue([long, short, many], NOW)] == ["many", "short", "long"]
    user, pin = (replace(short, name=each.name, demand=each, waiting=0) for each in (Demand.USER, Demand.POLICY))
    assert [view.name for view in queue([pin, user, long], NOW)] == ["long", "USER", "POLICY"]


@given(
    st.lists(st.tuples(st.floats(0.1, 300), st.floats(0, 119), st.integers(1, 500)), max_size=8),
    st.floats(0.1, 300),
    st.floats(120, 300),
)
def test_nobody_is_passed_after_two_minutes(others: list[tuple[float, float, int]], load_s: float, waited_s: float) -> None:
    late = wanted("late", load_seconds=load_s, demand_since=NOW - waited_s)
    views = [
        wanted(f"m{i}", load_seconds=load, demand_since=NOW - waited, waiting=waiting)
        for i, (load, waited, waiting) in enumerate(others)
    ]
    assert queue([*views, late], NOW)[0] is late


_models = st.lists(
    st.tuples(
        st.integers(1, 4 * GIB), st.floats(0, 700), st.integers(0, 2), st.booleans(), st.floats(0, 40), st.sampled_from([0, 1])
    ),
    max_size=10,
)


def _views(models: list[tuple[int, float, int, bool, float, int]], devices: int = 2) -> list[ModelView]:
    rooms = dict.fromkeys(range(devices), 8 * GIB)
    views = []
    for number, (size, idle, flight, pinned, age, device) in enumerate(models):
        if size <= rooms[device]:
            rooms[device] -= size
            usage = Usage(last_used_at=NOW - idle, in_flight=flight)
            view = loaded(f"m{number}", size, device=gpu(device), usage=usage, pinned=pinned, loaded_at=NOW - age)
            views.append(view)
    return views


@given(_models, st.integers(1, 8 * GIB), st.floats(0, 30), st.sampled_from([Demand.REQUEST, Demand.USER, Demand.POLICY]))
def test_never_a_protected_model_and_never_one_too_many(
    models: list[tuple[int, float, int, bool, float, int]], need: int, waited: float, demand: Demand
) -> None:
    views, devices = _views(models), (host(budget=1), gpu(0, budget=8 * GIB), gpu(1, budget=8 * GIB))
    asked = wanted("b", need, demand=demand, demand_since=NOW - waited)
    observed = world(*views, asked, devices=devices)
    made = plan(observed)
    victims = [view for view in views if view.name in {a.model for a in made.actions if a.rule in ("evict.6", "evict.7")}]
    for victim in victims:
        held = hold(victim, NOW, observed.policies)
        assert held is Hold.NOTHING or (held is Hold.LEASES and waited >= 10 and demand is not Demand.POLICY)
    places = {victim.placement.device_id for victim in victims if victim.placement}
    assert len(places) <= 1
    if victims:
        [place] = places
        free = 8 * GIB - sum(v.bytes_held for v in views if v.placement and v.placement.device_id == place)
        freed = sum(victim.bytes_held for victim in victims)
        assert free + freed >= need
        assert all(free + freed - victim.bytes_held < need for victim in victims), "its room was not needed"
    left = tuple(replace(v, state=State.UNLOADING) if v in victims else v for v in views)
    again = plan(replace(observed, models=(*left, asked)))
    assert [a for a in again.actions if a.rule in ("evict.6", "evict.7")] == [], "a plan that is carried out asks for no more"


@given(_models, st.integers(1, 8 * GIB), st.floats(0, 400))
def test_with_idle_only_rule_five_lets_models_go(
    models: list[tuple[int, float, int, bool, float, int]], need: int, waited: float
) -> None:
    views, devices = _views(models), (host(budget=1), gpu(0, budget=8 * GIB), gpu(1, budget=8 * GIB))
    made = plan(world(*views, wanted("b", need, demand_since=NOW - waited), devices=devices, policies=IDLE))
    assert made.again_at is None
    assert {a.rule for a in made.actions if a.verb is Verb.UNLOAD} <= {"evict.5"}
    assert "plan.7" not in {decision.rule for decision in made.decisions}
