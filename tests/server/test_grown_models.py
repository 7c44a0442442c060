"""A model whose process takes far more than was thought, on the real Triton: it goes, with the reason, and nobody else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.server.systems import save_graph, system, write_adder

pytestmark = pytest.mark.server


def write_grower(path: Path) -> Path:
    """``y`` = the sum of as many zeros as ``x`` says; the runtime keeps the memory that they took."""
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("ConstantOfShape", ["x"], ["zeros"]), helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=1)]
    return save_graph(helper.make_graph(nodes, "grower", [x], [y]), path)


async def test_a_model_that_grew_beyond_its_bound_goes_with_the_reason_and_no_other_does(tmp_path: Path) -> None:
    async with system(tmp_path, devices={"host_memory": "1GiB"}) as modelium:
        write_adder(modelium.incoming / "good.onnx", 2.0)
        write_grower(modelium.incoming / "grower.onnx")
        await modelium.becomes("good", "LOADED")
        await modelium.becomes("grower", "LOADED")

        await modelium.post("/predict/grower", {"inputs": {"x": [700_000_000]}})

        gone = await modelium.becomes("grower", "FAILED")
        assert "were expected" in gone["reason"] and "that they may use on host" in gone["reason"]
        assert (gone["decisions"][0]["rule"], gone["decisions"][0]["verb"]) == ("bound.1", "unload")
        assert await modelium.add("good", 1.0) == (200, 3.0)
        assert (await modelium.get("/models/good"))["loads"] == 1

        status, answer = await modelium.post("/predict/grower", {"inputs": {"x": [10]}})
        assert (status, answer["y"]) == (200, [0.0]), "it is tried again when it is asked for"
