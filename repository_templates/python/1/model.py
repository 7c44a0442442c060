"""A transformers model behind Triton's python backend: one file for every task, the table is ``_TASKS``.

What enters: ``parameters`` of config.pbtxt (``Settings``), then requests whose tensors are those of modelium/tasks.py.
What leaves: one response a request, in order. Requests that Triton gives together are computed together; a fault in one is
that one's error and nobody else's.
"""

from __future__ import annotations

# isort: off
from . import start  # noqa: F401  (first: the locale, the environment, quick imports)
# isort: on

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from .contract import Answer, BadInput, Row, Settings, TaskModel, parse_json
from .folder import readable_path
from .rehearsal import rehearse

# task → where it is computed. Imported when a model of that task is loaded: a text model never imports an image library.
_TASKS = {
    "feature-extraction": (".embeddings", "Embeddings"),
    "sentence-similarity": (".embeddings", "Embeddings"),
    "text-classification": (".text", "TextClassification"),
    "zero-shot-classification": (".text", "ZeroShotClassification"),
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


class TritonPythonModel:
    """What Triton calls. One process holds one instance, so nothing here is shared or locked."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        settings = _settings(given, args)
        torch.set_num_threads(int(given.get("torch_threads") or 0) or _physical_cores())
        torch.set_num_interop_threads(1)
        module, name = _TASKS[settings.task]
        self._inputs: list[str] = [one["name"] for one in config["input"] if one["name"] != "PARAMETERS"]
        self._batches = int(config.get("max_batch_size", 0)) > 0
        self._task: TaskModel = getattr(importlib.import_module(module, __package__), name)(settings)
        rehearsed = [one["name"] for one in config["input"] if not one.get("optional") or one["name"] == "IMAGE"]
        trouble = rehearse(self._task, rehearsed, {"max_new_tokens": 1} if settings.task in _GENERATING else {})
        if trouble is not None:
            pb_utils.Logger.log_warn(f"the rehearsal before the first request went wrong: {trouble}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        rows: dict[int, list[Row]] = {}
        for number, request in enumerate(requests):
            if request.is_cancelled():
                responses[number] = _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            try:
                rows[number] = self._read(request)
            except BadInput as error:
                responses[number] = _error(str(error), pb_utils.TritonError.INVALID_ARG)
        for number, response in self._respond(rows).items():
            responses[number] = response
        return responses

    def finalize(self) -> None:
        del self._task

    def _respond(self, rows: dict[int, list[Row]]) -> dict[int, Any]:
        """All rows in one go; if that breaks, each request by itself, so that only the one that breaks it fails."""
        if not rows:
            return {}
        try:
            with torch.inference_mode():
                answers = iter(self._task.answer([row for several in rows.values() for row in several]))
            return {number: self._response([next(answers) for _ in several]) for number, several in rows.items()}
        except Exception as error:
            if len(rows) == 1:
                number = next(iter(rows))
                detail = f"{type(error).__name__}: {error}"
                pb_utils.Logger.log_error(f"a request failed: {detail}")
                return {number: _error(detail, pb_utils.TritonError.INTERNAL)}
        return {number: self._respond({number: several})[number] for number, several in rows.items()}

    def _read(self, request: Any) -> list[Row]:
        """A request's rows: row i of every input belongs to row i of the others."""
        values: dict[str, np.ndarray] = {}
        for name in (*self._inputs, "PARAMETERS"):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                array = tensor.as_numpy()
                values[name] = array if self._batches else array[None]
        count = max(len(array) for array in values.values())
        rows = []
        for i in range(count):
            inputs = {name: tuple(array[i].reshape(-1)) for name, array in values.items()}
            given = inputs.pop("PARAMETERS", None) or (b"",)
            rows.append(Row(inputs=inputs, parameters=parse_json(given[0]), is_cancelled=request.is_cancelled))
        return rows

    def _response(self, answers: list[Answer | BadInput]) -> Any:
        good: list[Answer] = []
        for number, answer in enumerate(answers):
            if isinstance(answer, BadInput):
                place = f"row {number}: " if len(answers) > 1 else ""
                return _error(f"{place}{answer}", pb_utils.TritonError.INVALID_ARG)
            good.append(answer)
        tensors = []
        for name in good[0]:
            array = stack([answer[name] for answer in good])
            tensors.append(pb_utils.Tensor(name, array if self._batches else array[0]))
        return pb_utils.InferenceResponse(output_tensors=tensors)


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of one output; shorter ones are padded with nothing (zero, empty text)."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    shape = (len(arrays), max(len(array) for array in arrays), *arrays[0].shape[1:])
    padded = np.full(shape, b"" if arrays[0].dtype == np.object_ else 0, dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _settings(given: dict[str, str], args: dict[str, str]) -> Settings:
    if given.get("task") not in _TASKS:
        raise RuntimeError(f"task {given.get('task')!r} is none of those that this runtime computes: {', '.join(_TASKS)}")
    return Settings(
        model_path=readable_path(given["model_path"]),
        task=given["task"],
        pooling=given.get("pooling", ""),
        normalize=given.get("normalize") == "true",
        max_length=int(given["max_length"]) if given.get("max_length") else None,
        pickled=given.get("weights") == "pickle",
        custom_code=given.get("custom_code") == "true",
        device=_device(args["model_instance_kind"], args["model_instance_device_id"]),
    )


def _device(kind: str, device_id: str) -> str:
    if kind == "CPU" or (kind != "GPU" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("this entry asks for a GPU, but torch in the model runtime sees none")
    return f"cuda:{device_id}"


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


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
