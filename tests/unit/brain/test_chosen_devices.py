"""What the user says about devices: which a model may be on, and that it wants them for itself."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.plan import plan, plan_on
from modelium.values import Capabilities, Decision, Demand, Fleet, ModelOverride, ModelView, Observed, Plan, Usage, Verb
from tests.unit.brain.test_groups import wide
from tests.unit.brain.worlds import GIB, NOW, gpu, host, loaded, wanted, world

GPUS = tuple(gpu(index) for index in range(4))
BUSY = Usage(last_used_at=NOW, in_flight=1)


def choosing(*models: ModelView, devices: tuple[str, ...] = (), exclusive: bool = False, **changes: object) -> Observed:
    """``m`` may be on these."""
    chosen = {"m": ModelOverride(devices=frozenset(devices), exclusive=exclusive)}
    return world(*models, devices=(host(), *GPUS), overrides=chosen, **changes)


def the(made: Plan, name: str = "m") -> Decision:
    return next(decision for decision in made.decisions if decision.model == name)


def test_of_the_devices_that_the_user_chose_the_one_with_most_room() -> None:
    held = loaded("other", 8 * GIB, device=GPUS[1], usage=BUSY)
    said = the(plan(choosing(held, wanted("m"), devices=("cuda:1", "cuda:2"))))
    assert said.placement is not None and said.placement.device_id == "cuda:2"
    mixed = the(plan(choosing(wanted("m"), devices=("host", "cuda:3"))))
    assert mixed.placement is not None and mixed.placement.device_id == "cuda:3"


def test_it_pushes_out_whom_it_must_there_and_nobody_elsewhere() -> None:
    there = [loaded(f"l{index}", 15 * GIB, device=GPUS[index], idle_s=400 + index) for index in range(3)]
    made = plan(choosing(*there, wanted("m", 10 * GIB), devices=("cuda:0", "cuda:1")))
    assert [action.model for action in made.actions] == ["l1"], "the longest unused of those two, and cuda:3 is free"
    busy = [replace(view, usage=BUSY) for view in there]
    assert the(plan(choosing(*busy, wanted("m", 10 * GIB), devices=("cuda:0", "cuda:1")))).verb is Verb.WAIT


def test_a_device_that_is_not_there_is_said() -> None:
    said = the(plan(choosing(wanted("m"), devices=("cuda:7", "cuda:8"))))
    assert (said.verb, said.rule) == (Verb.REFUSE, "plan.2")
    assert "names the devices cuda:7, cuda:8, of which there is none; this machine has cuda:0" in said.reason
    some = the(plan(choosing(wanted("m"), devices=("cuda:7", "cuda:1"))))
    assert some.placement is not None and some.placement.device_id == "cuda:1"


def test_an_engine_on_two_devices_takes_two_of_those() -> None:
    args = {"tensor_parallel_size": 2, "enforce_eager": True, "max_num_seqs": 1}
    override = ModelOverride(devices=frozenset(("cuda:1", "cuda:2", "cuda:3")), memory_bytes=10 * GIB, engine_args=args)
    vllm = Capabilities(backends=frozenset({"python", "vllm"}))
    held = loaded("other", 15 * GIB, device=GPUS[2], usage=BUSY)
    said = the(plan(world(held, wide(), devices=GPUS, overrides={"wide": override}, capabilities=vllm)), "wide")
    assert said.placement is not None and said.placement.devices == ("cuda:1", "cuda:3")


def test_nobody_is_beside_a_model_that_wants_its_device_for_itself() -> None:
    tiny = [loaded(f"l{index}", GIB, device=device, usage=BUSY) for index, device in enumerate(GPUS[:3])]
    said = the(plan(choosing(*tiny, wanted("m"), exclusive=True)))
    assert said.placement is not None and said.placement.device_id == "cuda:3"
    assert said.placement.footprint.bytes == GPUS[3].budget_bytes and "for it alone, as its user wants" in said.reason
    there = loaded("m", GPUS[3].budget_bytes, placement=said.placement, usage=BUSY)
    other = the(plan(choosing(*tiny, there, wanted("small", 2 * GIB), exclusive=True)), "small")
    assert other.placement is not None and other.placement.device_id != "cuda:3"


def test_who_is_there_goes_for_it_where_that_does_the_least_harm() -> None:
    idle = [loaded(f"l{index}", GIB, device=device, idle_s=400 + index) for index, device in enumerate(GPUS)]
    busy = replace(idle[3], usage=BUSY)
    made = plan(choosing(*idle[:3], busy, wanted("m"), exclusive=True, devices=tuple(device.id for device in GPUS)))
    assert [action.model for action in made.actions] == ["l2"]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3), st.booleans(), st.booleans()), max_size=8),
    st.sets(st.sampled_from(["host", "cuda:0", "cuda:1", "cuda:2", "cuda:3"]), min_size=1),
    st.booleans(),
    st.integers(1, 16),
)
def test_it_is_never_elsewhere_and_a_kept_board_says_the_same(
    held: list[tuple[int, int, bool, bool]], devices: set[str], exclusive: bool, size: int
) -> None:
    views, free = list[ModelView](), dict.fromkeys(range(4), 20)
    for number, (gib, index, busy, pinned) in enumerate(held):
        if free[index] >= gib:
            free[index] -= gib
            usage = BUSY if busy else Usage(last_used_at=NOW - 400)
            views.append(loaded(f"l{number}", gib * GIB, device=GPUS[index], usage=usage, pinned=pinned, loaded_at=NOW - 500))
    asked = wanted("m", size * GIB, demand=Demand.REQUEST)
    observed = choosing(*views, asked, devices=tuple(devices), exclusive=exclusive)
    board = Board.of(replace(observed, models=()))
    board.put(asked)
    plan_on(board, NOW)
    for view in views:
        board.put(view)
    board.look(Fleet(devices=tuple(reversed(observed.fleet.devices))), board.offering.capabilities)
    made, kept = plan(observed), plan_on(board, NOW, tell_all=True)
    places = {d.model: d.placement and d.placement.devices for d in made.decisions}
    assert places == {d.model: d.placement and d.placement.devices for d in kept.decisions}
    by_name = {view.name: view for view in views}
    for action in made.actions:
        place = action.placement or by_name[action.model].placement
        assert place is not None and place.device_id in devices
