"""Estimates that correct themselves by what was measured of others."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.placement.corrections import Corrections, kind_of
from modelium.brain.plan import plan
from modelium.values import Footprint, ModelView, Placement, Policies, Usage
from tests.unit.brain.worlds import GIB, NOW, gpu, host, loaded, placed, wanted, world

KIND = kind_of(placed(GIB, host()))
ASKED = Usage(last_used_at=NOW, requests=5)


def measured(name: str, ratio: float, **changes: object) -> ModelView:
    footprint = Footprint(estimated_bytes=GIB, measured_bytes=int(GIB * ratio))
    return replace(loaded(name, usage=ASKED, footprint=footprint), **changes)  # type: ignore[arg-type]


def placed_beside(*views: ModelView, policies: Policies | None = None) -> Placement:
    new = replace(wanted("new"), footprint=Footprint(estimated_bytes=1))
    found = plan(world(*views, new, devices=(host(),), policies=policies or Policies()))
    placement = next(each.placement for each in found.decisions if each.model == "new")
    assert placement is not None
    return placement


def test_three_measured_models_correct_the_estimate_of_a_fourth() -> None:
    alone = placed_beside()
    two = placed_beside(*(measured(f"m{i}", 0.7) for i in range(2)))
    assert (two.footprint, two.footprint.corrected_bytes) == (alone.footprint, None)
    three = placed_beside(*(measured(f"m{i}", 0.7) for i in range(3)))
    assert three.footprint.estimated_bytes == alone.footprint.estimated_bytes, "the estimate itself stays what it is"
    assert three.footprint.bytes == three.footprint.corrected_bytes == int(alone.footprint.bytes * 0.7)
    assert "corrected as others were measured" in three.reason
    off = placed_beside(*(measured(f"m{i}", 0.7) for i in range(3)), policies=Policies(correct_estimates=False))
    assert off.footprint == alone.footprint


def test_what_was_measured_itself_is_not_corrected() -> None:
    new = wanted("new", 3 * GIB)
    made = plan(world(*(measured(f"m{i}", 0.5) for i in range(3)), new, devices=(host(),)))
    placement = next(each.placement for each in made.decisions if each.model == "new")
    assert placement is not None and placement.footprint.bytes == 3 * GIB


def test_nothing_is_learned_from_who_was_never_asked_or_is_of_another_kind() -> None:
    found = Corrections()
    fresh = [measured(f"m{i}", 0.5, usage=Usage(last_used_at=NOW)) for i in range(5)]
    assert not any(found.learn(view) for view in fresh)
    elsewhere = [loaded(f"g{i}", device=gpu(), usage=ASKED) for i in range(5)]
    halved = [replace(view, footprint=Footprint(estimated_bytes=GIB, measured_bytes=GIB // 2)) for view in elsewhere]
    assert [found.learn(view) for view in halved] == [False, False, True, False, False]
    assert found.factors.keys() == {kind_of(placed(GIB, gpu()))}


def test_children_of_a_nursery_teach_nothing_about_processes_that_import_by_themselves() -> None:
    born = [measured(f"m{i}", 0.5, placement=replace(placed(GIB, host()), born=True)) for i in range(3)]
    assert placed_beside(*born).footprint.corrected_bytes is None
    found = Corrections()
    assert [found.learn(view) for view in born] == [False, False, True]
    assert KIND not in found.factors


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=20))
def test_a_correction_is_bounded_and_covers_three_quarters_of_what_was_measured(ratios: list[float]) -> None:
    found = Corrections()
    for number, ratio in enumerate(ratios):
        found.learn(measured(f"m{number}", ratio))
    factor = found.factors.get(KIND, 1.0)
    assert 0.5 <= factor <= 2.0
    covered = sum(ratio <= factor + 1e-6 for ratio in ratios)
    assert factor == 2.0 or covered * 4 >= 3 * len(ratios)
    assert not any(found.learn(measured(f"m{number}", ratio)) for number, ratio in enumerate(ratios)), "learned already"
