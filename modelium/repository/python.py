"""Entries of the python runtime: what its tasks read of ``parameters``, as do Ray's replicas that run the same tasks."""

from __future__ import annotations

from pathlib import Path

from modelium.repository.staging import copy_tree
from modelium.repository.writing import Order, Writer
from modelium.resources import nursery_package


def parameters(order: Order) -> dict[str, str]:
    """All strings, as config.pbtxt has them."""
    profile, pooling = order.profile, order.profile.pooling
    return {
        "model_path": order.model_path,
        "task": profile.task.value,
        "pooling": pooling.mode.value if pooling else "",
        "normalize": _flag(pooling is not None and pooling.normalize),
        "max_length": str(profile.max_length) if profile.max_length else "",
        "weights": "pickle" if profile.pickled else profile.weight_format.value,
        "custom_code": _flag(order.override.allow_custom_code),
        "torch_threads": "0",
    } | ({"onnx_file": profile.onnx_file} if profile.onnx_file else {})


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _fill(_: Order, version: Path) -> None:
    """What its stub needs to be born of a nursery."""
    package = nursery_package()
    (version / package.name).mkdir()
    copy_tree(package, version / package.name)


WRITER = Writer(parameters=parameters, fill=_fill)
