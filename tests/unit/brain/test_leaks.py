"""What unloads leave behind on a device: by values, and by properties over any order of unloads and readings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.leaks import NOISE_BYTES, Leak, after_reading, after_unload, marked
from modelium.brain.placement.rooms import Room
from modelium.sizes import GIB, MIB
from modelium.values import Device, DeviceKind

GPU = Device(
    id="cuda:0", kind=DeviceKind.CUDA, index=0, name="GPU", total_bytes=80 * GIB, used_bytes=10 * GIB, budget_bytes=72 * GIB
)


def test_memory_that_does_not_come_back_is_leaked_until_it_does() -> None:
    leak = after_unload(after_reading(None, GIB), grown_bytes=3 * GIB, residue_bytes=4 * GIB)
    assert leak.leaked_bytes == 3 * GIB
    assert after_reading(leak, 6 * GIB).leaked_bytes == 3 * GIB, "what else Triton takes is no leak"
    half = after_reading(leak, 2 * GIB)
    assert half.leaked_bytes == GIB
    assert after_reading(half, 4 * GIB).leaked_bytes == GIB, "what came back is not leaked a second time"
    assert after_reading(half, GIB).leaked_bytes == 0


def test_two_unloads_leave_what_both_left_and_it_comes_back_in_any_order() -> None:
    first = after_unload(after_reading(None, GIB), grown_bytes=GIB, residue_bytes=2 * GIB)
    # Triton took one more for what it answers, then a second model came and went.
    second = after_unload(after_reading(first, 3 * GIB), grown_bytes=2 * GIB, residue_bytes=5 * GIB)
    assert second.leaked_bytes == 3 * GIB
    assert after_reading(second, 4 * GIB).leaked_bytes == 2 * GIB
    assert after_reading(second, 2 * GIB).leaked_bytes == 0


def test_many_small_leaks_are_a_leak_and_give_and_take_is_none() -> None:
    leak = after_reading(None, GIB)
    for number in range(1, 101):
        leak = after_unload(leak, grown_bytes=MIB, residue_bytes=GIB + number * MIB)
        assert leak.leaked_bytes == (number * MIB if number * MIB >= NOISE_BYTES else 0)
    leak = after_reading(None, GIB)
    for _ in range(100):
        leak = after_unload(leak, grown_bytes=8 * MIB, residue_bytes=GIB + 8 * MIB)
        leak = after_unload(leak, grown_bytes=-8 * MIB, residue_bytes=GIB)
    assert leak.leaked_bytes == 0


def test_an_unload_that_was_seen_before_any_reading_says_the_same() -> None:
    assert after_unload(None, grown_bytes=GIB, residue_bytes=3 * GIB).leaked_bytes == GIB
    assert after_unload(None, grown_bytes=-GIB, residue_bytes=3 * GIB).leaked_bytes == 0


@pytest.mark.parametrize(("leaked", "budget"), [(0, 72), (5, 72), (20, 60), (80, 0)])
def test_models_may_take_what_a_leak_leaves_of_the_device_and_it_is_taken_once(leaked: int, budget: int) -> None:
    """What is leaked is in ``used_bytes`` already, so what is free does not shrink by it again."""
    leak = Leak(lowest_bytes=0, owed_bytes=leaked * GIB)
    device = marked(replace(GPU, used_bytes=leaked * GIB), leak)
    assert (device.leaked_bytes, device.budget_bytes) == (leaked * GIB, budget * GIB)
    assert Room(device=device).free == min(72, 80 - leaked) * GIB
    held = min(10, budget) * GIB
    full = replace(device, used_bytes=leaked * GIB + held)
    assert Room(device=full, committed=held).free == min(72 * GIB - held, (80 - leaked) * GIB - held)


_SIZES = st.integers(0, 80 * GIB)
_STEPS = st.lists(st.tuples(st.one_of(st.none(), st.integers(-80 * GIB, 80 * GIB)), _SIZES), max_size=30)


@given(steps=_STEPS)
def test_a_leak_is_bounded_by_what_grew_and_by_what_is_there_and_readings_never_make_it(
    steps: list[tuple[int | None, int]],
) -> None:
    leak: Leak | None = None
    grown_by, lowest = 0, 80 * GIB
    for grown, residue in steps:
        before = leak.owed_bytes if leak is not None else 0
        lowest = min(lowest, residue if grown is None or leak is not None else max(0, residue - max(0, grown)))
        if grown is None:
            leak = after_reading(leak, residue)
            assert leak.owed_bytes <= before
        else:
            leak = after_unload(leak, grown_bytes=grown, residue_bytes=residue)
            grown_by += max(0, grown)
        assert 0 <= leak.owed_bytes <= min(residue, grown_by)
        assert leak.owed_bytes <= max(0, residue - lowest), "no more than is there above the least that ever was"
        assert after_reading(leak, residue) == leak, "the same reading twice says nothing new"
        assert after_reading(leak, leak.lowest_bytes).owed_bytes == 0, "all of it is free again"
