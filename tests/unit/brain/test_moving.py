"""Idle models that go for somebody, and are to be loaded again where there is room."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.arrivals import learned
from modelium.brain.moving import is_worth_it
from modelium.brain.plan import plan
from modelium.values import Arrivals, Decision, Demand, ModelOverride, ModelView, Observed, Policies, Usage, Verb
from tests.unit.brain.worlds import GIB, NOW, gpu, host, loaded, wanted, world

GPUS = (gpu(0), gpu(1))


def asked_each(gap_s: float, times: int = 12) -> Arrivals:
    arrivals = Arrivals()
    for number in range(times):
        arrivals = learned(arrivals, gap_s, now=number * gap_s)
    return arrivals


def regular(
    name: str = "a", size: int = 6 * GIB, *, gap_s: float = 60.0, silent_s: float = 30.0, **changes: object
) -> ModelView:
    usage = Usage(last_used_at=NOW - silent_s, silent_since=NOW - silent_s, arrivals=asked_each(gap_s))
    view = loaded(name, size, device=GPUS[0], usage=usage, loaded_at=NOW - 900)
    return replace(view, **changes)  # type: ignore[arg-type]


def unload(observed: Observed) -> Decision:
    [decision] = [action for action in plan(observed).actions if action.verb is Verb.UNLOAD]
    return decision


BUSY = loaded("busy", 10 * GIB, device=GPUS[1], usage=Usage(in_flight=1))
BIG = wanted("big", 16 * GIB)


def test_it_moves_to_a_device_like_its_own_with_room_and_says_so() -> None:
    said = unload(world(regular(), BUSY, BIG, devices=GPUS))
    assert (said.rule, said.beneficiary, said.moves_to) == ("evict.6", "big", "cuda:1")
    assert "moved from cuda:0 to cuda:1 (10.0 GiB free) so that big fits" in said.reason


def test_it_does_not_move_where_there_is_no_room_or_nobody_asks_it_soon() -> None:
    for view, other in (
        (regular(size=11 * GIB), BUSY),
        (regular(gap_s=6 * 3600.0), BUSY),
        (regular(usage=Usage(last_used_at=NOW - 30, silent_since=NOW - 30)), BUSY),
        (regular(), replace(BUSY, bytes_held=15 * GIB)),
        (regular(loaded_at=NOW - 20), BUSY),
    ):
        assert unload(world(view, other, BIG, devices=GPUS)).moves_to == ""
    roomy = (GPUS[0], host(), replace(GPUS[1], name="another GPU"))
    assert unload(world(regular(), BUSY, BIG, devices=roomy)).moves_to == "", "they are not alike"


def test_it_does_not_move_against_its_user() -> None:
    by_hand = {"a": ModelOverride(device="cuda:0")}
    assert unload(world(regular(), BUSY, BIG, devices=GPUS, overrides=by_hand)).moves_to == ""
    assert unload(world(regular(), BUSY, BIG, devices=GPUS, policies=Policies(move_idle=False))).moves_to == ""


def test_two_that_move_in_one_plan_do_not_count_on_the_same_room() -> None:
    pair = [regular(name, 6 * GIB) for name in ("a", "b")]
    moves = [action.moves_to for action in plan(world(*pair, BUSY, BIG, devices=GPUS)).actions]
    assert sorted(moves) == ["", "cuda:1"]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(1, 900), st.floats(20, 900), st.integers(0, 2)), min_size=1, max_size=8),
    st.integers(6, 20),
    st.sampled_from([Demand.REQUEST, Demand.DISCOVERY]),
)
def test_whoever_moves_has_room_and_is_free_to_go(
    models: list[tuple[int, float, float, int]], need: int, demand: Demand
) -> None:
    devices, free, views = (*GPUS, gpu(2)), dict.fromkeys(range(3), 20), list[ModelView]()
    for number, (size, gap_s, silent_s, device) in enumerate(models):
        if free[device] >= size:
            free[device] -= size
            view = regular(f"m{number}", size * GIB, gap_s=gap_s, silent_s=silent_s)
            views.append(replace(view, placement=loaded("x", device=devices[device]).placement))
    asked = wanted("big", need * GIB, demand=demand)
    by_name = {view.name: view for view in views}
    for action in plan(world(*views, asked, devices=devices)).actions:
        if action.moves_to:
            view, to = by_name[action.model], int(action.moves_to[-1])
            assert is_worth_it(view, NOW) and view.placement is not None and action.moves_to != view.placement.device_id
            free[to] -= view.bytes_held // GIB
            assert free[to] >= 0, "into free memory only"
