"""Bare ONNX graphs; onnxruntime answers. Runs in the model runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.models.common import Reference, case


def make_dynamic(folder: Path, files: Path) -> Reference:
    """Two layers, any number of rows."""
    return _make(folder, "batch")


def make_fixed(folder: Path, files: Path) -> Reference:
    """The same for exactly two rows."""
    return _make(folder, 2)


def _make(folder: Path, rows: int | str) -> Reference:
    path = folder.with_name(f"{folder.name}.onnx")
    folder.rmdir()
    generator = np.random.default_rng(7)
    first, second = generator.normal(size=(4, 8)).astype(np.float32), generator.normal(size=(8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["bent"]),
            helper.make_node("MatMul", ["bent", "second"], ["y"]),
            helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=1),
        ],
        "two-layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3]),
            helper.make_tensor_value_info("best", TensorProto.INT64, [rows, 1]),
        ],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests")
    onnx.checker.check_model(model)
    onnx.save(model, path)
    x = generator.normal(size=(2, 4)).astype(np.float32)
    y, best = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    return {"task": "tensors", "cases": [case({"x": x.tolist()}, {"y": y.tolist(), "best": best.tolist()})]}
