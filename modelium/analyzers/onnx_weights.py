"""A transformers folder whose weights are an ONNX graph (optimum's and Transformers.js' form).

What enters: a listed folder. What leaves: its ``Weights``, or None where the graph is no text encoder's: then it is served as
tensors. Which of several graphs: the one that the user names, else ``model.onnx``, else the one of the largest precision.
"""

from __future__ import annotations

from modelium.analyzers.folder import Folder
from modelium.analyzers.onnx_graph import read_onnx
from modelium.analyzers.verdict import Refused
from modelium.analyzers.weights import Weights, summarize
from modelium.values import ModelOverride, OnnxGraph, Task, WeightFormat

# What optimum and Transformers.js call them, the most precise first.
_VARIANTS = ("", "_fp32", "_fp16", "_bf16", "_int8", "_uint8", "_quantized", "_q4f16", "_q4", "_bnb4")
_DIRECTORIES = ("onnx/", "")
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_OUTPUTS = {"last_hidden_state": 3, "token_embeddings": 3, "logits": 2}
SERVED = frozenset(
    {Task.FEATURE_EXTRACTION, Task.SENTENCE_SIMILARITY, Task.TEXT_CLASSIFICATION, Task.ZERO_SHOT_CLASSIFICATION, Task.TEXT_RANKING}
)


def find_onnx_weights(folder: Folder, override: ModelOverride) -> Weights | None:
    """The graph as weights, where it takes tokens and gives what a task of text is made from."""
    if override.task is Task.TENSORS:
        return None
    name = _choose(folder, override)
    if name is None:
        return None
    directory = name.rpartition("/")[0]
    facts = read_onnx(folder.files[name], lambda side: folder.get(f"{directory}/{side}" if directory else side), name)
    if not _encodes_text(facts.graph):
        if override.onnx_file is not None:
            raise Refused(f"{name} is no graph of a text encoder", "take onnx_file away, and it is served as tensors")
        return None
    parameters, dtype = summarize(facts.elements)
    return Weights(format=WeightFormat.ONNX, files=(name,), parameters=parameters, weight_bytes=facts.weight_bytes, dtype=dtype)


def _choose(folder: Folder, override: ModelOverride) -> str | None:
    if override.onnx_file is not None:
        if override.onnx_file in folder and override.onnx_file.endswith(".onnx"):
            return override.onnx_file
        there = ", ".join(sorted(name for name in folder.names() if name.endswith(".onnx"))[:10]) or "none"
        raise Refused(f"onnx_file {override.onnx_file!r} is not in the folder", f"its ONNX files: {there}")
    names = (f"{directory}model{variant}.onnx" for variant in _VARIANTS for directory in _DIRECTORIES)
    return next((name for name in names if name in folder), None)


def _encodes_text(graph: OnnxGraph) -> bool:
    takes = {tensor.name for tensor in graph.inputs}
    gives = any(_OUTPUTS.get(tensor.name) == len(tensor.dims) for tensor in graph.outputs)
    return "input_ids" in takes and takes <= _INPUTS and graph.dynamic_batch and gives
