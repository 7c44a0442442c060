"""Embedders that are one table: sentence-transformers' StaticEmbedding and model2vec's StaticModel.

What enters: a candidate and its listed folder. What leaves: its ``ModelProfile``, or None where the folder is neither. They
have no transformer: a text is the mean of its tokens' rows.
"""

from __future__ import annotations

import json

from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import File, Folder
from modelium.analyzers.formats.json_text import JsonObject, integer, parse, prove_whole, read_object, text
from modelium.analyzers.formats.safetensors_header import read_header
from modelium.analyzers.formats.torch_zip import read_torch_file
from modelium.analyzers.model_card import read_card
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.analyzers.weights import summarize
from modelium.values import Candidate, MissingPart, ModelOverride, ModelProfile, Pooling, PoolingMode, Task, WeightFormat

_MAX_SIDE_BYTES = 2**20
_MAX_HEADER_BYTES = 64 * 1024  # of a file of three tensors at most
_MODEL2VEC = "model2vec"
_MODEL2VEC_TOKENS = 512  # what its encode() cuts a text to
_STATIC = "StaticEmbedding"
_BESIDE = {"Normalize", "Dropout"}
_TABLES = ("embedding.weight", "embeddings")
_TASKS = tuple(task for task in Task if task.row.embeds_texts)


def profile_static(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile | None:
    """The profile of a static embedder."""
    kinds = _module_kinds(folder)
    if any(kind == _STATIC for kind, _ in kinds):
        others = [kind for kind, _ in kinds if kind not in _BESIDE | {_STATIC}]
        if others or kinds[0][0] != _STATIC:
            hint = "export it to ONNX, or serve it with a runtime of its own"
            raise Rejected(f"modules.json has {others[0] if others else kinds[0][0]} beside a StaticEmbedding", hint)
        normalize = any(kind == "Normalize" for kind, _ in kinds)
        return _profile(candidate, override, folder, kinds[0][1], normalize=normalize, library="sentence-transformers")
    if "modules.json" in folder or "config.json" not in folder:
        return None
    config = read_object(folder, "config.json")
    if text(config, "model_type") != _MODEL2VEC:
        return None
    return _profile(candidate, override, folder, "", normalize=config.get("normalize") is True, library=_MODEL2VEC)


def _module_kinds(folder: Folder) -> list[tuple[str, str]]:
    """(class, path) of each module; what is no list of modules is refused where it is needed."""
    if "modules.json" not in folder:
        return []
    modules = parse(folder.read("modules.json", _MAX_SIDE_BYTES), "modules.json")
    listed: list[JsonObject] = [one for one in modules if isinstance(one, dict)] if isinstance(modules, list) else []
    return [(text(one, "type").rsplit(".", 1)[-1], text(one, "path").strip("./")) for one in listed]


def _profile(
    candidate: Candidate, override: ModelOverride, folder: Folder, where: str, *, normalize: bool, library: str
) -> ModelProfile:
    card = read_card(folder)
    named = card.pipeline_tag == Task.FEATURE_EXTRACTION.value
    task = override.task or (Task.FEATURE_EXTRACTION if named else Task.SENTENCE_SIMILARITY)
    if task not in _TASKS:
        raise Rejected(f"a static embedder is served for {' or '.join(_TASKS)}, not for {task}", "choose one of these tasks")
    prefix = f"{where}/" if where else ""
    tokenizer = _required(folder, f"{prefix}tokenizer.json")
    pickled = f"{prefix}model.safetensors" not in folder and f"{prefix}pytorch_model.bin" in folder
    weights = _required(folder, f"{prefix}pytorch_model.bin" if pickled else f"{prefix}model.safetensors")
    prove_whole(tokenizer, thorough=True)
    tally = read_torch_file(weights) if pickled else read_header(weights)
    if not any(table in tally.tensors for table in _TABLES):
        raise Rejected(f"{weights.name} has none of the tensors {' or '.join(_TABLES)}", "copy the model again from its source")
    parameters, dtype = summarize(tally.elements)
    config = read_object(folder, "config.json") if "config.json" in folder else {}
    return ModelProfile(
        name=candidate.name,
        path=candidate.path,
        task=task,
        library=library,
        architecture="StaticModel" if library == _MODEL2VEC else _STATIC,
        model_type=_MODEL2VEC if library == _MODEL2VEC else "",
        weight_format=WeightFormat.PICKLE if pickled else WeightFormat.SAFETENSORS,
        parameters=parameters,
        weight_bytes=tally.data_bytes,
        weight_files=(weights.name,),
        dtype=dtype,
        max_length=_MODEL2VEC_TOKENS if library == _MODEL2VEC else None,
        embedding_width=None if pickled else _width(weights) or integer(config, "hidden_dim"),
        pooling=Pooling(mode=PoolingMode.MEAN, normalize=normalize),
        task_source=f"config.json model_type: {_MODEL2VEC}" if library == _MODEL2VEC else f"modules.json: {_STATIC}",
        fingerprint=fingerprint_folder(folder, f"{card.pipeline_tag} {card.library_name}"),
    )


def _required(folder: Folder, name: str) -> File:
    file = folder.get(name)
    if file is None:
        present = folder.in_flight[name].size if name in folder.in_flight else 0
        part = MissingPart(file=name, present_bytes=present)
        raise NotYet(f"{name}: not there yet", part, hint_when_stale=f"copy {name} too: a static embedder needs it")
    return file


def _width(file: File) -> int | None:
    """Columns of the table; the header was held against the file before."""
    with file.open() as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            return None
        header = json.loads(stream.read(length))
    for name in _TABLES:
        match header.get(name):
            case {"shape": [_, int(width)]} if width > 0:
                return int(width)
    return None
