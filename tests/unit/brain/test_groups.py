"""Engines that several equal devices hold together: which of them, whom that pushes out, and that nobody passes them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.plan import plan, plan_on
from modelium.brain.turns import Hold, hold
from modelium.values import (
    AttentionKind,
    Capabilities,
    Decision,
    Device,
    ModelOverride,
    ModelView,
    Observed,
    Placement,
    Plan,
    State,
    Usage,
    Verb,
)
from tests.unit.brain.languages import group, language, llm
from tests.unit.brain.worlds import GIB, NOW, gpu, loaded, wanted, world

WIDE = llm("wide", 2, language(group(AttentionKind.FULL, 1, 8, 64), context_length=16))
BUSY = Usage(last_used_at=NOW, in_flight=1)
GPUS = tuple(gpu(index) for index in range(4))


def together(*models: ModelView, ranks: int = 2, size: int = 15 * GIB, devices: tuple[Device, ...] = GPUS) -> Observed:
    """``wide`` takes ``size`` of each of so many."""
    args = {"tensor_parallel_size": ranks, "enforce_eager": True, "max_num_seqs": 1}
    overrides = {"wide": ModelOverride(memory_bytes=size, engine_args=args)}
    vllm = Capabilities(backends=frozenset({"python", "vllm"}))
    return world(*models, devices=devices, overrides=overrides, capabilities=vllm)


def wide(**changes: object) -> ModelView:
    return replace(wanted("wide", **changes), profile=WIDE)  # type: ignore[arg-type]


def on(placement: Placement, *devices: Device) -> Placement:
    """The same on several."""
    engine = placement.engine
    assert engine is not None
    ids = tuple(device.id for device in devices)
    return replace(placement, device_id=ids[0], engine=replace(engine, devices=ids))


def spread_over(name: str, size: int, *devices: Device, idle_s: float = 0.0, **changes: object) -> ModelView:
    """Loaded on all of these."""
    [decision] = plan(together(wide(), ranks=len(devices), size=size)).actions
    assert decision.placement is not None
    return replace(loaded(name, size, idle_s=idle_s, placement=on(decision.placement, *devices)), **changes)  # type: ignore[arg-type]


def gone(made: Plan) -> set[str]:
    return {action.model for action in made.actions if action.verb is Verb.UNLOAD}


def the(made: Plan, name: str) -> Decision:
    return next(decision for decision in made.decisions if decision.model == name)


def test_it_goes_where_there_is_room_on_any_two() -> None:
    held = [loaded(f"m{index}", 8 * GIB, device=GPUS[index], usage=BUSY) for index in (0, 2)]
    [action] = plan(together(*held, wide())).actions
    assert action.placement is not None and action.placement.devices == ("cuda:1", "cuda:3")


def test_it_goes_where_that_does_the_least_harm_not_where_most_is_free() -> None:
    busy = [loaded(f"busy{index}", 6 * GIB, device=GPUS[index], usage=BUSY) for index in (0, 1)]
    idle = [loaded(f"idle{index}", 10 * GIB, device=GPUS[index], idle_s=400) for index in (2, 3)]
    made = plan(together(*busy, *idle, wide()))
    assert gone(made) == {"idle2", "idle3"} and the(made, "wide").rule == "plan.5"


def test_one_that_is_on_two_devices_goes_rather_than_two_others() -> None:
    alone = [loaded(f"m{index}", 8 * GIB, device=GPUS[index], idle_s=400) for index in (1, 3)]
    made = plan(together(*alone, spread_over("pair", 8 * GIB, GPUS[0], GPUS[2], idle_s=390), wide()))
    assert gone(made) == {"pair"}


def test_what_was_made_for_it_is_not_made_anew_elsewhere() -> None:
    """While the first of its victims has gone and the second has not, other devices may have more free than those two."""
    held = [loaded(f"m{index}", 8 * GIB, device=device, idle_s=400 - index) for index, device in enumerate(GPUS)]
    board = Board.of(together(*held, wide()))
    victims = gone(plan_on(board, NOW))
    assert victims == {"m0", "m1"}
    for view in held:
        if view.name in victims:
            board.put(replace(view, state=State.UNLOADING))
    board.put(replace(held[3], bytes_held=6 * GIB))
    board.drop("m1")
    assert gone(plan_on(board, NOW)) == set()
    board.drop("m0")
    [action] = plan_on(board, NOW).actions
    assert action.placement is not None and set(action.placement.devices) == {"cuda:0", "cuda:1"}


def test_after_two_minutes_the_same_devices_are_kept_for_it_until_it_comes() -> None:
    """Which of them has most free changes meanwhile."""
    young = [loaded(f"m{i}", (8 + i) * GIB, device=device, usage=BUSY, loaded_at=NOW) for i, device in enumerate(GPUS)]
    late = wide(demand_since=NOW - 130)
    small = [wanted(f"small{index}", 3 * GIB) for index in range(9)]
    board = Board.of(together(*young, late, *small))
    made = plan_on(board, NOW)
    assert (the(made, "wide").verb, the(made, "wide").rule) == (Verb.WAIT, "plan.7")
    kept = board.kept_for["wide"]
    assert kept == ("cuda:0", "cuda:1")
    placed = {a.placement.device_id for a in made.actions if a.placement is not None}
    assert placed and placed.isdisjoint(kept)
    board.put(replace(young[3], bytes_held=GIB))
    plan_on(board, NOW + 0.5)
    assert board.kept_for["wide"] == kept


def test_loads_that_never_all_pause_at_once_do_not_keep_it_out() -> None:
    """Two loads run on each device: no more may begin there, and somebody always takes the next place."""
    loads = [loaded(f"l{i}", 4 * GIB, device=GPUS[i % 4], state=State.LOADING) for i in range(8)]
    busy = [loaded(f"b{i}", 6 * GIB, device=device, usage=BUSY, loaded_at=NOW - 90) for i, device in enumerate(GPUS)]
    made = plan(together(*loads, *busy, wide(demand_since=NOW - 130), wanted("small", GIB)))
    assert the(made, "wide").rule == "plan.7"
    still = [replace(load, state=State.LOADED, loaded_at=NOW) if load.name == "l0" else load for load in loads]
    board = Board.of(together(*still, *busy, wide(demand_since=NOW - 130), wanted("small", GIB)))
    assert the(plan_on(board, NOW), "small").verb is Verb.WAIT, "the place is kept"


_sizes = st.lists(
    st.tuples(st.integers(2, 12), st.floats(0, 700), st.integers(0, 2), st.booleans(), st.floats(0, 40), st.integers(0, 5)),
    max_size=12,
)
_PLACES = (GPUS[:1], GPUS[1:2], GPUS[2:3], GPUS[3:], GPUS[:2], GPUS[1:3])


@given(_sizes, st.integers(2, 20), st.sampled_from((2, 4)), st.floats(0, 200))
def test_never_a_protected_model_never_one_too_many_and_never_twice(
    models: list[tuple[int, float, int, bool, float, int]], need: int, ranks: int, waited: float
) -> None:
    free, views = dict.fromkeys((device.id for device in GPUS), 20 * GIB), list[ModelView]()
    for number, (gib, idle, flight, pinned, age, place) in enumerate(models):
        size, devices = gib * GIB, _PLACES[place]
        if all(free[device.id] >= size for device in devices):
            free |= {device.id: free[device.id] - size for device in devices}
            usage = Usage(last_used_at=NOW - idle, in_flight=flight)
            name = f"m{number}"
            view = spread_over(name, size, *devices) if len(devices) > 1 else loaded(name, size, device=devices[0])
            views.append(replace(view, usage=usage, pinned=pinned, loaded_at=NOW - age))
    asked = wide(demand_since=NOW - waited)
    observed = together(*views, asked, ranks=ranks, size=need * GIB)
    board = Board.of(observed)
    made = plan_on(board, NOW)
    other = Board.of(replace(observed, models=()))
    other.put(asked)
    plan_on(other, NOW)
    for view in views:
        other.put(view)
    kept = plan_on(other, NOW, tell_all=True)
    assert [(d.model, d.verb, d.rule, d.placement) for d in made.decisions] == [
        (d.model, d.verb, d.rule, d.placement) for d in kept.decisions
    ], "a board that was kept says the same"
    victims = [view for view in views if view.name in gone(made)]
    for victim in victims:
        held = hold(victim, NOW, observed.policies)
        assert held is Hold.NOTHING or (held is Hold.LEASES and waited >= 10)

    def fits(without: list[ModelView]) -> bool:
        back = dict(free)
        for view in without:
            assert view.placement is not None
            back |= {device: back[device] + view.bytes_held for device in view.placement.devices}
        return sum(size >= need * GIB for size in back.values()) >= ranks

    if victims:
        assert fits(victims)
        chosen = set(board.made_for["wide"])
        for victim in victims:
            assert victim.placement is not None and chosen.intersection(victim.placement.devices)
    elif fits([]):
        [action] = made.actions
        assert action.placement is not None and len(set(action.placement.devices)) == ranks
        assert all(free[device] >= need * GIB for device in action.placement.devices)
    elif waited < 10:
        assert not fits([view for view in views if hold(view, NOW, observed.policies) is Hold.NOTHING]), "nobody goes in vain"
    for view in victims:
        board.put(replace(view, state=State.UNLOADING))
    assert gone(plan_on(board, NOW)) == set(), "a plan that is carried out asks for no more"
