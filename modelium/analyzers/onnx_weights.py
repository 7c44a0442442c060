"""A transformers folder whose weights are an ONNX graph (optimum's and Transformers.js' form).

What enters: a listed folder. What leaves: the graph as ``Weights`` with what it can be used for, or None where it is no text
encoder's: then it is served as tensors. Which of several graphs: the one that the user names, else ``model.onnx``, else the
most precise one, else the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.onnx_graph import read_onnx
from modelium.analyzers.verdict import Rejected
from modelium.analyzers.weights import Weights, summarize
from modelium.values import Encoded, ModelOverride, OnnxGraph, Task, WeightFormat

# What optimum, sentence-transformers and Transformers.js call them, the most precise first: as exported, optimized for a
# runtime (O4 also halves the floats), halved, in integers. "_quantized" and "_qint8_…" come after any of the first.
_VARIANTS = (
    *("", "_fp32", "_O1", "_O2", "_O3", "_optimized", "_fp16", "_O4", "_bf16", "_int8", "_uint8", "_quantized"),
    *("_optimized_quantized", "_qint8_avx512_vnni", "_qint8_avx512", "_quint8_avx2", "_qint8_arm64", "_q4f16", "_q4", "_bnb4"),
)
_DIRECTORIES = ("onnx/", "")
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
# Outputs with so many dimensions → what tasks are made from.
_OUTPUTS = {
    ("last_hidden_state", 3): Encoded.TOKEN_VECTORS,
    ("token_embeddings", 3): Encoded.TOKEN_VECTORS,
    ("logits", 2): Encoded.LOGITS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphWeights:
    """``file`` in the folder, and the tasks that can be made from its outputs."""

    file: str
    weights: Weights
    tasks: frozenset[Task]


def find_onnx_weights(folder: Folder, override: ModelOverride) -> GraphWeights | None:
    """The graph as weights, where it takes tokens and gives what a task of text is made from."""
    if override.task is Task.TENSORS:
        return None
    name = _choose(folder, override)
    if name is None:
        return None
    directory = name.rpartition("/")[0]
    facts = read_onnx(folder.files[name], lambda side: folder.get(f"{directory}/{side}" if directory else side), name)
    tasks = _tasks_of(facts.graph)
    if not tasks:
        if override.onnx_file is not None:
            hint = "it chooses among graphs of a text encoder: take it away, and model.onnx is served as tensors"
            raise Rejected(f"onnx_file {shown(name)!r} takes no tokens, or gives neither token vectors nor logits", hint)
        return None
    parameters, dtype = summarize(facts.elements)
    weights = Weights(
        format=WeightFormat.ONNX,
        files=facts.files(name),
        parameters=parameters,
        weight_bytes=facts.weight_bytes,
        dtype=dtype,
    )
    return GraphWeights(file=name, weights=weights, tasks=tasks)


def refuse_other_task(task: Task, graph: GraphWeights, override: ModelOverride) -> None:
    """Where the user chose a graph that cannot be what the model is for: to serve another one silently would be wrong."""
    if override.onnx_file is not None:
        made = ", ".join(sorted(graph.tasks))
        raise Rejected(
            f"onnx_file {shown(graph.file)!r} cannot do {task}: of its outputs is made {made}", "choose another graph"
        )


def shown(name: str) -> str:
    """As much of a name as belongs into a sentence."""
    return name if len(name) <= 100 else f"{name[:100]}…"


def _choose(folder: Folder, override: ModelOverride) -> str | None:
    if override.onnx_file is not None:
        if override.onnx_file in folder and override.onnx_file.endswith(".onnx"):
            return override.onnx_file
        there = ", ".join(sorted(shown(name) for name in folder.names() if name.endswith(".onnx"))[:10]) or "none"
        raise Rejected(f"onnx_file {shown(override.onnx_file)!r} is not in the folder", f"its ONNX files: {there}")
    names = (f"{directory}model{variant}.onnx" for variant in _VARIANTS for directory in _DIRECTORIES)
    found = next((name for name in names if name in folder), None)
    if found is None:
        graphs = [name for name in folder.names() if name.endswith(".onnx") and name.rpartition("/")[0] in ("onnx", "")]
        found = graphs[0] if len(graphs) == 1 else None
    return found


def _tasks_of(graph: OnnxGraph) -> frozenset[Task]:
    takes = {tensor.name for tensor in graph.inputs}
    if "input_ids" not in takes or not takes <= _INPUTS or not graph.dynamic_batch:
        return frozenset()
    given = {encoded for tensor in graph.outputs if (encoded := _OUTPUTS.get((tensor.name, len(tensor.dims))))}
    return frozenset(task for task in Task if task.row.encoded in given)
