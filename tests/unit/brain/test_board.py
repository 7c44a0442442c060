"""The board: kept from plan to plan, it says what one made anew from the same views says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.plan import plan, plan_on
from modelium.values import Demand, Device, Fleet, ModelView, Observed, Plan, Policies, State, Usage, Verb
from tests.unit.brain.worlds import GIB, NOW, gpu, host, loaded, placed, wanted, world

DEVICES = (host(), gpu(0), gpu(1), gpu(2, budget=10 * GIB))
NAMES = tuple("abcdefgh")


@st.composite
def views(draw: st.DrawFn) -> ModelView:
    name, size = draw(st.sampled_from(NAMES)), draw(st.integers(1, 12)) * GIB
    if draw(st.booleans()):
        demand = draw(st.sampled_from([Demand.DISCOVERY, Demand.RESTORE, Demand.POLICY, Demand.REQUEST]))
        since = NOW - draw(st.integers(0, 30))
        return wanted(name, size, demand=demand, demand_since=since, waiting=int(demand is Demand.REQUEST))
    state = draw(st.sampled_from([State.LOADING, State.LOADED, State.LOADED, State.DRAINING, State.UNLOADING]))
    usage = Usage(last_used_at=NOW - draw(st.integers(0, 1000)), in_flight=draw(st.sampled_from([0, 0, 1])))
    return loaded(
        name,
        size,
        device=draw(st.sampled_from(DEVICES)),
        state=state,
        usage=usage,
        loaded_at=NOW - draw(st.integers(0, 100)),
        pinned=draw(st.sampled_from([False, False, True])),
    )


changes = st.lists(st.one_of(views(), st.sampled_from(NAMES)), max_size=30)


def _said(made: Plan) -> dict[str, tuple[Verb, str, tuple[str, ...]]]:
    where = {d.model: d.placement.devices if d.placement is not None else () for d in made.decisions}
    return {d.model: (d.verb, d.rule, where[d.model]) for d in made.decisions}


@given(changes)
def test_a_board_that_was_changed_plans_like_one_that_was_made_anew(changed: list[ModelView | str]) -> None:
    board, known = Board.of(world(devices=DEVICES)), dict[str, ModelView]()
    for change in changed:
        if isinstance(change, str):
            board.drop(change)
            known.pop(change, None)
        else:
            board.put(change)
            known[change.name] = change
        now = plan_on(board, NOW, tell_all=True)
        observed = Observed(now=NOW, models=tuple(known.values()), fleet=Fleet(devices=DEVICES), policies=Policies())
        assert _said(now) == _said(plan(observed))


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 500), st.sampled_from([0, 0, 1])), max_size=20))
def test_one_that_was_only_used_is_judged_as_it_is_when_it_is_looked_at(uses: list[tuple[str, int, int]]) -> None:
    here = {name: loaded(name, 2 * GIB, device=DEVICES[1], idle_s=900) for name in NAMES}
    board = Board.of(world(*here.values(), devices=DEVICES))
    plan_on(board, NOW)
    for name, idle_s, in_flight in uses:
        usage = partial(Usage, last_used_at=NOW - idle_s, in_flight=in_flight)
        here[name] = replace(here[name], usage=usage())
        board.use(name, usage)
    for name, view in here.items():
        assert board.views[name] == view
    board.put(waits := wanted("w", 12 * GIB))
    assert _said(plan_on(board, NOW)) == _said(plan(world(*here.values(), waits, devices=DEVICES)))


def test_the_view_of_one_that_was_used_is_made_when_somebody_needs_room() -> None:
    made: list[Usage] = []

    def usage() -> Usage:
        made.append(Usage(last_used_at=NOW, in_flight=1))
        return made[-1]

    board = Board.of(world(loaded("m", 12 * GIB, device=DEVICES[1], idle_s=900), devices=(DEVICES[1],)))
    for _ in range(3):
        board.use("m", usage)
        plan_on(board, NOW)
    assert not made
    board.put(wanted("w", 15 * GIB))
    assert _said(plan_on(board, NOW)) == {"w": (Verb.WAIT, "plan.6", ())}, "it is in use"
    assert len(made) == 1


@given(changes)
def test_planning_changes_nothing_on_the_board(changed: list[ModelView | str]) -> None:
    board = Board.of(world(*(change for change in changed if not isinstance(change, str)), devices=DEVICES))
    first = plan_on(board, NOW, tell_all=True)
    assert plan_on(board, NOW, tell_all=True) == first


def test_who_waits_as_before_is_not_spoken_of_again() -> None:
    busy = loaded("busy", 7 * GIB, usage=Usage(last_used_at=NOW, in_flight=1))
    board = Board.of(world(busy, wanted("w", 4 * GIB)))
    assert [d.rule for d in plan_on(board, NOW).decisions] == ["plan.6"]
    again = plan_on(board, NOW)
    assert not again.decisions and again.room_is_wanted
    board.put(replace(busy, usage=Usage(last_used_at=NOW - 100)))
    assert {d.model: d.verb for d in plan_on(board, NOW).decisions} == {"busy": Verb.UNLOAD, "w": Verb.WAIT}


def test_a_device_that_comes_is_used_and_one_that_goes_is_not() -> None:
    board = Board.of(world(wanted("m", 12 * GIB), devices=(host(),)))
    assert plan_on(board, NOW).decisions[0].verb is Verb.REFUSE
    board.look(Fleet(devices=(host(), gpu(0))), board.offering.capabilities)
    [action] = plan_on(board, NOW).actions
    assert action.placement is not None and action.placement.device_id == "cuda:0"
    board.look(Fleet(devices=(host(),)), board.offering.capabilities)
    assert plan_on(board, NOW).decisions[0].verb is Verb.REFUSE


def test_what_others_use_is_seen_at_the_next_look() -> None:
    def device(used: int) -> Device:
        return gpu(0, used=used)

    board = Board.of(world(wanted("m", 12 * GIB), devices=(device(20 * GIB),)))
    assert plan_on(board, NOW).actions == ()
    board.look(Fleet(devices=(device(0),)), board.offering.capabilities)
    assert [a.model for a in plan_on(board, NOW).actions] == ["m"]


def test_of_many_equal_devices_a_load_begins_where_none_runs() -> None:
    devices = tuple(gpu(i) for i in range(4))
    loading = [loaded(f"l{i}", GIB, device=devices[0], state=State.LOADING) for i in range(2)]
    full = [loaded(f"f{i}", 3 * GIB, device=device) for i, device in enumerate(devices[1:])]
    [action] = plan(world(*loading, *full, wanted("m", GIB), devices=devices)).actions
    assert action.placement is not None and action.placement.device_id != "cuda:0"


def test_nobody_goes_where_as_many_loads_run_as_may() -> None:
    """It would be gone before anybody could use its room."""
    device = gpu(0)
    loading = [loaded(f"l{i}", 4 * GIB, device=device, state=State.LOADING) for i in range(2)]
    made = plan(world(*loading, loaded("idle", 10 * GIB, device=device, idle_s=400), wanted("m", 8 * GIB), devices=(device,)))
    assert _said(made) == {"m": (Verb.WAIT, "plan.3", ())}


def test_its_turn_is_not_slept_through_where_as_many_loads_run_as_may_on_some_device() -> None:
    loading = [loaded(f"l{i}", 4 * GIB, device=gpu(0), state=State.LOADING) for i in range(2)]
    busy = loaded("busy", 18 * GIB, device=gpu(1), usage=Usage(last_used_at=NOW, in_flight=1), loaded_at=NOW - 90)
    made = plan(world(*loading, busy, wanted("m", 15 * GIB, demand_since=NOW - 4), devices=(gpu(0), gpu(1))))
    assert _said(made) == {"m": (Verb.WAIT, "plan.3", ())} and made.again_at == NOW + 6


def test_one_whose_turn_has_come_is_not_passed_on_any_of_many_devices() -> None:
    devices = tuple(gpu(i) for i in range(3))
    busy = Usage(last_used_at=NOW, in_flight=1)
    young = [loaded(f"y{i}", 18 * GIB, device=d, usage=busy, loaded_at=NOW) for i, d in enumerate(devices)]
    old = wanted("old", 15 * GIB, demand_since=NOW - 120)
    made = plan(world(*young, old, wanted("small", GIB), wanted("found", GIB, demand=Demand.DISCOVERY), devices=devices))
    said = _said(made)
    assert said["old"][:2] == (Verb.WAIT, "plan.7")
    assert placed(GIB, devices[0]).device_id not in said["small"][2]  # the first device is kept for it


def test_the_end_of_a_residence_ends_what_was_refused_because_of_it() -> None:
    """Who waited for its turn was passed over for ever: what may go was counted anew, that it had not sufficed was not."""
    device = gpu(0, budget=12 * GIB)
    young = loaded("young", 2 * GIB, device=device, idle_s=20, loaded_at=NOW)
    busy = loaded("busy", 2 * GIB, device=device, usage=Usage(last_used_at=NOW, in_flight=1), loaded_at=NOW - 50)
    board = Board.of(world(young, busy, wanted("w", 12 * GIB, demand_since=NOW - 50), devices=(device,)))
    assert not plan_on(board, NOW).actions
    assert {action.model for action in plan_on(board, NOW + 30).actions} == {"young", "busy"}


def test_what_a_victim_frees_beyond_the_need_serves_the_next_who_waits() -> None:
    """Else each who waits pushes out somebody of his own."""
    device = gpu(0)
    large = loaded("large", 10 * GIB, device=device, idle_s=500, loaded_at=NOW - 900)
    other = loaded("other", 10 * GIB, device=device, idle_s=400, loaded_at=NOW - 900)
    waits = [wanted(name, 4 * GIB, demand_since=NOW - since) for name, since in (("a", 2), ("b", 1))]
    made = plan(world(large, other, *waits, devices=(device,)))
    assert _said(made) == {
        "large": (Verb.UNLOAD, "evict.6", ()),
        "a": (Verb.WAIT, "plan.5", ()),
        "b": (Verb.WAIT, "plan.5", ()),
    }
