"""Tensors as Triton sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output as Triton sees it.

    ``datatype`` is KServe's word (``FP32``, ``INT64``, ``BYTES`` …); ``dims`` excludes the batch dimension when the
    model batches, -1 is a dimension of any size; ``optional`` holds for inputs only.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False


def taken(name: str, *dims: int, optional: bool = False) -> Tensor:
    """An input of texts or files: one of them where no ``dims`` are given."""
    return Tensor(name=name, datatype="BYTES", dims=dims or (1,), optional=optional)


def given(name: str, datatype: str, *dims: int) -> Tensor:
    """An output: any number of values where no ``dims`` are given."""
    return Tensor(name=name, datatype=datatype, dims=dims or (-1,))
