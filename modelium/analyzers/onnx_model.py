"""A profile for ONNX: a file dropped by itself, or the graph of a folder that has no torch weights.

What enters: a candidate or a listed folder. What leaves: a ``ModelProfile`` of task TENSORS.
"""

from __future__ import annotations

from pathlib import Path

from modelium.analyzers.fingerprint import fingerprint_files
from modelium.analyzers.folder import File, Folder, file_of
from modelium.analyzers.formats.onnx_graph import OnnxFacts, read_onnx
from modelium.analyzers.verdict import Rejected
from modelium.analyzers.weights import summarize
from modelium.values import Candidate, ModelOverride, ModelProfile, Task, WeightFormat

_IN_FOLDER = ("model.onnx", "onnx/model.onnx")


def profile_onnx_file(candidate: Candidate, override: ModelOverride) -> ModelProfile:
    """A single ``NAME.onnx``; its external data lies beside it."""
    file = file_of(candidate.path, candidate.root)
    used = [file]

    def beside(name: str) -> File | None:
        try:
            found = file_of(candidate.path.parent / name, candidate.root)
        except FileNotFoundError:
            return None
        used.append(found)
        return found

    facts = read_onnx(file, beside)
    return _profile(candidate, override, facts, fingerprint_files(used), "an .onnx file")


def find_graph(folder: Folder) -> str | None:
    """The ONNX file of a folder: the usual names first, else the only one there is."""
    for name in _IN_FOLDER:
        if name in folder:
            return name
    found = [name for name in folder.names() if name.endswith(".onnx") and name.count("/") <= 1]
    return found[0] if len(found) == 1 else None


def profile_onnx_folder(
    candidate: Candidate, override: ModelOverride, folder: Folder, name: str, fingerprint: str
) -> ModelProfile:
    """The graph ``name`` of a folder; its external data lies in the graph's own directory."""
    directory = name.rpartition("/")[0]
    facts = read_onnx(folder.files[name], lambda side: folder.get(f"{directory}/{side}" if directory else side), name)
    return _profile(candidate, override, facts, fingerprint, f"files: {name}")


def _profile(candidate: Candidate, override: ModelOverride, facts: OnnxFacts, fingerprint: str, source: str) -> ModelProfile:
    if override.task not in (None, Task.TENSORS):
        hint = f"remove models: {{{candidate.name}: {{task: …}}}}, or drop the model's safetensors folder"
        raise Rejected(f"an ONNX graph is served as tensors, not as {override.task}", hint)
    parameters, dtype = summarize(facts.elements)
    return ModelProfile(
        name=candidate.name,
        path=Path(candidate.path),
        task=Task.TENSORS,
        library="onnx",
        architecture=facts.producer or "onnx",
        weight_format=WeightFormat.ONNX,
        parameters=parameters,
        weight_bytes=facts.weight_bytes,
        weight_files=facts.files(facts.graph.file or candidate.path.name),
        dtype=dtype,
        onnx=facts.graph,
        task_source=source,
        fingerprint=fingerprint,
    )
