"""Engines that are born of a nursery: what they are planned to take on the host, and that it changes nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelium.brain.engine.devices import place_engine, shrink, why_too_big
from modelium.brain.engine.memory import IMPORTED_BYTES, overhead
from modelium.brain.placement.memory import estimate_footprint
from modelium.brain.plan import plan
from modelium.values import Capabilities, Device, DeviceKind, Footprint, ModelOverride, Placement, Policies, Runtime
from tests.unit.brain.languages import FULL, QWEN_HALF_B, TINY, accelerator, group, language, llm
from tests.unit.brain.worlds import GIB, MIB, host, wanted, world

_LLM = llm("llm", 10**8, language(group(FULL, 2, 4, 64)))


def _placed(device: Device, *, born: bool) -> Placement:
    [placement] = place_engine(QWEN_HALF_B, [device], ModelOverride(), Policies(), born=born)
    return placement


def test_on_the_host_it_is_planned_without_what_the_nursery_has_imported() -> None:
    alone, born = _placed(host(budget=32 * GIB), born=False), _placed(host(budget=32 * GIB), born=True)
    assert (alone.born, born.born) == (False, True)
    assert alone.footprint.bytes - born.footprint.bytes == IMPORTED_BYTES
    assert alone.manner != born.manner
    assert born.engine is not None
    said = next(line.reason for line in born.engine.lines if line.name == "overhead")
    assert "without what they share with the nursery" in said
    assert alone.engine is not None and alone.engine.engine_args == born.engine.engine_args


def test_its_processes_are_estimated_within_15_percent_of_what_was_measured() -> None:
    """A Llama and a GPT-2 of under a MB, without their caches of 64 MiB: 107 MiB of private pages, 115 with what they share."""
    for measured in (107, 115):
        assert overhead(DeviceKind.HOST, born=True).bytes / MIB == pytest.approx(measured, rel=0.15)


def test_on_a_gpu_it_takes_what_it_takes() -> None:
    assert _placed(accelerator(), born=True) == _placed(accelerator(), born=False)


def test_the_smallest_one_is_estimated_so_before_it_has_a_place() -> None:
    alone, born = (estimate_footprint(_LLM, Runtime.VLLM, born=is_born) for is_born in (False, True))
    assert alone - born == IMPORTED_BYTES


@pytest.mark.parametrize("nursery", [False, True])
def test_a_plan_expects_the_nursery_where_there_is_one(nursery: bool) -> None:
    model = replace(wanted("m"), profile=TINY, footprint=Footprint(estimated_bytes=1))
    capabilities = Capabilities(backends=frozenset({"python", "vllm"}), nursery=nursery, gpu=False)
    seen = world(model, devices=(host(),), capabilities=capabilities)
    placement = next(each.placement for each in plan(seen).decisions if each.model == "m")
    assert placement is not None and placement.runtime is Runtime.VLLM
    assert placement.born is nursery


def test_with_less_cache_it_is_still_born() -> None:
    device = host(budget=32 * GIB)
    born = _placed(device, born=True)
    smaller = shrink(QWEN_HALF_B, born, [device], ModelOverride(), Policies())
    alone = shrink(QWEN_HALF_B, replace(born, born=False), [device], ModelOverride(), Policies())
    assert smaller is not None and alone is not None and smaller.born
    assert alone.footprint.bytes - smaller.footprint.bytes == IMPORTED_BYTES


def test_room_for_a_born_one_is_room_enough() -> None:
    least = shrink(QWEN_HALF_B, _placed(host(budget=32 * GIB), born=True), [host(budget=32 * GIB)], ModelOverride(), Policies())
    assert least is not None
    tight = host(budget=least.footprint.bytes + 64 * MIB)
    assert place_engine(QWEN_HALF_B, [tight], ModelOverride(), Policies(), born=True)
    assert why_too_big(QWEN_HALF_B, [tight], ModelOverride(), Policies(), born=True) is None
    assert not place_engine(QWEN_HALF_B, [tight], ModelOverride(), Policies())
    assert why_too_big(QWEN_HALF_B, [tight], ModelOverride(), Policies()) is not None
