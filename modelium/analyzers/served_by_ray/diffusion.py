"""A pipeline of diffusers: ``model_index.json`` names its class and its components, each in a folder of its own.

What enters: a folder. What leaves: a profile of task text-to-image, with the exact sizes of all components' weights.
"""

from __future__ import annotations

from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import File, Folder
from modelium.analyzers.formats.json_text import read_object, text
from modelium.analyzers.formats.safetensors_header import read_header
from modelium.analyzers.formats.tensor_tally import TensorTally
from modelium.analyzers.formats.torch_zip import read_torch_file
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.analyzers.weights import join_missing, summarize
from modelium.brain.runtimes.ray import TEXT_TO_IMAGE
from modelium.values import Candidate, MissingPart, ModelOverride, ModelProfile, Task, WeightFormat

INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".bin")


def profile_pipeline(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile:
    """The pipeline's profile."""
    index = read_object(folder, INDEX)
    kind = text(index, "_class_name")
    if kind not in TEXT_TO_IMAGE:
        listed = ", ".join(sorted(TEXT_TO_IMAGE)[:4])
        raise Rejected(f"{kind or 'its pipeline'} is not one that makes an image of a text", f"served are {listed} …")
    if override.task not in (None, Task.TEXT_TO_IMAGE):
        raise Rejected(f"{kind} does text-to-image, not {override.task}", f"remove models: {{{candidate.name}: {{task: …}}}}")
    unfinished: list[NotYet] = []
    elements: dict[str, int] = {}
    names: list[str] = []
    total, pickled = 0, False
    for component in sorted(name for name, value in index.items() if _is_component(value)):
        files = [file for name, file in folder.files.items() if name.startswith(f"{component}/")]
        if not files:
            part = MissingPart(file=f"{component}/", present_bytes=0)
            hint = f"copy {component}/ too: {INDEX} names it"
            unfinished.append(NotYet(f"{component}/: not there yet", part, hint_when_stale=hint))
        for file in _weights(files):
            names.append(file.name)
            pickled |= not file.name.endswith(".safetensors")
            try:
                tally = _read(file)
            except NotYet as short:
                unfinished.append(short)
                continue
            total += tally.data_bytes
            for dtype, count in tally.elements.items():
                elements[dtype] = elements.get(dtype, 0) + count
    if (gaps := join_missing(unfinished)) is not None:
        raise gaps
    parameters, dtype = summarize(elements)
    return ModelProfile(
        name=candidate.name,
        path=candidate.path,
        task=Task.TEXT_TO_IMAGE,
        library="diffusers",
        architecture=kind,
        weight_format=WeightFormat.PICKLE if pickled else WeightFormat.SAFETENSORS,
        parameters=parameters,
        weight_bytes=total,
        weight_files=tuple(names),
        dtype=dtype,
        task_source=f"files: {INDEX}",
        fingerprint=fingerprint_folder(folder, ""),
    )


def _is_component(value: object) -> bool:
    """``["diffusers", "UNet2DConditionModel"]``; a pair of nulls is a component that this pipeline goes without."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _weights(files: list[File]) -> list[File]:
    """One set of a component's weights: safetensors where there are any, and of one variant (diffusers reads the plain one)."""
    for ending in _WEIGHTS:
        found = [file for file in files if file.name.endswith(ending)]
        plain = [file for file in found if ".fp16." not in file.name and ".non_ema." not in file.name]
        if found:
            return plain or found
    return []


def _read(file: File) -> TensorTally:
    return read_header(file) if file.name.endswith(".safetensors") else read_torch_file(file)
