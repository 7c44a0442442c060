"""Names of devices, and what a placement says of them."""

from hypothesis import given
from hypothesis import strategies as st

from modelium.values import DeviceKind, device_id

NODES = st.text("abc-7", max_size=4)


def test_this_machines_devices_have_the_names_that_users_know() -> None:
    assert device_id(DeviceKind.HOST) == "host"
    assert device_id(DeviceKind.CUDA, 3) == "cuda:3"
    assert device_id(DeviceKind.CUDA, 3, node="gpu-7") == "gpu-7/cuda:3"


@given(st.lists(st.tuples(NODES, st.sampled_from(DeviceKind), st.integers(0, 20)), unique=True))
def test_no_two_devices_of_any_nodes_share_a_name(devices: list[tuple[str, DeviceKind, int]]) -> None:
    assert len({device_id(kind, index, node=node) for node, kind, index in devices}) == len(devices)
