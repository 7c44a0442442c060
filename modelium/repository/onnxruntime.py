"""Entries of onnxruntime: ``1/model.onnx`` and its side files as links, because the stock C++ backend looks nowhere else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from modelium.errors import EntryError
from modelium.repository.writing import Order, Writer


def _link(order: Order, version: Path) -> None:
    """``1/model.onnx`` → the model's file, and its side files beside it.

    onnxruntime (1.32, measured) refuses side files outside of the model's real directory, and it looks for them beside the
    link: with everything linked under its own relative name both hold.
    """
    profile = order.profile
    if profile.onnx is None:
        raise EntryError(f"{profile.name} is not an ONNX model; the onnxruntime runtime cannot serve it")
    (version / "model.onnx").symlink_to(order.model_path)
    for name in profile.onnx.external_data:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or relative == PurePosixPath("model.onnx"):
            raise EntryError(
                f"{profile.name}: external data in {name!r} cannot be linked beside model.onnx; save it beside the model"
            )
        link = version / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(order.seen_by_triton(order.source.parent / relative))


WRITER = Writer(parameters=lambda order: {"model_path": order.model_path}, fill=_link)
