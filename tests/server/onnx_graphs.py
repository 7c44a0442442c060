"""Small ONNX graphs, and what onnxruntime itself answers for them (asked in the model runtime, in a process of its own)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper, save_model

Array = npt.NDArray[Any]
Port = tuple[str, int, Sequence[str | int]]  # name, element type, shape

_WEIGHTS = np.linspace(-1, 1, 64 * 3, dtype=np.float32).reshape(64, 3)
_TABLE = np.arange(10, dtype=np.float32)

_ASK = """
import json, sys
import numpy as np
import onnxruntime

path, feeds = json.load(sys.stdin)
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
feeds = {name: np.array(data, dtype=kind).reshape(shape) for name, (kind, shape, data) in feeds.items()}
answers = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds)))
json.dump({name: (str(array.dtype), array.shape, array.ravel().tolist()) for name, array in answers.items()}, sys.stdout)
"""


def ask_onnxruntime(python: Path, model: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of ``model`` for ``feeds``, by the onnxruntime of the environment of ``python``."""
    question = {name: (str(array.dtype), array.shape, array.ravel().tolist()) for name, array in feeds.items()}
    done = subprocess.run(
        [python, "-c", _ASK], input=json.dumps([str(model), question]), capture_output=True, text=True, timeout=240, check=True
    )
    answers: dict[str, Any] = json.loads(done.stdout)
    return {name: np.array(data, dtype=kind).reshape(shape) for name, (kind, shape, data) in answers.items()}


def make_graphs(directory: Path) -> None:
    """Write one file for each thing that ONNX graphs differ in, named after it."""
    directory.mkdir(parents=True, exist_ok=True)
    product = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
    weights = numpy_helper.from_array(_WEIGHTS, "weights")
    batch: tuple[list[Port], list[Port]] = ([("x", TensorProto.FLOAT, ["n", 64])], [("y", TensorProto.FLOAT, ["n", 3])])
    _save(directory / "dynamic.onnx", product, *batch, [weights])
    _save(directory / "side-file.onnx", product, *batch, [weights], external_data="side-file.onnx_data")
    _save(
        directory / "fixed.onnx",
        product,
        [("x", TensorProto.FLOAT, [2, 64])],
        [("y", TensorProto.FLOAT, [2, 3])],
        [weights],
    )
    _save(
        directory / "two-inputs.onnx",
        [helper.make_node("Mul", ["a", "b"], ["p"]), helper.make_node("Cast", ["p"], ["half"], to=TensorProto.FLOAT16)],
        [("a", TensorProto.FLOAT, ["n", "k"]), ("b", TensorProto.FLOAT, ["n", "k"])],
        [("p", TensorProto.FLOAT, ["n", "k"]), ("half", TensorProto.FLOAT16, ["n", "k"])],
    )
    _save(
        directory / "strings.onnx",
        [
            helper.make_node("StringConcat", ["word", "word"], ["twice"]),
            helper.make_node("Identity", ["word"], ["same"]),
        ],
        [("word", TensorProto.STRING, [3])],
        [("twice", TensorProto.STRING, [3]), ("same", TensorProto.STRING, [3])],
    )
    _save(
        directory / "text-rows.onnx",
        [helper.make_node("Identity", ["text"], ["same"])],
        [("text", TensorProto.STRING, ["n", 2])],
        [("same", TensorProto.STRING, ["n", 2])],
    )
    _save(
        directory / "scalar.onnx",
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("ReduceSum", ["row"], ["sum"], keepdims=0)],
        [("x", TensorProto.FLOAT, []), ("row", TensorProto.FLOAT, ["k"])],
        [("twice", TensorProto.FLOAT, []), ("sum", TensorProto.FLOAT, [])],
    )
    _save(
        directory / "scalar-rows.onnx",
        [helper.make_node("Add", ["x", "x"], ["twice"])],
        [("x", TensorProto.FLOAT, ["n"])],
        [("twice", TensorProto.FLOAT, ["n"])],
    )
    # An index past the end fails the whole run: what the other requests of the batch must not notice.
    _save(
        directory / "lookup.onnx",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [("index", TensorProto.INT64, ["n", 1])],
        [("value", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(_TABLE, "table")],
    )
    # What is looked up is not packed anew: onnxruntime computes on the file's own pages.
    _save(
        directory / "side-table.onnx",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [("index", TensorProto.INT64, ["n", 1])],
        [("value", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.arange(300_000, dtype=np.float32), "table")],
        external_data="side-table.onnx_data",
    )


def _save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    initializers: Sequence[Any] = (),
    *,
    external_data: str = "",
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(model)
    if external_data:
        save_model(model, path, save_as_external_data=True, location=external_data, size_threshold=0)
    else:
        save_model(model, path)
