"""Who has to go because it took more than was thought: by values, and what holds for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.bounds import Held, bound_of, who_outgrew
from modelium.values import Device, DeviceKind

GIB = 2**30


def host(*, used: int, total: int = 24 * GIB, budget: int = 18 * GIB) -> Device:
    return Device(
        id="host", kind=DeviceKind.HOST, index=-1, name="host", total_bytes=total, used_bytes=used, budget_bytes=budget
    )


def held(model: str, held_gib: float, expected_gib: float = 0.5) -> Held:
    return Held(model=model, held_bytes=int(held_gib * GIB), expected_bytes=int(expected_gib * GIB))


GROWN = [held("good", 0.6), held("grown", 9.0), held("large", 7.0, 6.0)]


def test_a_model_that_grew_goes_when_the_host_is_short() -> None:
    found = who_outgrew(GROWN, host(used=22 * GIB), pressure_fraction=0.9)
    assert found is not None and (found.model, found.rule) == ("grown", "bound.1")
    assert "took 9.0 GiB where 512 MiB were expected" in found.reason and "22.0 GiB of 24.0 GiB on host" in found.reason


def test_while_there_is_room_it_stays() -> None:
    assert who_outgrew(GROWN, host(used=20 * GIB), pressure_fraction=0.9) is None


def test_more_than_models_may_use_together_is_pressure_too() -> None:
    found = who_outgrew(GROWN, host(used=17 * GIB, budget=16 * GIB), pressure_fraction=0.9)
    assert found is not None and found.model == "grown" and "16.6 GiB of the 16.0 GiB" in found.reason


def test_whoever_is_as_large_as_expected_pays_for_nobodys_pressure() -> None:
    assert who_outgrew([held("a", 2.0), held("b", 12.9, 6.0)], host(used=24 * GIB), pressure_fraction=0.9) is None


models = st.lists(
    st.builds(
        Held,
        model=st.text("abc", min_size=1),
        held_bytes=st.integers(0, 64 * GIB),
        expected_bytes=st.integers(0, 32 * GIB),
    ),
    max_size=6,
)


@given(models, st.integers(0, 24 * GIB), st.floats(0.1, 1.0))
def test_only_one_beyond_its_bound_ever_goes_and_one_always_does_under_pressure(
    found: list[Held], used: int, fraction: float
) -> None:
    device = host(used=used)
    gone = who_outgrew(found, device, pressure_fraction=fraction)
    over = {one.model for one in found if one.held_bytes > bound_of(one.expected_bytes)}
    short = used > fraction * device.total_bytes or sum(one.held_bytes for one in found) > device.budget_bytes
    assert (gone is not None) == (short and bool(over))
    assert gone is None or gone.model in over
