"""Which code computes which task, and on what: ``parameters`` of config.pbtxt enter, a loaded task leaves.

Used by ``model.py`` inside Triton, and by Ray's replicas (repository_templates/ray), which run the same code.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from .contract import Settings, TaskModel
from .folder import readable_path
from .rehearsal import rehearse
from .static_embeddings import is_static

# task → where it is computed. Imported when a model of that task is loaded: a text model never imports an image library.
TASKS = {
    "feature-extraction": (".embeddings", "Embeddings"),
    "sentence-similarity": (".embeddings", "Embeddings"),
    "text-classification": (".text", "TextClassification"),
    "zero-shot-classification": (".text", "ZeroShotClassification"),
    "text-ranking": (".ranking", "Ranking"),
    "fill-mask": (".text", "FillMask"),
    "token-classification": (".spans", "TokenClassification"),
    "question-answering": (".spans", "QuestionAnswering"),
    "text-generation": (".generation", "TextGeneration"),
    "translation": (".generation", "TextToText"),
    "summarization": (".generation", "TextToText"),
    "text2text-generation": (".generation", "TextToText"),
    "image-text-to-text": (".seeing", "ImageTextToText"),
    "image-classification": (".vision", "ImageClassification"),
    "object-detection": (".vision", "ObjectDetection"),
    "image-feature-extraction": (".vision", "ImageFeatures"),
    "automatic-speech-recognition": (".audio", "SpeechRecognition"),
    "audio-classification": (".audio", "AudioClassification"),
}

_GENERATING = frozenset({"text-generation", "translation", "summarization", "text2text-generation", "image-text-to-text"})


def read_settings(given: Mapping[str, str], device: str) -> Settings:
    """The parameters as the tasks take them."""
    if given.get("task") not in TASKS:
        raise RuntimeError(f"task {given.get('task')!r} is none of those that this runtime computes: {', '.join(TASKS)}")
    return Settings(
        model_path=readable_path(given["model_path"]),
        task=given["task"],
        pooling=given.get("pooling", ""),
        normalize=given.get("normalize") == "true",
        max_length=int(given["max_length"]) if given.get("max_length") else None,
        pickled=given.get("weights") == "pickle",
        custom_code=given.get("custom_code") == "true",
        device=device,
        onnx_file=given.get("onnx_file", ""),
    )


def load_task(settings: Settings) -> TaskModel:
    """Load the model; seconds."""
    module, name = TASKS[settings.task]
    if module == ".embeddings" and is_static(settings.model_path):
        module, name = ".static_embeddings", "StaticEmbeddings"
    made: TaskModel = getattr(importlib.import_module(module, __package__), name)(settings)
    return made


def rehearse_task(task: TaskModel, name: str, inputs: list[str]) -> str | None:
    """One inference before the first request; what went wrong, if anything did. ``inputs``: those that every request has."""
    return rehearse(task, inputs, {"max_new_tokens": 1} if name in _GENERATING else {})


def take_cores(wanted: str = "") -> None:
    """As many threads of one forward pass as ``wanted``; 0 or nothing: as this process may use cores."""
    torch.set_num_threads(int(wanted or 0) or _physical_cores())
    torch.set_num_interop_threads(1)


def _physical_cores() -> int:
    """Cores that this process may use; the second thread of a core adds nothing to matrix products."""
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="utf-8") if siblings.is_file() else str(cpu))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = quota.read_text(encoding="utf-8").split() if quota.is_file() else ("max", "1")
    share = len(cores) if limit == "max" else max(1, round(int(limit) / int(period)))
    return max(1, min(len(cores), share))
