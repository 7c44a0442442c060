"""The models that the examples ask, as graphs of a few nodes, under the names that they have there; and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.server.systems import save_graph

Array = np.ndarray[Any, Any]
LEFT: Array = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT: Array = np.ones((1, 16), np.int32)


def write_example_models(incoming: Path) -> tuple[str, ...]:
    """Put all of them there. Answers their names."""
    _write_add_sub(incoming / "simple.onnx", TensorProto.INT32)
    _write_add_sub(incoming / "simple_int8.onnx", TensorProto.INT8)
    _write_add_sub(incoming / "simple_string.onnx", TensorProto.STRING)
    _write(
        incoming / "simple_identity.onnx", [_node("Identity", "INPUT0", "OUTPUT0")], ["INPUT0"], ["OUTPUT0"], TensorProto.STRING
    )
    _write(
        incoming / "simple_sequence.onnx", [_node("Identity", "INPUT", "OUTPUT")], ["INPUT"], ["OUTPUT"], TensorProto.INT32, 1
    )
    _write_colours(incoming / "colours.onnx")
    return ("simple", "simple_int8", "simple_string", "simple_identity", "simple_sequence", "colours")


def words(numbers: Array) -> Array:
    """Whole numbers as the texts that ``simple_string`` takes."""
    return np.array([str(number).encode() for number in numbers.ravel()], np.object_).reshape(numbers.shape)


def _write_add_sub(path: Path, kind: int) -> None:
    """Sum and difference of two rows of 16 numbers, which may be texts or bytes on the way."""
    names = ["INPUT0", "INPUT1"]
    nodes = [helper.make_node("Cast", [name], [f"{name} as number"], to=TensorProto.INT32) for name in names]
    for word, output in (("Add", "OUTPUT0"), ("Sub", "OUTPUT1")):
        nodes.append(helper.make_node(word, [f"{name} as number" for name in names], [f"{output} as number"]))
        nodes.append(helper.make_node("Cast", [f"{output} as number"], [output], to=kind))
    _write(path, nodes, names, ["OUTPUT0", "OUTPUT1"], kind)


def _write_colours(path: Path) -> None:
    """How red, green and blue a picture is."""
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    node = helper.make_node("ReduceMean", ["image"], ["scores"], axes=[2, 3], keepdims=0)
    save_graph(helper.make_graph([node], "colours", [x], [y]), path)


def _node(word: str, taken: str, given: str) -> Any:
    return helper.make_node(word, [taken], [given])


def _write(path: Path, nodes: Sequence[Any], inputs: list[str], outputs: list[str], kind: int, width: int = 16) -> None:
    taken, given = ([helper.make_tensor_value_info(name, kind, ["n", width]) for name in names] for names in (inputs, outputs))
    save_graph(helper.make_graph(nodes, path.stem, taken, given), path)
